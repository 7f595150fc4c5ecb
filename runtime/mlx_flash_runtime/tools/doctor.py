"""What this machine has for attention, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..environment import loading
from ..environment.commands import finish, start
from ..version import __version__

Status = Literal["ok", "missing", "warning", "broken"]

# One core with an optimized BLAS multiplies float32 matrices at 30 GFLOP/s and more; below this it
# is a plain one.
_SLOW_PRODUCT = 10.0
_PRODUCT_SIZE = 1024
_PRODUCT_SECONDS = 0.5
_COMPILER_SECONDS = 60  # for its name and version
_BLAS_ADVICE = (
    "this MLX multiplies with a plain BLAS, and so does everything but attention on the CPU: MLX "
    "built from source against OpenBLAS or MKL is many times faster"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Its status is `missing` for something optional, `warning`
    where it works but could be better, `broken` where it keeps flash attention from working;
    `advice` says what to do, if anything."""

    name: str
    status: Status
    value: str
    advice: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings, and the answers of MLX's fused kernels (`probe.Answer`), empty where it was
    not asked."""

    findings: tuple[Finding, ...]
    kernels: tuple[Any, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether anything keeps flash attention from working here."""
        return any(finding.status == "broken" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As data that JSON can hold:

        - `version`: this package's;
        - `broken`: whether anything is;
        - `findings`: a list of `name`, `status` (ok, missing, warning, broken), `value` and `advice`, all texts;
        - `kernels`: a list of `phase` (prefill, decode, training), `dtype`, `head_dim`, `fused` (MLX's answer) and
          `expected` (this package's table).
        """
        return {
            "version": __version__,
            "broken": self.is_broken,
            "findings": [asdict(finding) for finding in self.findings],
            "kernels": [asdict(answer) for answer in self.kernels],
        }


def examine() -> Examination:
    """Looks at everything; takes about a second, nearly all of it for one large product."""
    failure = loading.failure()
    if failure is not None:
        return Examination((_system(), Finding("mlx", "broken", failure, loading.advice())))
    from ..planning.machine import current_device
    from ..stock.probe import Unanswered, answers

    environment = _environment()
    if environment.status == "broken":  # nothing here runs with it
        return Examination((_system(), _mlx(), environment))
    device = current_device()
    try:
        kernels = tuple(answers(device))
        kernel_finding = _kernels(kernels, device)
    except Unanswered as error:
        kernels, kernel_finding = (), Finding("fused kernels", "missing", str(error))
    findings = (
        _system(),
        _mlx(),
        _device(device),
        environment,
        _calibration(device),
        _attention(),
        kernel_finding,
        _products(device),
        _compiler(),
        *_cpu_kernel(device),
        *_cuda_kernel(device),
        *_mlx_lm(),
        _plots(),
    )
    return Examination(findings, kernels)


def _system() -> Finding:
    release = platform.release().partition("-")[0]
    value = (
        f"{platform.system()} {release} {platform.machine()}, Python {platform.python_version()}"
    )
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return Finding(
            "system",
            "warning",
            value,
            "use a Python for Apple silicon (arm64): MLX needs it for the GPU",
        )
    return Finding("system", "ok", value)


def _mlx() -> Finding:
    from ..stock.fused import KNOWN, is_known
    from ..stock.release import mlx_release, mlx_version

    if is_known(mlx_release(mlx_version())):
        (major, oldest), (_, end_minor) = KNOWN
        supported = " and ".join(f"{major}.{minor}" for minor in range(oldest, end_minor))
        return Finding("mlx", "ok", f"{mlx_version()} ({supported} are supported)")
    first, end = (".".join(map(str, release)) for release in KNOWN)
    advice = f"MLX's own attention runs until then: pip install 'mlx>={first},<{end}', or a newer mlx-flash-runtime"
    return Finding("mlx", "broken", f"{mlx_version()}, which this package does not know", advice)


def _device(device: Any) -> Finding:
    import mlx.core as mx

    from .bench.machine import free_memory

    name = mx.device_info().get("device_name", "unknown device")
    memory = f"{device.memory / 2**30:.1f} GiB, {free_memory() / 2**30:.1f} of them free"
    value = f"{device.backend}: {name}, {os.cpu_count()} cores, {memory}"
    if (
        device.backend == "cpu"
        and sys.platform.startswith("linux")
        and Path("/dev/nvidia0").exists()
    ):
        return Finding(
            "device",
            "warning",
            value,
            "there is an NVIDIA GPU: pip install 'mlx-flash-runtime[cuda12]'",
        )
    if device.backend == "cpu" and (mx.metal.is_available() or mx.cuda.is_available()):
        return Finding(
            "device",
            "warning",
            value,
            "the GPU is not MLX's default device: mx.set_default_device(mx.gpu)",
        )
    return Finding("device", "ok", value)


def _environment() -> Finding:
    from ..environment.variables import PREFIX, switch
    from ..settings import VARIABLES

    mine = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIX) and value
    }
    value = (
        ", ".join(f"{name}={value}" for name, value in mine.items())
        or "no MLX_FLASH_ variable is set"
    )
    for name in mine.keys() & VARIABLES.keys():
        try:
            VARIABLES[name](mine[name])
        except ValueError as error:
            return Finding(
                "environment",
                "broken",
                value,
                f"{name}: {error}; every patched script ends with this line",
            )
    unknown = sorted(mine.keys() - VARIABLES.keys())
    if unknown:
        advice = (
            f"{', '.join(unknown)} is read by nothing; the variables are {', '.join(VARIABLES)}"
        )
        return Finding("environment", "warning", value, advice)
    if switch(mine.get("MLX_FLASH_DISABLE", "0")):
        return Finding(
            "environment",
            "warning",
            value,
            "flash attention stays off until MLX_FLASH_DISABLE is unset",
        )
    return Finding("environment", "ok", value)


def _calibration(device: Any) -> Finding:
    from ..planning import calibration

    classes = calibration.read()
    start = calibration.machine_of(device)
    own = sum(name.startswith(start) for name in classes)
    if own:
        return Finding(
            "calibration", "ok", f"{own} kinds of call were measured here, in {calibration.path()}"
        )
    value = "none for this device and these versions" if classes else "none"
    return Finding(
        "calibration",
        "missing",
        value,
        "mlx-flash tune measures which routes are fastest on this machine",
    )


def _attention() -> Finding:
    """One small call on every route that holds for it, against the definition."""
    import mlx.core as mx

    from ..planning.choice import candidates
    from ..planning.machine import current_device
    from ..problem import Call, Problem
    from ..routes import reference
    from .bench.inputs import make_inputs

    problem = Problem(1, 4, 2, 160, 160, 64, 64, mask="causal")
    names = []
    try:
        device = current_device()
        inputs = make_inputs(problem)
        call = Call(problem, inputs.q, inputs.k, inputs.v, inputs.scale)
        expected = reference.run(call, device)
        for route, block_size in candidates(problem, device):
            error = abs(mx.abs(route.run(call, device, block_size) - expected).max().item())
            # TF32, which some GPUs multiply float32 in, has 10 bits after the leading one.
            if not error < 2**-8:  # NaN is not, either
                return Finding(
                    "attention",
                    "broken",
                    f"{route.name} differs from the definition by {error:.1e}",
                )
            names.append(route.name)
    except Exception as error:  # whatever MLX raises: it is what the user wants to know
        return Finding("attention", "broken", f"a small call fails: {error}", loading.advice())
    return Finding("attention", "ok", f"computes what it should on {', '.join(names)}")


def _kernels(kernels: tuple[Any, ...], device: Any) -> Finding:
    fused = [answer for answer in kernels if answer.fused]
    odd = [answer for answer in kernels if answer.fused != answer.expected]
    if odd:
        where = ", ".join(f"{one.phase} {one.dtype} {one.head_dim}" for one in odd[:3]) + (
            " ..." if odd[3:] else ""
        )
        advice = "calls of these kinds may be planned badly: please report the output of mlx-flash doctor --json"
        return Finding(
            "fused kernels",
            "warning",
            f"MLX answers otherwise than this package's table: {where}",
            advice,
        )
    if not fused:
        where = "the CPU" if device.backend == "cpu" else "this device"
        return Finding(
            "fused kernels", "ok", f"MLX has none on {where}, as this package's table says"
        )
    return Finding(
        "fused kernels",
        "ok",
        f"{len(fused)} of {len(kernels)} kinds of call, as this package's table says",
    )


def _products(device: Any) -> Finding:
    speed = gigaflops()
    value = f"{speed:,.0f} GFLOP/s in float32 ({_PRODUCT_SIZE} x {_PRODUCT_SIZE} matrices)"
    if device.backend == "cpu" and speed < _SLOW_PRODUCT:
        return Finding("products", "warning", value, _BLAS_ADVICE)
    return Finding("products", "ok", value)


def gigaflops(size: int = _PRODUCT_SIZE) -> float:
    """Speed of a float32 product of square matrices on the default device, the best of the runs in
    half a second."""
    import mlx.core as mx

    a, b = (mx.random.normal((size, size), key=mx.random.key(seed)) for seed in (0, 1))
    mx.eval(a @ b)
    best, end = float("inf"), time.perf_counter() + _PRODUCT_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)
    return 2e-9 * size**3 / best


def _compiler() -> Finding:
    # MLX calls it by this name, on every system but Windows.
    path = shutil.which("g++")
    if path is not None:
        try:
            process = start([path, "--version"])
            printed = finish(process, _COMPILER_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("compiler", "warning", f"{path} cannot be run: {error}")
        if process.returncode == 0:
            return Finding("compiler", "ok", (printed.splitlines() or [path])[0])
    install = (
        "xcode-select --install"
        if sys.platform == "darwin"
        else "apt install g++, or your system's equivalent"
    )
    return Finding("compiler", "missing", "no g++: mx.compile does nothing on the CPU", install)


def _cpu_kernel(device: Any) -> Iterator[Finding]:
    from ..kernels.cpu import library

    if device.backend != "cpu":
        return
    status = library.status()
    if status.library is not None:
        yield Finding("cpu kernel", "ok", str(status.library))
    elif status.reason:
        yield Finding(
            "cpu kernel",
            "warning",
            status.reason,
            "without it attention is slower; --build tries again",
        )
    else:
        advice = "mlx-flash doctor --build compiles it now; else the first call worth it does, in the background"
        yield Finding("cpu kernel", "missing", "not built yet", advice)


def _cuda_kernel(device: Any) -> Iterator[Finding]:
    from ..kernels.cuda import cache, tiles

    if device.backend != "cuda":
        return
    reason = cache.why_not(device.capability)
    if reason:
        yield Finding("cuda kernel", "warning", reason, "without it attention is slower")
    else:
        form = (
            "in the form for Hopper"
            if tiles.has_warpgroups(device.capability)
            else "in the form for any GPU"
        )
        yield Finding(
            "cuda kernel", "ok", f"{form}, compiled when it is needed, into {cache.folder()}"
        )


def _mlx_lm() -> Iterator[Finding]:
    try:
        installed = version("mlx-lm")
    except PackageNotFoundError:
        yield Finding(
            "mlx-lm",
            "missing",
            "not installed",
            "for language models: pip install 'mlx-flash-runtime[lm]'",
        )
        return
    from ..patching.mlx_lm import POINTS

    gone = []
    for point in POINTS:
        try:
            reduce(getattr, point.path, import_module(point.module))
        except (ImportError, AttributeError):
            gone.append(".".join((point.module, *point.path)))
    if gone:
        advice = "calls through them run as mlx-lm has them; a release of mlx-lm that this package knows has them all"
        yield Finding("mlx-lm", "warning", f"{installed}, without {', '.join(gone)}", advice)
    else:
        yield Finding(
            "mlx-lm", "ok", f"{installed}, with all {len(POINTS)} places that are patched"
        )


def _plots() -> Finding:
    try:
        return Finding("matplotlib", "ok", version("matplotlib"))
    except PackageNotFoundError:
        advice = "for plots and pages of results: pip install 'mlx-flash-runtime[plot]'"
        return Finding("matplotlib", "missing", "not installed", advice)
