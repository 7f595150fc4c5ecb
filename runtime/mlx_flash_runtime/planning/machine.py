"""The machine that this process runs on, as the planner's `Device`."""

from __future__ import annotations

import os
import platform
from functools import lru_cache

import mlx.core as mx

from .. import kernels
from ..problem import Device
from ..stock.release import mlx_release, mlx_version


def current_device() -> Device:
    """The default device of this thread, as it is now. The first time on a device this looks for
    the kernel that we have for it, see `kernels.is_there`."""
    gpu = mx.default_device().type == mx.DeviceType.gpu
    # On the CPU the kernel may come while the program runs; a GPU's is there or not.
    return _on_gpu() if gpu else _on_cpu(kernels.is_there("cpu"))


@lru_cache
def _on_cpu(own_kernel: bool) -> Device:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = str(mx.device_info().get("device_name", ""))
    release = mlx_release(mlx_version())
    return Device("cpu", release, memory, platform.system(), name=name, own_kernel=own_kernel)


@lru_cache
def _on_gpu() -> Device:
    info, release = mx.device_info(), mlx_release(mlx_version())
    name = str(info.get("device_name", "GPU"))
    if mx.metal.is_available():
        return Device("metal", release, int(info["memory_size"]), platform.system(), name=name)
    major, minor = (info.get(f"compute_capability_{part}", 0) for part in ("major", "minor"))
    capability = int(major), int(minor)
    return Device(
        "cuda",
        release,
        int(info["total_memory"]),
        platform.system(),
        capability,
        tf32=os.environ.get("MLX_ENABLE_TF32", "1") != "0",
        name=name,
        cudnn=os.environ.get("MLX_CUDA_USE_CUDNN_SDPA", "1") != "0",
        own_kernel=kernels.is_there("cuda", capability),
    )
