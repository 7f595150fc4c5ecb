"""What MLX and this package do for attention on this machine: all that can be asked where MLX can
be loaded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from ...environment import loading
from ...environment.variables import PREFIX, switch
from ...kernels.cpu import library
from ...kernels.cuda.compiling import cache
from ...kernels.cuda.hardware import has_warpgroups
from ...kernels.metal import checked
from ...planning import calibration
from ...planning.choice import candidates
from ...problem import Call, Device, Problem
from ...routes import reference
from ...settings import VARIABLES
from ...stock import asked
from ...stock.release import mlx_release, mlx_version
from ...stock.table import known_range, known_releases, newest
from ..bench.inputs import make_inputs
from ..bench.machine import free_memory
from .finding import Finding
from .kernels import Answer

# One core with an optimized BLAS multiplies float32 matrices at 30 GFLOP/s and more; below this it
# is a plain one.
_SLOW_PRODUCT = 10.0
_PRODUCT_SIZE = 1024
_PRODUCT_SECONDS = 0.5
_BLAS_ADVICE = (
    "this MLX multiplies with a plain BLAS, and so does everything but attention on the CPU: MLX "
    "built from source against OpenBLAS or MKL is many times faster"
)


def mlx() -> Finding:
    """Whether its version is one that this package was checked with, or can ask."""
    release, known = mlx_release(mlx_version()), known_range()
    if release in known_releases():
        return Finding("mlx", "ok", f"{mlx_version()} ({known} were checked)")
    if release > known_releases()[-1] and asked.can_be_read():
        advice = "a newer mlx-flash-runtime may know it"
        value = f"{mlx_version()}, newer than what was checked ({known}): asked what it fuses"
        return Finding("mlx", "warning", value, advice)
    advice = (
        f"MLX's own attention runs until then: pip install 'mlx>={known.split()[0]}', or a newer "
        "mlx-flash-runtime"
    )
    return Finding("mlx", "broken", f"{mlx_version()}, which this package does not know", advice)


def device_of(device: Device) -> Finding:
    """The device, and whether there is a better one."""
    name = mx.device_info().get("device_name", "unknown device")
    memory = f"{device.memory / 2**30:.1f} GiB, {free_memory() / 2**30:.1f} of them free"
    value = f"{device.backend}: {name}, {os.cpu_count()} cores, {memory}"
    is_cpu = device.backend == "cpu"
    if is_cpu and sys.platform.startswith("linux") and Path("/dev/nvidia0").exists():
        advice = "there is an NVIDIA GPU: pip install 'mlx-flash-runtime[cuda12]'"
        return Finding("device", "warning", value, advice)
    if is_cpu and (mx.metal.is_available() or mx.cuda.is_available()):
        advice = "the GPU is not MLX's default device: mx.set_default_device(mx.gpu)"
        return Finding("device", "warning", value, advice)
    return Finding("device", "ok", value)


def environment() -> Finding:
    """The variables of this package that are set, and what is wrong with them."""
    mine = {}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and os.environ[name]:
            mine[name] = os.environ[name]
    value = ", ".join(f"{name}={value}" for name, value in mine.items())
    value = value or "no MLX_FLASH_ variable is set"
    for name in mine.keys() & VARIABLES.keys():
        try:
            VARIABLES[name](mine[name])
        except ValueError as error:
            advice = f"{name}: {error}; every patched script ends with this line"
            return Finding("environment", "broken", value, advice)
    unknown = sorted(mine.keys() - VARIABLES.keys())
    if unknown:
        known = ", ".join(VARIABLES)
        advice = f"{', '.join(unknown)} is read by nothing; the variables are {known}"
        return Finding("environment", "warning", value, advice)
    if switch(mine.get("MLX_FLASH_DISABLE", "0")):
        advice = "flash attention stays off until MLX_FLASH_DISABLE is unset"
        return Finding("environment", "warning", value, advice)
    return Finding("environment", "ok", value)


def calibrated(device: Device) -> Finding:
    """What `mlx-flash tune` has measured here."""
    classes = calibration.read()
    start = calibration.machine_of(device)
    own = sum(name.startswith(start) for name in classes)
    if own:
        value = f"{own} kinds of call were measured here, in {calibration.path()}"
        return Finding("calibration", "ok", value)
    value = "none for this device and these versions" if classes else "none"
    advice = "mlx-flash tune measures which routes are fastest on this machine"
    return Finding("calibration", "missing", value, advice)


def small_call(device: Device) -> Finding:
    """One small call on every route that holds for it, against the definition."""
    problem = Problem(1, 4, 2, 160, 160, 64, 64, mask="causal")
    names = []
    try:
        inputs = make_inputs(problem)
        call = Call(problem, inputs.q, inputs.k, inputs.v, inputs.scale)
        expected = reference.run(call, device)
        for route, block_size in candidates(problem, device):
            error = abs(mx.abs(route.run(call, device, block_size) - expected).max().item())
            # TF32, which some GPUs multiply float32 in, has 10 bits after the leading one.
            if not error < 2**-8:  # NaN is not, either
                value = f"{route.name} differs from the definition by {error:.1e}"
                return Finding("attention", "broken", value)
            names.append(route.name)
    except Exception as error:  # whatever MLX raises: it is what the user wants to know
        return Finding("attention", "broken", f"a small call fails: {error}", loading.advice())
    return Finding("attention", "ok", f"computes what it should on {', '.join(names)}")


def fused_kernels(answers: tuple[Answer, ...], device: Device) -> Finding:
    """What MLX answers about its own kernels, against this package's table."""
    fused = [answer for answer in answers if answer.fused]
    odd = [answer for answer in answers if answer.fused != answer.expected]
    table = "MLX " + ".".join(map(str, newest(device).releases[-1]))
    if odd:
        where = ", ".join(f"{one.phase} {one.mask} {one.dtype} {one.head_dim}" for one in odd[:3])
        where += f" and {len(odd) - 3} more" if odd[3:] else ""
        value = f"MLX answers otherwise than the table of {table}: {where}"
        advice = (
            "calls are planned by the answers; the table is for other machines: please send the "
            "file that mlx-flash doctor --record FILE writes"
        )
        return Finding("fused kernels", "warning", value, advice)
    if fused:
        value = f"{len(fused)} of {len(answers)} kinds of call, as the table of {table} says"
    else:
        where = "the CPU" if device.backend == "cpu" else "this device"
        value = f"MLX has none on {where}, as this package's table says"
    return Finding("fused kernels", "ok", value)


