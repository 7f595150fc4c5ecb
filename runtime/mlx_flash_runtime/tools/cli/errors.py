"""What ends a command, told in one line on stderr; and what is asked before anything is
measured."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click


class Failure(click.ClickException):
    """One line on stderr and exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.format_message()}", file=file, err=True)


class Usage(Failure):
    """The same for what the user can set right on the command line: exit status 2."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ctrl-C: one line on stderr and the status that a shell gives it, where click's own would say
    that a result is wrong."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        click.echo("stopped", file=file, err=True)


class WrongUsage(click.UsageError):
    """A wrong command line, told as every other error is."""

    def show(self, file: Any = None) -> None:
        if self.ctx is not None:
            click.echo(self.ctx.get_usage(), file=file, err=True)
            help_line = f"Try '{self.ctx.command_path} --help' for help.\n"
            click.echo(help_line, file=file, err=True)
        click.echo(f"error: {self.format_message()}", file=file, err=True)


def need_folder_of(path: Path) -> None:
    """Raises Usage where the folder that the file is to be written into is not there."""
    if not path.absolute().parent.is_dir():
        raise Usage(f"{path}: there is no folder {path.absolute().parent}")


WITHOUT_MATPLOTLIB = "plots need matplotlib: pip install 'mlx-flash-runtime[plot]'"


def has_matplotlib() -> bool:
    """Whether plots can be made."""
    return find_spec("matplotlib") is not None


def need_mlx_lm(what: str) -> None:
    """Raises Usage where it is not installed; `what` needs it."""
    if find_spec("mlx_lm") is None:
        raise Usage(f"{what} mlx-lm: pip install 'mlx-flash-runtime[lm]'")
