"""The largest length, or batch, whose step fits in a machine's memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mlx.core as mx

from ...problem import Device
from .steps import Need

_GIB = 2**30
# Of a Mac's memory Metal recommends two thirds to programs, from 36 GiB on three quarters
# (`recommendedMaxWorkingSetSize`, as MLX prints it on such machines); beyond, macOS takes pages
# away, and MLX its buffers. On CUDA, and on the CPU, MLX's own default limit.
_METAL_SMALL, _METAL_LARGE, _LARGE_MAC = 2 / 3, 3 / 4, 36 * _GIB
_SHARES = {"cuda": 0.95, "cpu": 0.8}


def budget_of(device: Device) -> int:
    """Bytes that a program may have on the device before memory is scarce."""
    if device.backend == "metal":
        if device.here and mx.default_device().type == mx.DeviceType.gpu:
            size = mx.device_info().get("memory_size")
            if size == device.memory:
                return int(mx.device_info()["max_recommended_working_set_size"])
        return int(device.memory * (_METAL_LARGE if device.memory >= _LARGE_MAC else _METAL_SMALL))
    return int(device.memory * _SHARES[device.backend])


def largest(need_of: Callable[[int], Need], budget: int, step: int, limit: int) -> int:
    """The largest multiple of `step` up to `limit`, or `limit` itself, whose need is within
    `budget`; 0 where none is. A need grows with its size."""

    @cache
    def fits(steps: int) -> bool:
        return need_of(min(steps * step, limit)).total <= budget

    most = -(-limit // step)
    high = 1
    while high < most and fits(high):
        high *= 2
    high = min(high, most)
    if fits(high):
        return min(high * step, limit)
    low = high // 2 if high > 1 and fits(high // 2) else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * step