def products(device: Device) -> Finding:
    """How fast MLX multiplies matrices."""
    speed = gigaflops()
    value = f"{speed:,.0f} GFLOP/s in float32 ({_PRODUCT_SIZE} x {_PRODUCT_SIZE} matrices)"
    if device.backend == "cpu" and speed < _SLOW_PRODUCT:
        return Finding("matmul", "warning", value, _BLAS_ADVICE)
    return Finding("matmul", "ok", value)


def gigaflops() -> float:
    """Speed of a float32 product of square matrices on the default device, the best of the runs in
    half a second."""
    size = _PRODUCT_SIZE
    a, b = (mx.random.normal((size, size), key=mx.random.key(seed)) for seed in (0, 1))
    mx.eval(a @ b)
    best, end = float("inf"), time.perf_counter() + _PRODUCT_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)
    return 2e-9 * size**3 / best


def cpu_kernel(device: Device) -> Iterator[Finding]:
    """Whether it is built; nothing on a GPU."""
    if device.backend != "cpu":
        return
    status = library.status()
    if status.library is not None:
        yield Finding("cpu kernel", "ok", str(status.library))
    elif status.reason:
        advice = "without it attention is slower; --build tries again"
        yield Finding("cpu kernel", "warning", status.reason, advice)
    else:
        advice = (
            "mlx-flash doctor --build compiles it now; else the first call worth it does, in the "
            "background"
        )
        yield Finding("cpu kernel", "missing", "not built yet", advice)


def cuda_kernel(device: Device) -> Iterator[Finding]:
    """Whether it can be compiled; nothing without CUDA."""
    if device.backend != "cuda":
        return
    reason = cache.why_not(device.capability)
    if reason:
        yield Finding("cuda kernel", "warning", reason, "without it attention is slower")
        return
    form = "for Hopper" if has_warpgroups(device.capability) else "for any GPU"
    value = f"in the form {form}, compiled when it is needed, into {cache.folder()}"
    yield Finding("cuda kernel", "ok", value)


def metal_kernels(device: Device) -> Iterator[Finding]:
    """Whether one has failed its check on this machine; nothing without Metal."""
    if device.backend != "metal":
        return
    reason = checked.why_not()
    if reason:
        advice = "none is used with this version; MLX's own attention runs. A report is welcome"
        yield Finding("metal kernels", "warning", reason, advice)
        return
    yield Finding("metal kernels", "ok", "each is checked when it is first to be used")
