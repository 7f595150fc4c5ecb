"""A CUDA GPU that computes nothing for a while, so that what is described to it piles up."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

_begin: Any = mx.async_eval  # which MLX gives no types
_WAIT = """
  unsigned long long first, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(first));
  do {
    __nanosleep(10000);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - first < nanoseconds[0]);
  out[0] = nanoseconds[0];
"""


def hold_back(seconds: float) -> None:
    """Has the GPU wait for so long before it computes what comes next on the default stream."""
    (out,) = _waiting()(
        inputs=[mx.array([int(seconds * 1e9)], mx.uint64)],
        output_shapes=[(1,)],
        output_dtypes=[mx.uint64],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
    )
    _begin(out)


@lru_cache(maxsize=1)
def _waiting() -> Any:
    return mx.fast.cuda_kernel(
        name="wait", input_names=["nanoseconds"], output_names=["out"], source=_WAIT
    )
