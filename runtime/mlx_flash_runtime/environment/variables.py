"""The environment variables `MLX_FLASH_...`, read in one way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .log import say

T = TypeVar("T")

PREFIX = "MLX_FLASH_"
_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")


def switch(text: str) -> bool:
    """Whether `text` switches something on; raises ValueError unless it is one of the usual
    words."""
    word = text.lower()
    if word not in (*_ON, *_OFF):
        raise ValueError(f"{text} is neither on (1, true, yes) nor off (0, false, no)")
    return word in _ON


def value_of(name: str, parse: Callable[[str], T], unset: T) -> T:
    """What `parse` makes of a variable, `unset` where it is empty or not there. A bad one ends the
    program, see `parsed`."""
    text = os.environ.get(name, "")
    return parsed(name, text, parse) if text else unset


def parsed(name: str, text: str, parse: Callable[[str], T]) -> T:
    """What `parse` makes of a text that a user has given as a variable or option `name`.

    Where it raises ValueError, that is the user's mistake rather than the program's: one line on
    stderr and exit status 2, as argparse does for a bad flag.
    """
    try:
        return parse(text)
    except ValueError as error:
        say(f"{name}: {error}")
        raise SystemExit(2) from None


def _started_in() -> Path:
    try:
        return Path.cwd()
    except OSError:  # the folder was deleted
        return Path()


_STARTED_IN = _started_in()


def file_named(text: str) -> Path:
    """The file that a variable names. A relative name is meant where the program started (where it
    was when this package was imported), not in the folder that it has changed to since."""
    return _STARTED_IN / text


def may_build() -> bool:
    """Whether `MLX_FLASH_BUILD` allows to compile kernels unasked."""
    return value_of("MLX_FLASH_BUILD", switch, True)


def is_quiet() -> bool:
    """Whether `MLX_FLASH_QUIET` asks for warnings alone, without a word of what goes well."""
    return value_of("MLX_FLASH_QUIET", switch, False)
