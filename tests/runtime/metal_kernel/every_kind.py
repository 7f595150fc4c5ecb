"""Runs each kind of Metal kernel on this Mac against MLX's operations, on small arrays, and fails
where one does not compile or is wrong:

python tests/runtime/metal_kernel/every_kind.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from mlx_flash_runtime.kernels.metal import checked, kernel
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Window

FEW = Problem(1, 4, 2, 3, 300, 64, 64)
MANY = Problem(1, 4, 2, 100, 300, 64, 64, mask="window", structure=Window(40))
MASKS: tuple[MaskKind, ...] = ("none", "causal", "window", "bool", "additive")
FEW_HEAD_DIMS = [(8, 8), (36, 20), (72, 72), (80, 80), (128, 128), (256, 256), (576, 512)]
MANY_HEAD_DIMS = [(64, 64), (72, 72), (80, 80), (96, 96), (96, 64), (128, 128), (192, 128)]
DTYPES = ("float32", "float16", "bfloat16")


def kinds() -> Iterator[tuple[Problem, Bits | None]]:
    """Each kind of kernel, as a problem that needs it."""
    for dtype in DTYPES:
        for mask in MASKS:
            structure = Window(20) if mask == "window" else None
            yield replace(FEW, dtype=dtype, mask=mask, structure=structure), None
        for head_dims in FEW_HEAD_DIMS:
            yield _with(FEW, dtype, head_dims), None
        for head_dims in MANY_HEAD_DIMS:
            yield _with(MANY, dtype, head_dims), None
        for queries in (1, 12, 48):
            yield replace(FEW, dtype=dtype, query_length=queries, mask="causal"), None
        yield replace(FEW, dtype=dtype, sinks=True, softcap=2.0), None
        yield replace(MANY, dtype=dtype, sinks=True), None
        yield replace(MANY, dtype=dtype, softcap=2.0), None
        yield replace(MANY, dtype=dtype, mask="bool", structure=None), None
        yield replace(MANY, dtype=dtype, mask="bool", structure=None, sinks=True), None
        yield replace(MANY, dtype=dtype, query_length=128, key_length=256), None
        for head_dims in MANY_HEAD_DIMS:
            yield replace(_with(MANY, dtype, head_dims), training=True), None
        yield replace(MANY, dtype=dtype, training=True, sinks=True, softcap=2.0), None
        yield replace(MANY, dtype=dtype, training=True, query_length=128, key_length=256), None
        for bits in (4, 8):
            for group_size in (32, 64, 128):
                yield _with(FEW, dtype, (128, 128)), Bits(bits, group_size)


def _with(problem: Problem, dtype: str, head_dims: tuple[int, int]) -> Problem:
    head_dim, value_head_dim = head_dims
    return replace(problem, dtype=dtype, head_dim=head_dim, value_head_dim=value_head_dim)


def main() -> int:
    failed = count = 0
    for problem, bits in kinds():
        reason = kernel.why_not(problem)
        if reason:
            print(f"none: {problem}: {reason}")
            continue
        count += 1
        if not checked.run(problem, bits):
            failed += 1
    print(f"{count} kinds of Metal kernel ran, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
