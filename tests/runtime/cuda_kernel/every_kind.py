"""One small call of each kind of CUDA kernel, forward and backward, for CUDA's own checks on a GPU:

compute-sanitizer --tool memcheck python tests/runtime/cuda_kernel/every_kind.py
compute-sanitizer --tool racecheck python tests/runtime/cuda_kernel/every_kind.py
compute-sanitizer --tool synccheck python tests/runtime/cuda_kernel/every_kind.py
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from mlx_flash_runtime.kernels.cuda.training import Training
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


def main() -> None:
    for queries, keys, dim, value_dim, dtype, mask in CALLS:
        shapes = (2, queries, dim), (1, keys, dim), (1, keys, value_dim), (2, queries, value_dim)
        q, k, v, cotangent = (mx.random.normal((1, *shape)).astype(dtype) for shape in shapes)
        problem = Problem.of(q, k, v, mask, None, training=True)
        assert problem is not None
        run = Training(problem, current_device().capability).run

        def attention(*arrays: mx.array, run: Any = run, mask: Any = mask) -> mx.array:
            return run(*arrays, scale=0.1, mask=mask, sinks=None)  # type: ignore[no-any-return]

        mx.eval(mx.vjp(attention, [q, k, v], [cotangent]))
    print(f"{len(CALLS)} kinds of call ran")


if __name__ == "__main__":
    main()
