"""The calls for which there are routes of ours on a Mac, by name: `docs/metal.md` counts what they
cost, `mlx-flash bench routes` measures it."""

from __future__ import annotations

from dataclasses import replace

from ...problem import MaskKind, Problem
from ...problem.masks import Segments, Structure, Window

_WINDOWS = (128, 512, 1024, 4096)
_HEADS_OF_GPT_OSS = {"query_heads": 64, "key_heads": 8}
_HEADS_OF_LATENTS = {"query_heads": 16, "key_heads": 1, "value_head_dim": 512}


def call(queries: int, keys: int, head_dim: int = 128, **changes: object) -> Problem:
    """A causal call of 32 query heads on 8 key heads in bfloat16, with `changes` of its fields."""
    problem = Problem(1, 32, 8, queries, keys, head_dim, head_dim, "bfloat16", "causal")
    return replace(problem, **changes)  # type: ignore[arg-type]  # fields of a Problem


def masked(problem: Problem, structure: Structure) -> Problem:
    """The call with the mask that `structure` says, a window or packed documents."""
    kind: MaskKind = "window" if isinstance(structure, Window) else "segments"
    shape = problem.query_length, problem.key_length
    return replace(problem, mask=kind, mask_shape=shape, structure=structure)


def inference() -> dict[str, Problem]:
    """Without a gradient."""
    found = {}
    for size in _WINDOWS:
        found[f"window {size:,}, prompt of 16,384"] = masked(call(16384, 16384), Window(size))
    for size in _WINDOWS:
        name = f"window {size:,}, chunk of 2,048 after 14,336"
        found[name] = masked(call(2048, 16384), Window(size))
    found["16 documents of 1,024"] = masked(call(16384, 16384), Segments((1024,) * 16))
    found["softcap, prompt of 8,192"] = call(8192, 8192, softcap=50.0)
    found["softcap, window 4,096, prompt of 8,192"] = masked(
        call(8192, 8192, softcap=50.0), Window(4096)
    )
    found["192/128, prompt of 8,192"] = call(8192, 8192, 192, value_head_dim=128)
    for keys in (8192, 32768):
        found[f"one query on {keys:,}, D 80"] = call(1, keys, 80)
        name = f"one query on {keys:,}, 16/1 heads, latents 576/512"
        found[name] = call(1, keys, 576, **_HEADS_OF_LATENTS)
    for queries in (12, 48):
        found[f"{queries} queries on 8,192, D 128"] = call(queries, 8192)
        found[f"{queries} queries on 8,192, D 256"] = call(queries, 8192, 256)
    return found


def training() -> dict[str, Problem]:
    """With the gradient, of 8,192 tokens."""
    found = {}
    for size in _WINDOWS:
        name = f"window {size:,}, 32/8 heads of 128"
        found[name] = masked(call(8192, 8192), Window(size))
    many = call(8192, 8192, 64, **_HEADS_OF_GPT_OSS)
    for size in (128, 256, 512):
        name = f"window {size:,}, 64/8 heads of 64, sinks"
        found[name] = masked(replace(many, sinks=True), Window(size))
    for size in (128, 512):
        documents = Segments((size,) * (8192 // size))
        name = f"{len(documents.lengths)} documents of {size}"
        found[f"{name}, 32/8 heads of 128"] = masked(call(8192, 8192), documents)
        found[f"{name}, 64/8 heads of 64"] = masked(many, documents)
    return {name: replace(problem, training=True) for name, problem in found.items()}
