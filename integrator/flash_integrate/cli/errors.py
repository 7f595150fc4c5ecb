"""How the command says that it can't go on: `error: ...` on standard error, whatever raised it."""

from __future__ import annotations

from typing import IO, Any

import click

from flash_integrate.quoting import printable

EXIT_FAILED = 2


class Failure(click.ClickException):
    """Ends the run with a message, of which nothing but its own line breaks reaches the terminal
    as a control."""

    exit_code = EXIT_FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints it."""
        text = "\n".join(map(printable, self.format_message().split("\n")))
        click.echo(f"error: {text}", file=file, err=True)


class WrongUsage(Failure):
    """The command line is wrong: its usage stands above the message. What it quotes is escaped: a
    shell puts the names of files in the place of `*`."""

    def __init__(self, error: click.UsageError, context: click.Context) -> None:
        super().__init__(error.format_message())
        self.context = context

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints it."""
        click.echo(self.context.get_usage(), file=file, err=True)
        help_line = f"Try '{self.context.command_path} --help' for help.\n"
        click.echo(help_line, file=file, err=True)
        super().show(file)
