"""The machine as the planner sees it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["cpu", "metal", "cuda"]

_CUDNN_CAPABILITY = (8, 0)  # of the first GPUs on which MLX attends through cuDNN


@dataclass(frozen=True)
class Device:
    """The machine as the planner sees it. `memory` is in bytes, `mlx` the release as `(0, 32, 4)`,
    `system` as `platform.system()` says it; on CUDA `capability` is the GPU's compute capability,
    `tf32` says whether MLX multiplies float32 matrices as TF32, and `cudnn` whether the
    environment lets it attend through cuDNN. On Metal `nax` says whether MLX uses the matrix units
    that GPUs have from M5 on, and `tf32` whether it multiplies float32 with them. `name` is MLX's
    for the device, empty for one that was made up. `own_kernel` says that our kernel for the
    backend is there, `here` that it is this machine's own, of which MLX can be asked what it
    fuses. `largest_array` is how many bytes one array may have, where Metal says so."""

    backend: Backend
    mlx: tuple[int, ...]
    memory: int
    system: str = "Linux"
    capability: tuple[int, int] = (9, 0)
    tf32: bool = True
    name: str = ""
    cudnn: bool = True
    own_kernel: bool = False
    nax: bool = False
    largest_array: int | None = None
    here: bool = False

    @property
    def has_cudnn(self) -> bool:
        """Whether MLX attends through cuDNN, on CUDA."""
        return self.cudnn and self.capability >= _CUDNN_CAPABILITY
