"""The options that name a device other than this machine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from ..fused import KNOWN, is_known
from ..problem import Device, mlx_release
from .options import Usage

F = TypeVar("F", bound=Callable[..., Any])

# Machines as they are common: backend, memory in GiB, system.
_TYPICAL = {"metal": (64, "Darwin"), "cuda": (80, "Linux"), "cpu": (64, "Linux")}


def device_options(command: F) -> F:
    """--device, --memory and --mlx, as parameters `backend`, `memory` and `mlx`."""
    for option in (
        click.option("--mlx", metavar="VERSION", help="As on that release of MLX, such as 0.31.0."),
        click.option("--memory", type=click.IntRange(1), metavar="GIB", help="As with so much memory."),
        click.option("--device", "backend", type=click.Choice(list(_TYPICAL)), help="As on that device.  [this one]"),
    ):
        command = option(command)
    return command


def device_of(backend: str | None, memory: int | None, mlx: str | None) -> Device:
    """This machine's device, or a typical one of another backend, with memory and release as asked for. Raises Usage
    for a release that this package does not know."""
    device = Device.current()
    if backend is not None and backend != device.backend:
        gibibytes, system = _TYPICAL[backend]
        device = Device(
            backend,  # type: ignore[arg-type]  # one of the choices
            device.mlx,
            gibibytes * 2**30,
            system,
            own_kernel=True,  # as after the first run
        )
    if memory is not None:
        device = replace(device, memory=memory * 2**30)
    if mlx is not None:
        device = replace(device, mlx=mlx_release(mlx))
        if not is_known(device.mlx):
            first, end = (".".join(map(str, release)) for release in KNOWN)
            raise Usage(f"--mlx {mlx}: this package knows MLX {first} up to, not including, {end}")
    return device


def described(device: Device) -> str:
    """`cuda (MLX 0.32.4, 80 GiB)`."""
    return f"{device.backend} (MLX {'.'.join(map(str, device.mlx))}, {device.memory / 2**30:,.0f} GiB)"
