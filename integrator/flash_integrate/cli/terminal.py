"""What the command says of itself while it runs: on standard error, in colours and with progress
on a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console

from flash_integrate.project.discover import Found

_UNBROKEN = 10_000


def error_console(color: str) -> Console:
    """Standard error, in colours if it is a terminal or they are asked for, and its lines unbroken
    if it is none."""
    coloured = colours(color, sys.stderr.isatty())
    width = None if sys.stderr.isatty() else _UNBROKEN
    return Console(
        stderr=True, force_terminal=coloured, no_color=not coloured, highlight=False, width=width
    )


def colours(color: str, terminal: bool) -> bool:
    """Whether to write in colours, by the option `--color` and by whether it is a terminal that is
    written to."""
    return color == "always" or (color == "auto" and terminal and not os.environ.get("NO_COLOR"))


def print_in_any_encoding() -> None:
    """Has standard output and standard error write escapes for letters that their encoding lacks
    (`PYTHONIOENCODING=ascii`, a terminal that speaks latin-1)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class ProgressBar:
    """Shows how far a long scan is, on a terminal only; gone when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, files: Sequence[Found], stage: str) -> Iterator[Found]:
        if not files or not sys.stderr.isatty():
            yield from files
            return
        from rich.progress import Progress

        with Progress(console=self.console, transient=True) as progress:
            yield from progress.track(files, description=stage)
