"""How exact float32 is here: MLX multiplies it as TF32 on an NVIDIA GPU, and on an M5, unless
MLX_ENABLE_TF32=0 is set before the process starts. Both ways the tests hold, each to its own
rounding."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.tools.bench import check

multiplies_as_tf32 = check.multiplies_as_tf32(current_device())
needs_float32 = pytest.mark.skipif(
    multiplies_as_tf32, reason="is about float32 products: runs with MLX_ENABLE_TF32=0"
)
# What a product rounds its terms to; TF32 keeps 10 bits after the leading one.
_UNIT = 2.0**-10 if multiplies_as_tf32 else 2.0**-23


def rounding(dtype: mx.Dtype) -> float:
    """The rounding error of a number of that type in a product here, relative to the number."""
    return max(float(mx.finfo(dtype).eps), _UNIT)


def agree(own: mx.array, wanted: mx.array, rtol: float = 1e-5, atol: float = 1e-6) -> bool:
    """Whether two results in float32 are the same within these tolerances; or within eight
    roundings of the largest number, where MLX multiplies as TF32."""
    if multiplies_as_tf32 and wanted.size:
        atol = max(atol, 8 * _UNIT * mx.abs(wanted).max().item())
    return bool(mx.allclose(own, wanted, rtol=rtol, atol=atol))
