"""How a script comes to attention, as a chain of links: `chat.py:12 -> pkg/model.py:88 ->
mx.fast.scaled_dot_product_attention`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath

from flash_integrate.quoting import quoted


class Kind(str, Enum):
    """What stands at the end of a chain."""

    MLX = "mlx"
    """A function or layer of MLX."""
    LIBRARY = "library"
    """A package of models, by what was read of it."""
    BY_NAME = "loaded by name"
    """A module that is chosen when the program runs."""
    BY_HAND = "written by hand"
    """Products and a softmax, which no patch can reach."""


@dataclass(frozen=True)
class Link:
    """A line of a file of the project."""

    path: PurePosixPath
    line: int

    def __str__(self) -> str:
        return f"{quoted(self.path)}:{self.line}"


@dataclass(frozen=True)
class Evidence:
    """The links from a script on, a file each: the line that leads on to the next one, and in the
    last file that of the attention. `ends` are the names at the end, of a library also where that
    comes to attention."""

    links: tuple[Link, ...]
    ends: tuple[str, ...]
    kind: Kind

    def __str__(self) -> str:
        return " -> ".join(self.steps())

    def steps(self) -> Iterator[str]:
        yield from map(str, self.links)
        yield from self.ends
