"""Attention over keys and values that mlx-lm keeps quantized.

Stock mlx-lm multiplies with the quantized arrays themselves, which leaves scores of H x L x S
elements. For one or a few queries that is best on a GPU, as nothing but the quantized bytes is
read. For many queries, and on the CPU for most calls, the keys and values are dequantized here,
some heads at a time (heads are independent of each other), and go where any attention call goes.

On CUDA nothing is multiplied with them by MLX: that backend's quantized_matmul (0.32.4) takes no
slice of a cache, and where keys are broadcast over groups of query heads, it takes the first
head's keys for all.

On Metal and CUDA a kernel of ours reads the quantized arrays for few queries, and leaves no scores;
on Metal where that costs less by counting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import mlx.core as mx

from ..kernels.quantization import KERNEL_BITS, Bits
from ..ops.ordering import after
from ..ops.written_out import mask_as_array, masked, weights_of
from ..planning import layers
from ..planning.counts import Kind
from ..problem import Problem, as_float, phase_of
from ..routes.cuda_kernel import cuda_kernel
from ..routes.metal_kernel import metal_kernel
from ..routes.route import TakesQuantized
from . import state

NAME = "quantized"

# Few queries read the keys and values once: dequantized ones are more bytes to read.
_FEW_QUERIES = 8
# On the CPU MLX dequantizes anew for each row of queries, and in 16 bits converts each product: a
# cache of 4,096 tokens (32/8 heads, head dim 128) takes one query 160 ms in bfloat16, 50 ms
# dequantized, and 8 queries 1,150 and 55 ms; in float32, with 8 bits, 37 and 44 ms, and 168 and 49
# ms. So many rows of queries a key head pay there for dequantizing (MLX 0.32.4, 2 cores), by the
# type of the queries; those of 3, 5 or 6 bits, which lie across bytes, take twice as long.
_FEWEST_ROWS = {mx.float32: (8, 16), mx.float16: (1, 2), mx.bfloat16: (1, 2)}
_ACROSS_BYTES = (3, 5, 6)
# Numbers of the keys below which describing the dequantized call takes longer than either way.
_FEW_NUMBERS = 2**14
# Bytes of keys and values that are dequantized at once.
_BYTES_AT_ONCE = 2**27

Quantized = Sequence[mx.array]
# Our kernels that take them, by backend.
_KERNELS: dict[str, TakesQuantized] = {"metal": metal_kernel, "cuda": cuda_kernel}
_BY_KERNEL = "our own kernel reads the quantized keys and values once"
_SINKS = "on the quantized keys and values, with sinks"


def by_blocks(
    original: Callable[..., mx.array], is_same: Callable[[], bool]
) -> Callable[..., mx.array]:
    """mlx-lm's `quantized_scaled_dot_product_attention`, which for many queries goes by way of
    dequantized heads."""

    @wraps(original)
    def quantized_scaled_dot_product_attention(
        queries: mx.array,
        q_keys: Quantized,
        q_values: Quantized,
        scale: float,
        mask: Any,
        group_size: int = 64,
        bits: int = 8,
        **more: Any,  # of another release
    ) -> mx.array:
        if state.planner is not None and not more and is_same():
            done = _attention(queries, q_keys, q_values, scale, mask, None, group_size, bits)
            if done is not None:
                layers.count(done[1], sys._getframe(1))
                return done[0]
        return original(
            queries,
            q_keys,
            q_values,
            scale=scale,
            mask=mask,
            group_size=group_size,
            bits=bits,
            **more,
        )

    return quantized_scaled_dot_product_attention


def with_sinks(
    original: Callable[..., mx.array], is_same: Callable[[], bool]
) -> Callable[..., mx.array]:
    """mlx-lm's `scaled_dot_product_attention`, which refuses sinks over a quantized cache, with
    them."""

    @wraps(original)
    def scaled_dot_product_attention(
        queries: mx.array,
        keys: Any,
        values: Any,
        cache: Any,
        scale: float,
        mask: Any,
        sinks: mx.array | None = None,
        **more: Any,  # of another release
    ) -> mx.array:
        # A cache of mlx-vlm's own kind (TurboQuant) has bits, and no groups.
        is_quantized = hasattr(cache, "bits") and hasattr(cache, "group_size")
        if sinks is None or state.planner is None or more or not is_quantized or not is_same():
            return original(
                queries, keys, values, cache, scale=scale, mask=mask, sinks=sinks, **more
            )
        arguments = (queries, keys, values, scale, mask, sinks, cache.group_size, cache.bits)
        done = _attention(*arguments)
        if done is None:
            kind = Kind(phase_of(queries.shape[2], keys[0].shape[2]), NAME, _SINKS)
            done = _products(*arguments), kind
        layers.count(done[1], sys._getframe(1))
        return done[0]

    return scaled_dot_product_attention


def _attention(
    queries: mx.array,
    q_keys: Quantized,
    q_values: Quantized,
    scale: float,
    mask: Any,
    sinks: mx.array | None,
    group_size: int,
    bits: int,
) -> tuple[mx.array, Kind] | None:
    """The call on dequantized heads and its kind; None where the quantized products are better
    (for few queries, or where MLX's unfused attention would be all they get) and for what a route
    does not take."""
    planner = state.planner
    assert planner is not None
    done = _by_kernel(queries, q_keys, q_values, scale, mask, sinks, Bits(bits, group_size))
    if done is not None:
        return done
    backend = planner.device.backend
    products_work = backend != "cuda"
    factor = as_float(scale)
    if factor is None or (products_work and _products_pay(queries, q_keys, bits, backend)):
        return None
    heads, key_heads = queries.shape[1], q_keys[0].shape[1]
    groups = heads // key_heads
    at_once = _heads_at_once(q_keys, q_values, bits)
    parts: list[mx.array] = []
    for first in range(0, key_heads, at_once):
        own = slice(first, min(first + at_once, key_heads))
        queried = slice(groups * own.start, groups * own.stop)
        k, v = (_dequantized(x, own, parts[-1:], group_size, bits) for x in (q_keys, q_values))
        q, own_mask = queries[:, queried], _mask_of(mask, queried)
        own_sinks = None if sinks is None else sinks[queried]
        plan = planner.lookup(q, k, v, own_mask, own_sinks)
        if plan.problem is None or (products_work and not plan.improves):
            return None
        parts.append(plan.run(q, k, v, scale=factor, mask=own_mask, sinks=own_sinks))
    phase, route, reason = plan.kind
    out = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)
    return out, Kind(phase, NAME, f"dequantized some heads at a time, then {route}: {reason}")


def _by_kernel(
    queries: mx.array,
    q_keys: Quantized,
    q_values: Quantized,
    scale: Any,
    mask: Any,
    sinks: mx.array | None,
    bits: Bits,
) -> tuple[mx.array, Kind] | None:
    """The call on a kernel that reads the quantized arrays as they are; None where there is none,
    or it does not pay."""
    planner = state.planner
    assert planner is not None
    device, wanted = planner.device, planner.settings.route
    route = _KERNELS.get(device.backend)
    if route is None or wanted not in (None, route.name):
        return None
    factor = as_float(scale)
    known = bits.bits in KERNEL_BITS and len(q_keys) == len(q_values) == 3
    if factor is None or not known:
        return None
    if not queries.dtype == q_keys[1].dtype == q_values[1].dtype:
        return None
    # Of the type and the shapes that the dequantized ones would have; nothing is computed.
    k, v = (
        mx.zeros((*x[0].shape[:3], x[0].shape[3] * 32 // bits.bits)) for x in (q_keys, q_values)
    )
    k, v = k.astype(queries.dtype), v.astype(queries.dtype)
    problem = Problem.of(queries, k, v, mask, sinks)
    if problem is None or not route.takes_quantized(problem, device):
        return None
    if wanted is None and not route.pays_quantized(problem, bits, device):
        return None
    arrays = [queries, *q_keys, *q_values]
    if route.reads_mask(problem):
        scores = (*queries.shape[:3], problem.key_length)
        typed = mask if mask.dtype == mx.bool_ else mask.astype(queries.dtype)
        arrays.append(mx.broadcast_to(typed, scores))
    if sinks is not None:
        arrays.append(sinks)
    out = route.quantized(problem, bits, device, factor, arrays)
    reason = f"{route.name}: {_BY_KERNEL}"
    return None if out is None else (out, Kind(problem.phase, NAME, reason))


def _dequantized(
    x: Quantized, heads: slice, before: list[mx.array], group_size: int, bits: int
) -> mx.array:
    """Some heads of keys or values, made after `before`: MLX is lazy, and would dequantize those of
    many parts at once."""
    numbers, scales, biases = x
    return mx.dequantize(
        numbers[:, heads],
        after(scales[:, heads], *before),
        biases[:, heads],
        group_size=group_size,
        bits=bits,
    )


def _mask_of(mask: Any, heads: slice) -> Any:
    """The mask of some query heads."""
    is_by_head = isinstance(mask, mx.array) and mask.ndim == 4 and mask.shape[1] > 1
    return mask[:, heads] if is_by_head else mask


def _products_pay(queries: mx.array, q_keys: Quantized, bits: int, backend: str) -> bool:
    """Whether products with the quantized arrays, where they work, are the faster way."""
    if queries.shape[2] > _FEW_QUERIES:
        return False
    if backend != "cpu" or queries.dtype not in _FEWEST_ROWS:
        return True
    rows = queries.shape[2] * queries.shape[1] // q_keys[0].shape[1]
    numbers = q_keys[0].size * 32 // bits
    within_bytes, across_bytes = _FEWEST_ROWS[queries.dtype]
    fewest = across_bytes if bits in _ACROSS_BYTES else within_bytes
    return rows < fewest or numbers < _FEW_NUMBERS


def _heads_at_once(q_keys: Quantized, q_values: Quantized, bits: int) -> int:
    """Key heads whose keys and values together take about `_BYTES_AT_ONCE`, in the type of their
    scales."""
    numbers = sum(x[0][:, :1].size * 32 // bits for x in (q_keys, q_values))
    return max(1, _BYTES_AT_ONCE // (numbers * q_keys[1].dtype.size))


def _products(
    queries: mx.array,
    q_keys: Quantized,
    q_values: Quantized,
    scale: float,
    mask: Any,
    sinks: mx.array,
    group_size: int,
    bits: int,
) -> mx.array:
    """softmax(scale * Q K^T + mask, with sinks) V on the quantized arrays: [B, H, L, D_v]. The
    query heads of one key head are rows of one product: nothing is broadcast."""
    key_heads, (heads, length) = q_keys[0].shape[1], queries.shape[1:3]
    (k, k_scales, k_biases), (v, v_scales, v_biases) = q_keys, q_values
    rows = scale * mx.reshape(queries, (queries.shape[0], key_heads, -1, queries.shape[-1]))
    scores = mx.quantized_matmul(
        rows, k, k_scales, k_biases, transpose=True, group_size=group_size, bits=bits
    )
    key_length = scores.shape[-1]
    scores = mx.reshape(scores, (-1, heads, length, key_length))
    if mask is not None:
        scores = masked(scores, mask_as_array(mask, length, key_length))
    weights = weights_of(scores, sinks)
    weights = mx.reshape(weights, (-1, key_heads, heads // key_heads * length, key_length))
    out = mx.quantized_matmul(
        weights, v, v_scales, v_biases, transpose=False, group_size=group_size, bits=bits
    )
    return mx.reshape(out, (*queries.shape[:3], -1))
