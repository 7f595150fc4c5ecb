"""Random inputs of an attention call, of whatever problem: the one place that makes them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import mlx.core as mx

from ...ops.written_out import mask_as_array
from ...problem import Problem
from ...problem.masks import as_array, remember
from .machine import free_memory

# The share of the keys that a random mask shows.
_SEEN = 0.9
_HIDDEN_SCORE = -1e4


@dataclass(frozen=True)
class Inputs:
    """What one call takes. `mask` is as MLX takes it; `cotangent` has the output's shape."""

    q: mx.array  # [B, H, L, D]
    k: mx.array  # [B, H_kv, S, D]
    v: mx.array  # [B, H_kv, S, D_v]
    mask: mx.array | str | None
    sinks: mx.array | None  # [H]
    cotangent: mx.array  # [B, H, L, D_v]

    @property
    def scale(self) -> float:
        return float(self.q.shape[-1] ** -0.5)

    @property
    def mask_array(self) -> mx.array | None:
        """The mask as an array, also where it is a word; made anew, lazily, where it is."""
        if self.mask is None:
            return None
        return mask_as_array(self.mask, self.q.shape[2], self.k.shape[2])

    @property
    def arrays(self) -> list[mx.array]:
        """All that are arrays."""
        return [x for x in vars(self).values() if isinstance(x, mx.array)]


def make_inputs(problem: Problem, seed: int = 0) -> Inputs:
    """Random inputs of the problem, evaluated: the same for the same seed.

    A mask of unknown structure hides a tenth of the keys, but never a query's own, so that every
    query sees one.
    """
    p = problem
    dtype: mx.Dtype = getattr(mx, p.dtype)
    keys = mx.random.split(mx.random.key(seed), 6)

    def normal(number: int, *shape: int) -> mx.array:
        return mx.random.normal(shape, key=keys[number]).astype(dtype)

    inputs = Inputs(
        q=normal(0, p.batch, p.query_heads, p.query_length, p.head_dim),
        k=normal(1, p.batch, p.key_heads, p.key_length, p.head_dim),
        v=normal(2, p.batch, p.key_heads, p.key_length, p.value_head_dim),
        mask=_mask(p, dtype, keys[4]),
        sinks=normal(5, p.query_heads) if p.sinks else None,
        cotangent=normal(3, p.batch, p.query_heads, p.query_length, p.value_head_dim),
    )
    mx.eval(inputs.arrays)
    return inputs


def _mask(p: Problem, dtype: mx.Dtype, key: mx.array) -> mx.array | str | None:
    if p.mask == "none":
        return None
    if p.mask == "causal":
        return "causal"
    if p.structure is not None:
        return remember(as_array(p.structure, p.query_length, p.key_length), p.structure)
    rows = p.mask_shape[-2] if len(p.mask_shape) > 1 else 1
    position = mx.arange(p.key_length - rows, p.key_length)[:, None]
    own = mx.arange(p.key_length) == position
    seen = (mx.random.uniform(shape=p.mask_shape, key=key) < _SEEN) | own
    seen = mx.reshape(seen, p.mask_shape)
    return seen if p.mask == "bool" else mx.where(seen, 0.0, _HIDDEN_SCORE).astype(dtype)


def inputs_that_fit(problem: Problem) -> Inputs:
    """`make_inputs`; raises MemoryError where the inputs, and a check of the results, which holds
    keys and values in float64, do not fit."""
    p = problem
    dims = p.head_dim + p.value_head_dim
    queries = p.batch * p.query_heads * p.query_length * dims
    keys = p.batch * p.key_heads * p.key_length * dims
    masked = prod(p.mask_shape) if p.mask_shape else p.query_length * p.key_length
    masked = 0 if p.mask == "none" else masked
    # Random numbers are made in float32, before they are converted, two arrays at a time.
    if 8 * (queries + keys + masked) + 24 * keys > free_memory():
        raise MemoryError
    return make_inputs(p)
