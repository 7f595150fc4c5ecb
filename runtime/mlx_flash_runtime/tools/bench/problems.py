"""The problems of a grid, and the words that options and rows have for them: a phase, a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from ...problem import Problem
from ...problem.masks import Window

DTYPES = ("float32", "float16", "bfloat16")
PHASES = ("prefill", "decode", "train")
MASKS = ("none", "causal", "window:N", "bool", "additive")

# What is measured where an option is not given: what language models do, and the eight
# configurations of the project's first claims. By the option's name; no key heads: as many as query
# heads.
PRESETS: dict[str, dict[str, tuple[Any, ...]]] = {
    "models": {
        "batch": (1,),
        "length": (128, 512, 1024, 4096),
        "head_dim": (64,),
        "heads": (8,),
        "kv_heads": (2,),
        "dtype": ("bfloat16",),
        "mask": ("causal",),
        "phase": PHASES,
    },
    "claims": {
        "batch": (1, 2),
        "length": (64, 128),
        "head_dim": (32, 64),
        "heads": (8,),
        "kv_heads": (),
        "dtype": ("float32",),
        "mask": ("none",),
        "phase": ("prefill",),
    },
}
# On a CPU, MLX's own attention takes up to 20 s for a call of 4,096 tokens with its gradients.
CPU_LENGTHS = (128, 512, 1024, 2048)


def cross_product(
    batches: Sequence[int],
    lengths: Sequence[int],
    head_dims: Sequence[int],
    heads: Sequence[int] = (8,),
    kv_heads: Sequence[int] = (),
    dtypes: Sequence[str] = ("float32",),
    masks: Sequence[str] = ("none",),
    phases: Sequence[str] = ("prefill",),
) -> list[Problem]:
    """The problem of every combination: of PHASES and MASKS (a window with its size, as in
    `window:256`), of lengths of the keys. Without `kv_heads` there are as many key heads as query
    heads.

    Raises ValueError where the key heads do not divide the query heads, or for a mask that is none.
    """
    for count, kv_count in product(heads, kv_heads):
        if count % kv_count:
            raise ValueError(f"{kv_count} key heads do not divide {count} query heads")
    problems = []
    for dtype, phase, mask, count in product(dtypes, phases, masks, heads):
        shapes = product(kv_heads or (count,), batches, lengths, head_dims)
        for kv_count, batch, length, head_dim in shapes:
            queries = 1 if phase == "decode" else length
            problem = Problem(
                batch, count, kv_count, queries, length, head_dim, head_dim, dtype=dtype
            )
            problem = replace(problem, training=phase == "train")
            problems.append(_with_mask(problem, mask))
    return problems


def preset(name: str, given: Mapping[str, Sequence[Any] | None], backend: str) -> list[Problem]:
    """The problems of one of PRESETS, with the options that are `given` in the place of its own.
    On a CPU its lengths are CPU_LENGTHS where they would take minutes. Query heads that are given
    alone have as many key heads.

    Raises ValueError, as `cross_product`.
    """
    chosen = dict(PRESETS[name])
    if name == "models" and backend == "cpu":
        chosen["length"] = CPU_LENGTHS
    if given.get("heads") is not None:
        chosen["kv_heads"] = ()
    for option, values in given.items():
        if values is not None:
            chosen[option] = tuple(values)
    return cross_product(
        chosen["batch"],
        chosen["length"],
        chosen["head_dim"],
        chosen["heads"],
        chosen["kv_heads"],
        chosen["dtype"],
        chosen["mask"],
        chosen["phase"],
    )


def _with_mask(problem: Problem, mask: str) -> Problem:
    """The problem with a mask in the words of an option; raises ValueError for what is no mask."""
    kind, _, size = mask.partition(":")
    shape = (problem.query_length, problem.key_length)
    if kind == "window" and size.isdecimal() and int(size) > 0:
        return replace(problem, mask="window", mask_shape=shape, structure=Window(int(size)))
    if mask not in MASKS or mask == "window:N":
        raise ValueError(f"{mask} is not a mask; the masks are {', '.join(MASKS)}")
    is_array = mask in ("bool", "additive")
    return replace(problem, mask=mask, mask_shape=shape if is_array else ())  # type: ignore[arg-type]  # one of MASKS


def words_of(problem: Problem) -> dict[str, Any]:
    """The problem in the words of a row, which are those of the options."""
    phase = "decode" if problem.query_length < problem.key_length else "prefill"
    if problem.training:
        phase = "train"
    return {
        "batch": problem.batch,
        "length": problem.key_length,
        "head_dim": problem.head_dim,
        "heads": problem.query_heads,
        "kv_heads": problem.key_heads,
        "dtype": problem.dtype,
        "mask": problem.mask if problem.window is None else f"window:{problem.window}",
        "phase": phase,
    }


def as_planned(problem: Problem) -> Problem:
    """The problem as the planner sees its call: a window as long as the keys is causal."""
    if problem.window is None or problem.window < problem.key_length:
        return problem
    return replace(problem, mask="causal", mask_shape=(), structure=None)
