"""The configurations of a grid: shapes, types, masks and phases, and random inputs for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import mlx.core as mx

from ...problem import Problem
from ...problem.masks import Window, window_mask

DTYPES = ("float32", "float16", "bfloat16")
PHASES = ("prefill", "decode", "train")
MASKS = ("none", "causal", "window:N", "bool", "additive")


@dataclass(frozen=True)
class Configuration:
    """One row of a grid. `length` is that of the keys; the queries are as many, or one in the
    phase `decode`. `mask` is one of MASKS, a window with its size as in `window:256`."""

    batch: int
    length: int
    head_dim: int
    heads: int = 8
    kv_heads: int = 8
    dtype: str = "float32"
    mask: str = "none"
    phase: str = "prefill"

    @property
    def query_length(self) -> int:
        return 1 if self.phase == "decode" else self.length

    @property
    def tokens(self) -> int:
        """Tokens that one call handles: all of the batch's queries."""
        return self.batch * self.query_length


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
) -> list[Configuration]:
    """Every combination; without `kv_heads` there are as many key heads as query heads.

    Raises ValueError where the key heads do not divide the query heads, or for a mask that is none.
    """
    for count, kv_count in product(heads, kv_heads):
        if count % kv_count:
            raise ValueError(f"{kv_count} key heads do not divide {count} query heads")
    for mask in masks:
        _window(mask)
    return [
        Configuration(batch, length, head_dim, count, kv_count, dtype, mask, phase)
        for dtype, phase, mask, count in product(dtypes, phases, masks, heads)
        for kv_count in (kv_heads or (count,))
        for batch, length, head_dim in product(batches, lengths, head_dims)
    ]


def _window(mask: str) -> int | None:
    """The size of `window:N`, None for another mask; raises ValueError for what is no mask."""
    kind, _, size = mask.partition(":")
    if kind == "window" and size.isdigit() and int(size) > 0:
        return int(size)
    if mask not in MASKS or mask == "window:N":
        raise ValueError(f"{mask} is not a mask; the masks are {', '.join(MASKS)}")
    return None


@dataclass(frozen=True)
class Inputs:
    """What one call takes. `mask` is as MLX takes it, `mask_array` the same as an array (for
    attention by hand); `cotangent` has the output's shape."""

    q: mx.array  # [B, H, L, D]
    k: mx.array  # [B, H_kv, S, D]
    v: mx.array  # [B, H_kv, S, D_v]
    mask: mx.array | str | None
    mask_array: mx.array | None  # [L, S]
    cotangent: mx.array  # [B, H, L, D_v]
    sinks: mx.array | None = None  # [H]

    @property
    def scale(self) -> float:
        return float(self.q.shape[-1] ** -0.5)


def make_inputs(c: Configuration) -> Inputs:
    """Random inputs, evaluated, the same on every call."""
    mx.random.seed(0)
    dtype: mx.Dtype = getattr(mx, c.dtype)
    query, key = (
        (c.batch, c.heads, c.query_length, c.head_dim),
        (c.batch, c.kv_heads, c.length, c.head_dim),
    )
    q, k, v, cotangent = (
        mx.random.normal(shape).astype(dtype) for shape in (query, key, key, query)
    )
    mask, mask_array = _make_mask(c, dtype)
    inputs = Inputs(q, k, v, mask, mask_array, cotangent)
    mx.eval(q, k, v, cotangent, *([mask_array] if mask_array is not None else []))
    return inputs


def _make_mask(c: Configuration, dtype: mx.Dtype) -> tuple[Any, mx.array | None]:
    if c.mask == "none":
        return None, None
    key = mx.arange(c.length)
    position = mx.arange(c.length - c.query_length, c.length)[:, None]
    if c.mask == "causal":
        return "causal", key <= position
    size = _window(c.mask)
    if size is not None:
        array = window_mask(c.query_length, size, c.length)
    else:
        # Every query sees its own key, so that no row is empty.
        seen = (mx.random.uniform(shape=(c.query_length, c.length)) < 0.9) | (key == position)
        array = seen if c.mask == "bool" else mx.where(seen, 0.0, -1e4).astype(dtype)
    return array, array


def problem_like(c: Configuration) -> Problem:
    """The call as the planner sees it, without any inputs."""
    window = _window(c.mask)
    structure = None if window is None or window >= c.length else Window(window)
    mask: Any = c.mask if window is None else "causal" if structure is None else "window"
    shape = () if mask in ("none", "causal") else (c.query_length, c.length)
    heads = (c.heads, c.kv_heads)
    lengths = (c.query_length, c.length)
    training = c.phase == "train"
    return Problem(
        c.batch,
        *heads,
        *lengths,
        c.head_dim,
        c.head_dim,
        c.dtype,
        mask,
        shape,
        structure,
        training=training,
    )


def problem_of(c: Configuration, inputs: Inputs) -> Problem:
    """The call as the planner sees it."""
    problem = Problem.of(inputs.q, inputs.k, inputs.v, inputs.mask, training=c.phase == "train")
    assert problem is not None
    return problem
