"""One small call of each kind of CUDA kernel, forward, backward and for few queries, for CUDA's own
checks on a GPU:

compute-sanitizer --tool memcheck python tests/runtime/cuda_kernel/every_kind.py
compute-sanitizer --tool racecheck python tests/runtime/cuda_kernel/every_kind.py
compute-sanitizer --tool synccheck python tests/runtime/cuda_kernel/every_kind.py
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_flash_runtime.kernels.cuda.launcher import Launcher
from mlx_flash_runtime.kernels.cuda.training import Training
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem

# Queries, keys, head dim, value head dim, type, mask: by warpgroups and by warps, gradients of keys
# and values together and apart.
CALLS = (
    (130, 200, 64, 64, mx.bfloat16, "causal"),
    (70, 70, 256, 256, mx.float16, "causal"),
    (70, 100, 192, 128, mx.bfloat16, None),
    (70, 100, 64, 64, mx.float32, "causal"),
    (70, 100, 36, 36, mx.float16, None),
)

# Few queries of 6 heads on 2: queries, keys, head dim, value head dim, bits, mask.
FEW = (
    (1, 300, 128, 128, None, None),
    (7, 700, 256, 256, None, "causal"),
    (3, 300, 72, 80, None, "causal"),
    (2, 300, 576, 512, None, None),
    (2, 300, 128, 64, 4, "causal"),
    (1, 40, 64, 64, 8, None),
)


def few_queries() -> None:
    for queries, keys, dim, value_dim, width, mask in FEW:
        shapes = (6, queries, dim), (2, keys, dim), (2, keys, value_dim)
        q, k, v = (mx.random.normal((2, *shape)).astype(mx.bfloat16) for shape in shapes)
        problem = Problem.of(q, k, v, mask, None)
        assert problem is not None
        arrays, bits = [q, k, v], None
        if width is not None:
            bits = Bits(width, 64)
            packed = [mx.quantize(x, group_size=64, bits=width) for x in (k, v)]
            arrays = [q, *packed[0], *packed[1]]
        launcher = Launcher(problem, current_device().capability, bits=bits)
        mx.eval(launcher.replayed(0.1, arrays))


def main() -> None:
    few_queries()
    for queries, keys, dim, value_dim, dtype, mask in CALLS:
        shapes = (2, queries, dim), (1, keys, dim), (1, keys, value_dim), (2, queries, value_dim)
        q, k, v, cotangent = (mx.random.normal((1, *shape)).astype(dtype) for shape in shapes)
        problem = Problem.of(q, k, v, mask, None, training=True)
        assert problem is not None
        run = Training(problem, current_device().capability).run

        def attention(*arrays: mx.array, run: Any = run, mask: Any = mask) -> mx.array:
            return run(*arrays, scale=0.1, mask=mask, sinks=None)  # type: ignore[no-any-return]

        mx.eval(mx.vjp(attention, [q, k, v], [cotangent]))
    print(f"{len(CALLS) + len(FEW)} kinds of call ran")


if __name__ == "__main__":
    main()
