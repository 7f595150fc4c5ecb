"""The kernel for the CPU, built before a command needs it."""

from __future__ import annotations

import click
import mlx.core as mx

from ...kernels.cpu import library
from ...kernels.cpu.build import build
from ...kernels.cpu.toolchain import BuildError
from .errors import Failure
from .progress import progress


def build_cpu_kernel() -> None:
    """Compiles the kernel unless it is there, with a bar on stderr. Raises Failure where there can
    be none."""
    if library.is_ready():
        return
    try:
        what = "building the CPU kernel, once for this MLX: some 20 s of processor time"
        with progress(what) as bar:
            task = bar.add_task("building the CPU kernel", total=None)
            build(
                lambda done, total, what: bar.update(
                    task, completed=done, total=total, description=what
                )
            )
    except BuildError as error:
        raise Failure(f"the CPU kernel was not built: {error}") from None
    library.look_again()


def have_cpu_kernel() -> None:
    """The same before a measurement, where the CPU is the device: a build meanwhile would disturb
    it. Without the kernel, which it says, it is still a measurement."""
    if mx.default_device().type == mx.DeviceType.cpu:
        try:
            build_cpu_kernel()
        except Failure as error:
            click.echo(f"warning: {error.format_message()}", err=True)
