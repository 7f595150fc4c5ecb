"""Online softmax over blocks in MLX operations: memory linear in the length, forward and backward,
on any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from ..ops.blocks import Blocks, blocks_of
from ..ops.crossover import blocks_pay
from ..ops.online_softmax import Arrays, backward, folded, forward
from ..problem import Attend, Call, Device, Problem
from .route import Route

# Queries and keys per block. On the CPU by measurement (benchmarks/crossover.py): small blocks skip
# more of a mask, larger ones rescale less. On a GPU (H200) the largest that fits is the fastest.
_CPU_SKIPPING_BLOCK = 128
_CPU_BLOCK = 256
_GPU_BLOCKS = (4096, 2048, 1024)
_SMALLEST_GPU_BLOCK = 512
_GPU_MEMORY_SHARE = 1 / 16


class Blockwise(Route):
    """Forward by blocks, with a gradient that recomputes them."""

    name = "blockwise"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any problem."""
        return True, "block by block, the scores take no more memory than a block"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Where blocks beat MLX's unfused attention."""
        return blocks_pay(problem, device)

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """Queries, and keys, per block."""
        if device.backend == "cpu":
            return _CPU_BLOCK if problem.visible is None else _CPU_SKIPPING_BLOCK
        most = _GPU_MEMORY_SHARE * device.memory
        for size in _GPU_BLOCKS:
            if self.extra_memory(problem, device, size) <= most:
                return size
        return _SMALLEST_GPU_BLOCK

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """In float32: scaled queries, the output in parts and whole, and one block, its scores
        three times."""
        assert block_size is not None
        p = problem
        heads = p.batch * p.query_heads
        queries = heads * p.query_length * (p.head_dim + 2 * (p.value_head_dim + 2))
        rows, columns = min(block_size, p.query_length), min(block_size, p.key_length)
        keys = p.batch * p.key_heads * columns * (p.head_dim + p.value_head_dim)
        return 4 * (queries + keys + heads * rows * (3 * columns + 2 * p.value_head_dim))

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """`forward` with `backward` as its gradient."""
        assert block_size is not None
        blocks = blocks_of(problem, block_size)
        has_mask = problem.has_array_mask and problem.structure is None
        attention = _differentiable(blocks, has_mask, problem.sinks, problem.softcap)

        def attend(call: Call) -> mx.array:
            arrays = [x for x in folded(call) if x is not None]
            out = attention(*arrays)[0]
            return mx.flatten(out, 1, 2).astype(call.dtype)

        return attend


def _differentiable(
    blocks: Blocks, has_mask: bool, has_sinks: bool, softcap: float | None
) -> Callable[..., list[mx.array]]:
    """`forward` with `backward` as its gradient, as a function of the arrays alone: q, k, v, then
    mask and sinks if any.

    Gradients go to exactly those arrays, which is why nothing is captured.
    """

    def named(arrays: Sequence[mx.array]) -> Arrays:
        q, k, v, *rest = arrays
        return Arrays(q, k, v, rest[0] if has_mask else None, rest[-1] if has_sinks else None)

    def attention(*arrays: mx.array) -> list[mx.array]:
        return list(forward(named(arrays), blocks, softcap))

    def gradient(
        primals: Sequence[mx.array], cotangents: Sequence[mx.array], outputs: Sequence[mx.array]
    ) -> list[mx.array]:
        gradients = backward(named(primals), blocks, list(outputs), list(cotangents), softcap)
        is_present = (True, True, True, has_mask, has_sinks)
        present = [x for x, there in zip(gradients, is_present, strict=True) if there]
        # A bool mask has no gradient, but a place in the answer.
        pairs = zip(present, primals, strict=True)
        return [mx.zeros_like(x) if dx is None else dx.astype(x.dtype) for dx, x in pairs]

    function = mx.custom_function(attention)
    function.vjp(gradient)
    return function  # type: ignore[return-value]  # typed in MLX's stubs as returning object


blockwise = Blockwise()
