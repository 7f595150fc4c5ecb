"""What the tests of `mlx-flash tune` share: a machine, a problem, and the command."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.cli.group import mlx_flash

MACHINE = Device("cpu", (0, 32, 4), 2**34, name="A CPU")
SMALL = Problem(1, 4, 2, 64, 64, 16, 16, mask="causal")


def here() -> Device:
    """Asked in a test: before the first one, the CPU kernel may not be built yet."""
    return current_device()


def route(problem: Problem, device: Device | None = None, **settings: Any) -> str:
    return choose(problem, device or here(), Settings(True, **settings)).decision.route


def command(*arguments: object) -> Result:
    return CliRunner().invoke(mlx_flash, ["tune", *map(str, arguments)])
