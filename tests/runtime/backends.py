"""What of the tests speaks of one backend alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_flash_runtime.kernels.cuda import attention
from mlx_flash_runtime.problem import Attend, Call, Device, Problem
from mlx_flash_runtime.routes import ROUTES, cpu_kernel, cuda_kernel, forced, metal_kernel

on_cpu = mx.default_device().type == mx.DeviceType.cpu
cpu_only = pytest.mark.skipif(not on_cpu, reason="states the planner's choice for the CPU")
# Those that run on any call here; the others need another device.
ROUTES_HERE = [
    route
    for route in ROUTES
    if route not in (forced, cuda_kernel, metal_kernel) and (on_cpu or route is not cpu_kernel)
]

# Devices that need not be here; the last two can compile our CUDA kernel, by warpgroups and by
# warps.
GIB = 2**30
CPU = Device("cpu", (0, 32, 4), 16 * GIB)
METAL = Device("metal", (0, 32, 4), 32 * GIB)
METAL_31 = Device("metal", (0, 31, 0), 32 * GIB)
CUDA = Device("cuda", (0, 32, 4), 80 * GIB)
KERNEL = replace(CUDA, own_kernel=True)
KERNEL_80 = replace(KERNEL, capability=(8, 0))


def pretend(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Has calls planned for `device`, whatever is here."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_flash_runtime") and hasattr(module, "current_device"):
            monkeypatch.setattr(module, "current_device", lambda: device)


def stand_in_for_the_cuda_kernel(monkeypatch: pytest.MonkeyPatch, attend: Attend) -> None:
    """The kernel itself needs a GPU; who calls it does not."""

    def stand_in(
        problem: Problem, capability: tuple[int, int], arrays: Sequence[mx.array]
    ) -> list[mx.array]:
        dtype = getattr(mx, problem.dtype)
        q, k, v = (x.astype(dtype) for x in arrays[:3])
        scale, *rest = arrays[3:]
        mask = rest[0] if problem.has_array_mask else None
        sinks = rest[-1] if problem.sinks else None
        return [attend(Call(problem, q, k, v, scale, mask, sinks))]

    monkeypatch.setattr(attention, "attention", stand_in)
    monkeypatch.setattr(attention, "is_there", lambda problem, capability: True)


_LACKING = ("No implementation for problem shape", "cuGraphAddKernelNode")


@contextmanager
def skipped_where_mlx_lacks_it() -> Iterator[None]:
    """Of what runs without the patch. Skips the test where MLX has no kernel for its sizes on this
    device: on CUDA it multiplies by quantized matrices of some sizes alone, and a kernel for the
    gradients of small experts cannot be started."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _LACKING):
            raise
        pytest.skip(f"MLX itself fails on this device: {error}")
