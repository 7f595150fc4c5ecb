"""The options that name a device other than this machine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from ...planning.machine import current_device
from ...problem import Device
from ...stock.release import mlx_release
from ...stock.table import known_releases
from .errors import Usage

F = TypeVar("F", bound=Callable[..., Any])


class Capability(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click alone
    """Two numbers with a dot between them."""

    name = "X.Y"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """`(9, 0)` of `9.0`."""
        if isinstance(value, tuple):
            return value
        major, dot, minor = value.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal()):
            self.fail(f"{value!r} is not a compute capability, such as 8.0", param, ctx)
        return int(major), int(minor)


# Machines as they are common: backend, memory in GiB, system.
_TYPICAL = {"metal": (64, "Darwin"), "cuda": (80, "Linux"), "cpu": (64, "Linux")}
_CHIPS = ("m1", "m2", "m3", "m4", "m5")
_WITH_NAX = ("m5",)


def device_options(command: F) -> F:
    """--device, --chip, --memory, --capability and --mlx, as parameters `backend`, `chip`,
    `memory`, `capability` and `mlx`."""
    for option in (
        click.option("--mlx", metavar="VERSION", help="As on that release of MLX, such as 0.31.0."),
        click.option(
            "--capability", type=Capability(), help="As on a CUDA GPU of that compute capability."
        ),
        click.option(
            "--memory", type=click.IntRange(1), metavar="GIB", help="As with so much memory."
        ),
        click.option(
            "--chip",
            type=click.Choice(_CHIPS, case_sensitive=False),
            help="As on a Mac with that chip, a Pro, Max or Ultra included.",
        ),
        click.option(
            "--device",
            "backend",
            type=click.Choice(list(_TYPICAL)),
            help="As on that device.  [default: this one]",
        ),
    ):
        command = option(command)
    return command


def device_of(
    backend: str | None,
    memory: int | None,
    mlx: str | None,
    capability: tuple[int, int] | None = None,
    chip: str | None = None,
) -> Device:
    """This machine's device, or a typical one of another backend, with memory, release, a GPU's
    compute capability and a Mac's chip as asked for. Raises Usage for a release that this package
    does not know, and for a capability or a chip of another device."""
    device = current_device()
    if chip is not None:
        if backend not in (None, "metal"):
            raise Usage(f"--chip is of Macs, and the device is {backend}")
        backend = "metal"
    if backend is not None and backend != device.backend:
        gibibytes, system = _TYPICAL[backend]
        device = Device(
            backend,  # type: ignore[arg-type]  # one of the choices
            device.mlx,
            gibibytes * 2**30,
            system,
            own_kernel=True,  # as after the first run
        )
    if chip is not None:
        nax = chip.lower() in _WITH_NAX
        device = replace(device, nax=nax, here=device.here and nax == device.nax)
    if memory is not None:
        device = replace(device, memory=memory * 2**30)
    if capability is not None:
        if device.backend != "cuda":
            raise Usage(
                f"--capability is of CUDA GPUs, and the device is {device.backend}: add --device "
                "cuda"
            )
        here = device.here and capability == device.capability
        device = replace(device, capability=capability, here=here)
    if mlx is not None:
        release = _looked_at(mlx)
        device = replace(device, mlx=release, here=device.here and release == device.mlx)
    return device


def _looked_at(version: str) -> tuple[int, ...]:
    """The release of that version, of `0.31` the last one. Raises Usage for one that nobody looked
    at."""
    asked, known = mlx_release(version), known_releases()
    of_it = [release for release in known if asked and release[: len(asked)] == asked]
    if not of_it:
        names = ", ".join(".".join(map(str, release)) for release in known)
        raise Usage(f"--mlx {version}: the versions that were looked at are {names}")
    return of_it[-1]


def described(device: Device) -> str:
    """`metal (MLX 0.32.4, 64 GiB)`, `metal M5 (...)`, `cuda 9.0 (MLX 0.32.4, 80 GiB)`."""
    release = ".".join(map(str, device.mlx))
    name: str = device.backend
    if device.nax:
        name += " M5"
    if name == "cuda":
        name += f" {'.'.join(map(str, device.capability))}"
    return f"{name} (MLX {release}, {device.memory / 2**30:,.0f} GiB)"
