"""How far a command is, on stderr, so that results on stdout stay clean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")


def progress(what: str) -> Progress:
    """A bar; where stderr is no terminal there is none, and one line says `what` goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"{what} ...", err=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def tracked(rows: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The rows as they are measured, with a bar."""
    with progress(f"measuring {what}") as bar:
        yield from bar.track(rows, total, description="measuring")
