"""What the user asked for: arguments of `enable_flash_attention`, command line flags, environment variables."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from .routes import ROUTES

BLOCK_MULTIPLE = 8


@dataclass(frozen=True)
class Settings:
    """`block_size` None leaves the choice to the planner; `route` is the preferred route's name, or None."""

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


class BlockSizeError(argparse.ArgumentTypeError, ValueError):
    """A block size on the command line that is none: argparse reports the first kind, click and typer the second."""


def flash_block_size(text: str) -> int:
    """The type of an option that takes a block size, for argparse, click and typer.

    Raises BlockSizeError, which those turn into a usage line and exit status 2, unless `text` is a positive multiple
    of 8.
    """
    try:
        size = int(text)
        checked_block_size(size)
    except ValueError:
        raise BlockSizeError(f"{text} is not a positive multiple of {BLOCK_MULTIPLE}") from None
    return size


def resolve(enabled: bool, block_size: int | None) -> Settings:
    """Arguments and environment together: `MLX_FLASH_DISABLE` wins over `enabled`, `block_size` over its variable.

    Raises ValueError for a bad `block_size`. A bad variable is the user's mistake rather than the program's: one line
    on stderr and exit status 2, as argparse does for a bad flag.
    """
    block_size = checked_block_size(block_size)
    if block_size is None:
        block_size = _environment_block_size()
    return Settings(enabled and not _environment_switch("MLX_FLASH_DISABLE"), block_size, _environment_route())


def report_target() -> str | None:
    """`MLX_FLASH_REPORT`: None for no report at exit, `"-"` for a summary on stderr, else the path of a JSON file."""
    value = os.environ.get("MLX_FLASH_REPORT", "")
    return {"": None, "0": None, "1": "-"}.get(value, value)


def _environment_switch(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _environment_block_size() -> int | None:
    text = os.environ.get("MLX_FLASH_BLOCK_SIZE", "")
    if not text:
        return None
    try:
        return flash_block_size(text)
    except argparse.ArgumentTypeError as error:
        _exit_for("MLX_FLASH_BLOCK_SIZE", str(error))


def _environment_route() -> str | None:
    name = os.environ.get("MLX_FLASH_ROUTE", "")
    if not name:
        return None
    known = [route.NAME for route in ROUTES]
    if name not in known:
        _exit_for("MLX_FLASH_ROUTE", f"{name} is not a route; the routes are {', '.join(known)}")
    return name


def _exit_for(variable: str, message: str) -> NoReturn:
    print(f"{variable}: {message}", file=sys.stderr)
    raise SystemExit(2)
