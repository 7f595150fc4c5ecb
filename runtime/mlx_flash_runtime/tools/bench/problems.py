"""The problems of a grid, and the words that options and rows have for them: a phase, a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from ...problem import Problem
from ...problem.masks import Window

DTYPES = ("float32", "float16", "bfloat16")
PHASES = ("prefill", "decode", "train")
MASKS = ("none", "causal", "window:N", "bool", "additive")

# The eight configurations of the project's first claims.
BATCHES, LENGTHS, HEAD_DIMS = (1, 2), (64, 128), (32, 64)


def cross_product(
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
    head_dims: Sequence[int] = HEAD_DIMS,
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
    decodes = problem.query_length < problem.key_length
    return {
        "batch": problem.batch,
        "length": problem.key_length,
        "head_dim": problem.head_dim,
        "heads": problem.query_heads,
        "kv_heads": problem.key_heads,
        "dtype": problem.dtype,
        "mask": problem.mask if problem.window is None else f"window:{problem.window}",
        "phase": "train" if problem.training else "decode" if decodes else "prefill",
    }


def as_planned(problem: Problem) -> Problem:
    """The problem as the planner sees its call: a window as long as the keys is causal."""
    if problem.window is None or problem.window < problem.key_length:
        return problem
    return replace(problem, mask="causal", mask_shape=(), structure=None)
