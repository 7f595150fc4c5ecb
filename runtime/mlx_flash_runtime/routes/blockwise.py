"""Online softmax over blocks in MLX operations: memory linear in the length, forward and backward, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from ..online_softmax import Blocks, backward, forward
from ..problem import Device, Problem, promoted

NAME = "blockwise"

# Queries and keys per block. On the CPU by measurement (benchmarks/crossover.py): small blocks skip more of a causal
# mask, larger ones rescale less. On a GPU not measured yet: large enough to fill it.
_CPU_CAUSAL_BLOCK = 128
_CPU_BLOCK = 256
_GPU_BLOCK = 1024


def accepts(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any problem."""
    return True, "block by block, the scores take no more memory than a block"


def block_size(problem: Problem, device: Device) -> int | None:
    """Queries, and keys, per block."""
    if device.backend != "cpu":
        return _GPU_BLOCK
    return _CPU_CAUSAL_BLOCK if problem.mask == "causal" else _CPU_BLOCK


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """In float32: scaled queries, the output in parts and whole, and one block, its scores three times."""
    assert block_size is not None
    heads = problem.batch * problem.query_heads
    queries = heads * problem.query_length * (problem.head_dim + 2 * (problem.value_head_dim + 2))
    rows, columns = min(block_size, problem.query_length), min(block_size, problem.key_length)
    keys = problem.batch * problem.key_heads * columns * (problem.head_dim + problem.value_head_dim)
    return 4 * (queries + keys + heads * rows * (3 * columns + 2 * problem.value_head_dim))


def run(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None,
    block_size: int | None,
) -> mx.array:
    """Forward by blocks, with a gradient that recomputes them."""
    assert block_size is not None
    heads, groups = k.shape[1], q.shape[1] // k.shape[1]
    inputs = [scale * mx.unflatten(q.astype(mx.float32), 1, (heads, groups)), k, v]
    if isinstance(mask, mx.array):
        inputs.append(_with_five_axes(mask, heads, groups))
    if sinks is not None:
        inputs.append(mx.unflatten(sinks.astype(mx.float32), 0, (heads, groups)))
    blocks = Blocks(q.shape[2], k.shape[2], block_size, causal=isinstance(mask, str))
    attention = _attention(blocks, isinstance(mask, mx.array), sinks is not None)
    return mx.flatten(attention(*inputs)[0], 1, 2).astype(promoted(q.dtype, k.dtype, v.dtype))


def _with_five_axes(mask: mx.array, heads: int, groups: int) -> mx.array:
    mask = mx.reshape(mask, (1,) * (4 - mask.ndim) + tuple(mask.shape))
    return mx.expand_dims(mask, 2) if mask.shape[1] == 1 else mx.unflatten(mask, 1, (heads, groups))


@lru_cache(maxsize=256)
def _attention(blocks: Blocks, has_mask: bool, has_sinks: bool) -> Callable[..., list[mx.array]]:
    """`forward` with `backward` as its gradient, as a function of the arrays alone: q, k, v, then mask and sinks if
    any.

    Gradients go to exactly those arrays, which is why nothing is captured.
    """

    def named(arrays: Sequence[mx.array]) -> tuple[mx.array, mx.array, mx.array, mx.array | None, mx.array | None]:
        q, k, v, *rest = arrays
        return q, k, v, rest[0] if has_mask else None, rest[-1] if has_sinks else None

    def attention(*arrays: mx.array) -> list[mx.array]:
        return list(forward(*named(arrays), blocks))

    def gradient(
        primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
    ) -> list[mx.array]:
        gradients = backward(*named(primals), blocks, list(outputs), list(cotangents))
        present = [x for x, there in zip(gradients, (True, True, True, has_mask, has_sinks), strict=True) if there]
        # A bool mask has no gradient, but a place in the answer.
        pairs = zip(present, primals, strict=True)
        return [mx.zeros_like(x) if dx is None else dx.astype(x.dtype) for dx, x in pairs]

    function = mx.custom_function(attention)
    function.vjp(gradient)
    return function  # type: ignore[return-value]  # typed in MLX's stubs as returning object
