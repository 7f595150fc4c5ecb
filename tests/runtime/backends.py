"""What of the tests speaks of one backend alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_flash_runtime.kernels.cuda import kernel
from mlx_flash_runtime.problem import Call, Device
from mlx_flash_runtime.routes import ROUTES, cpu_kernel, cuda_kernel, forced

on_cpu = mx.default_device().type == mx.DeviceType.cpu
cpu_only = pytest.mark.skipif(not on_cpu, reason="states the planner's choice for the CPU")
# Those that run on any call here; the others need another device.
ROUTES_HERE = [route for route in ROUTES if route not in (forced, cuda_kernel) and (on_cpu or route is not cpu_kernel)]

# Devices that need not be here; the last two can compile our CUDA kernel, by warpgroups and by warps.
GIB = 2**30
CPU = Device("cpu", (0, 32, 4), 16 * GIB)
METAL = Device("metal", (0, 32, 4), 32 * GIB)
METAL_31 = Device("metal", (0, 31, 0), 32 * GIB)
CUDA = Device("cuda", (0, 32, 4), 80 * GIB)
KERNEL = replace(CUDA, own_kernel=True)
KERNEL_80 = replace(KERNEL, capability=(8, 0))


def stand_in_for_the_cuda_kernel(
    monkeypatch: pytest.MonkeyPatch, attention: Callable[[Call, tuple[int, int]], mx.array]
) -> None:
    """The kernel itself needs a GPU; who calls it does not."""
    monkeypatch.setattr(kernel, "attention", attention)
    monkeypatch.setattr(kernel, "is_there", lambda problem, capability: True)
