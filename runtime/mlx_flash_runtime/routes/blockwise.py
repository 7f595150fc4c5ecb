"""Online softmax over blocks in MLX operations: memory linear in the length, forward and backward, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import mlx.core as mx

from ..crossover import blocks_pay
from ..online_softmax import Blocks, backward, blocks_of, folded, forward
from ..problem import Call, Device, Problem

NAME = "blockwise"

# Queries and keys per block. On the CPU by measurement (benchmarks/crossover.py): small blocks skip more of a mask,
# larger ones rescale less. On a GPU (H200) the largest that fits is the fastest.
_CPU_SKIPPING_BLOCK = 128
_CPU_BLOCK = 256
_GPU_BLOCKS = (4096, 2048, 1024)
_SMALLEST_GPU_BLOCK = 512
_GPU_MEMORY_SHARE = 1 / 16


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any problem."""
    return True, "block by block, the scores take no more memory than a block"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """Where blocks beat MLX's unfused attention."""
    return blocks_pay(problem, device)


def block_size(problem: Problem, device: Device) -> int | None:
    """Queries, and keys, per block."""
    if device.backend != "cpu":
        most = _GPU_MEMORY_SHARE * device.memory
        fitting = (size for size in _GPU_BLOCKS if extra_memory(problem, device, size) <= most)
        return next(fitting, _SMALLEST_GPU_BLOCK)
    skipping = problem.mask == "causal" or problem.structure is not None
    return _CPU_SKIPPING_BLOCK if skipping else _CPU_BLOCK


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """In float32: scaled queries, the output in parts and whole, and one block, its scores three times."""
    assert block_size is not None
    heads = problem.batch * problem.query_heads
    queries = heads * problem.query_length * (problem.head_dim + 2 * (problem.value_head_dim + 2))
    rows, columns = min(block_size, problem.query_length), min(block_size, problem.key_length)
    keys = problem.batch * problem.key_heads * columns * (problem.head_dim + problem.value_head_dim)
    return 4 * (queries + keys + heads * rows * (3 * columns + 2 * problem.value_head_dim))


def run(call: Call, block_size: int | None) -> mx.array:
    """Forward by blocks, with a gradient that recomputes them."""
    assert block_size is not None
    inputs = folded(call)
    attention = _attention(
        blocks_of(call.problem, block_size), inputs[3] is not None, inputs[4] is not None, call.problem.softcap
    )
    out = attention(*(x for x in inputs if x is not None))[0]
    return mx.flatten(out, 1, 2).astype(call.dtype)


@lru_cache(maxsize=256)
def _attention(blocks: Blocks, has_mask: bool, has_sinks: bool, softcap: float | None) -> Callable[..., list[mx.array]]:
    """`forward` with `backward` as its gradient, as a function of the arrays alone: q, k, v, then mask and sinks if
    any.

    Gradients go to exactly those arrays, which is why nothing is captured.
    """

    def named(arrays: Sequence[mx.array]) -> tuple[mx.array, mx.array, mx.array, mx.array | None, mx.array | None]:
        q, k, v, *rest = arrays
        return q, k, v, rest[0] if has_mask else None, rest[-1] if has_sinks else None

    def attention(*arrays: mx.array) -> list[mx.array]:
        return list(forward(*named(arrays), blocks, softcap))

    def gradient(
        primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
    ) -> list[mx.array]:
        gradients = backward(*named(primals), blocks, list(outputs), list(cotangents), softcap)
        present = [x for x, there in zip(gradients, (True, True, True, has_mask, has_sinks), strict=True) if there]
        # A bool mask has no gradient, but a place in the answer.
        pairs = zip(present, primals, strict=True)
        return [mx.zeros_like(x) if dx is None else dx.astype(x.dtype) for dx, x in pairs]

    function = mx.custom_function(attention)
    function.vjp(gradient)
    return function  # type: ignore[return-value]  # typed in MLX's stubs as returning object
