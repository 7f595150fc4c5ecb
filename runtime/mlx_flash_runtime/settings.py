"""What the user asked for: arguments of `enable_flash_attention`, command line flags, environment
variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .environment.variables import parsed, switch, value_of
from .routes import ROUTES

BLOCK_MULTIPLE = 8


@dataclass(frozen=True)
class Settings:
    """`block_size` None leaves the choice to the planner; `route` is the preferred route's name,
    or None."""

    enabled: bool = False
    block_size: int | None = None
    route: str | None = None


def checked_block_size(block_size: int | None) -> int | None:
    """`block_size` itself; raises ValueError unless it is None or a positive multiple of 8."""
    if block_size is None:
        return None
    if isinstance(block_size, bool) or not isinstance(block_size, int):
        raise ValueError(f"{block_size!r} is not a positive multiple of {BLOCK_MULTIPLE}")
    if block_size <= 0 or block_size % BLOCK_MULTIPLE:
        raise ValueError(f"{block_size} is not a positive multiple of {BLOCK_MULTIPLE}")
    return block_size


def _block_size(text: str) -> int:
    try:
        size = int(text)
        checked_block_size(size)
    except ValueError:
        raise ValueError(f"{text} is not a positive multiple of {BLOCK_MULTIPLE}") from None
    return size


def typed_block_size(text: str) -> int:
    """The block size that a user typed on a command line. A bad one ends the program with one line
    on stderr and exit status 2, as a bad variable does."""
    return parsed("--flash-block-size", text, _block_size)


def _route(text: str) -> str:
    known = [route.name for route in ROUTES]
    if text not in known:
        raise ValueError(f"{text} is not a route; the routes are {', '.join(known)}")
    return text


def _report_target(text: str) -> str | None:
    try:
        return "-" if switch(text) else None
    except ValueError:
        return text


# Every variable of this package, with what makes a value of its text, or raises ValueError.
VARIABLES: dict[str, Callable[[str], Any]] = {
    "MLX_FLASH_DISABLE": switch,
    "MLX_FLASH_BLOCK_SIZE": _block_size,
    "MLX_FLASH_ROUTE": _route,
    "MLX_FLASH_CALIBRATION": str,
    "MLX_FLASH_BUILD": switch,
    "MLX_FLASH_QUIET": switch,
    "MLX_FLASH_REPORT": _report_target,
}


def resolve(enabled: bool, block_size: int | None) -> Settings:
    """Arguments and environment together: `MLX_FLASH_DISABLE` wins over `enabled`, `block_size`
    over its variable.

    Raises ValueError for a bad `block_size`. A bad variable, whichever, ends the program, see
    `value_of`.
    """
    block_size = checked_block_size(block_size)
    found = {name: value_of(name, parse, None) for name, parse in VARIABLES.items()}
    return Settings(
        enabled and not found["MLX_FLASH_DISABLE"],
        found["MLX_FLASH_BLOCK_SIZE"] if block_size is None else block_size,
        found["MLX_FLASH_ROUTE"],
    )


def report_target() -> str | None:
    """`MLX_FLASH_REPORT`: None for no report at exit, `"-"` for a summary on stderr, else the path
    of a JSON file (see `report.at_exit`)."""
    return value_of("MLX_FLASH_REPORT", _report_target, None)
