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
    # On the CPU the kernel may come while the program runs, on Metal it may fail its check.
    if not gpu:
        return _on_cpu(kernels.is_there("cpu"))
    # MLX looks at the environment when it first multiplies: until then a program may change it.
    tf32 = _is_on("MLX_ENABLE_TF32")
    if mx.metal.is_available():
        return _on_metal(kernels.is_there("metal"), tf32)
    return _on_cuda(tf32, _is_on("MLX_CUDA_USE_CUDNN_SDPA"))


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "1") != "0"


@lru_cache
def _on_cpu(own_kernel: bool) -> Device:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = str(mx.device_info().get("device_name", ""))
    release = mlx_release(mlx_version())
    return Device(
        "cpu", release, memory, platform.system(), name=name, own_kernel=own_kernel, here=True
    )


@lru_cache
def _on_metal(own_kernel: bool, tf32: bool) -> Device:
    info = mx.device_info()
    return Device(
        "metal",
        mlx_release(mlx_version()),
        int(info["memory_size"]),
        platform.system(),
        tf32=tf32,
        name=_name(),
        own_kernel=own_kernel,
        nax=has_nax(str(info.get("architecture", ""))),
        largest_array=int(info["max_buffer_length"]),
        here=True,
    )


@lru_cache
def _on_cuda(tf32: bool, cudnn: bool) -> Device:
    info = mx.device_info()
    major, minor = (info.get(f"compute_capability_{part}", 0) for part in ("major", "minor"))
    capability = int(major), int(minor)
    return Device(
        "cuda",
        mlx_release(mlx_version()),
        int(info["total_memory"]),
        platform.system(),
        capability,
        tf32=tf32,
        name=_name(),
        cudnn=cudnn,
        own_kernel=kernels.is_there("cuda", capability),
        here=True,
    )


def _name() -> str:
    return str(mx.device_info().get("device_name", "GPU"))


def has_nax(architecture: str, macos: str | None = None) -> bool:
    """Whether MLX uses the matrix units (NAX) of an Apple GPU of that name, such as
    `applegpu_g17s`, on that version of macOS, this one's by default: as its `is_nax_available`
    decides, from the 17th generation on (M5; of phones the 18th) and from macOS 26.2 on."""
    generation, kind = architecture[-3:-1], architecture[-1:]
    if not generation.isdecimal() or int(generation) < (18 if kind == "p" else 17):
        return False
    version = mlx_release(platform.mac_ver()[0] if macos is None else macos)
    return version >= (26, 2)
