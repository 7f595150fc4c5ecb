"""The machine as the planner sees it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["cpu", "metal", "cuda"]


@dataclass(frozen=True)
class Device:
    """The machine as the planner sees it. `memory` is in bytes, `mlx` the release as `(0, 32, 4)`,
    `system` as `platform.system()` says it; on CUDA `capability` is the GPU's compute capability,
    `tf32` says whether MLX multiplies float32 matrices as TF32, and `cudnn` whether the
    environment lets it attend through cuDNN. `name` is MLX's for the device, empty for one that
    was made up. `own_kernel` says that our kernel for the backend is there."""

    backend: Backend
    mlx: tuple[int, ...]
    memory: int
    system: str = "Linux"
    capability: tuple[int, int] = (9, 0)
    tf32: bool = True
    name: str = ""
    cudnn: bool = True
    own_kernel: bool = False
