"""The command's subcommands, imported only when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from ...version import __version__
from .errors import Interrupted, WrongUsage


class LazyGroup(click.Group):
    """A group whose subcommands are named by module and attribute, with the help that lists show.
    Nothing is imported before a subcommand runs or is asked for help."""

    def __init__(self, *, lazy: dict[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own settings, passed on
        self.lazy = lazy

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("stopped") from None
        except click.UsageError as error:
            raise _as_others(error) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _as_others(error) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module, __package__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in self.lazy.items()])


def _as_others(error: click.UsageError) -> click.UsageError:
    """A wrong use as every other error is told; where nothing was given, click shows the help."""
    shows_help = type(error).__name__ == "NoArgsIsHelpError"  # newer releases of click have it
    return error if shows_help else WrongUsage(error.format_message(), error.ctx)


# One line a subcommand: its module and function, and its help in lists.
COMMANDS = {
    "bench": (".bench:bench", "Measure attention by shape and by route, or whole workflows."),
    "compare": (".compare:compare", "Run a script with and without flash attention, in turns."),
    "doctor": (".doctor:doctor", "What this machine has for attention, and what is missing."),
    "explain": (".explain:explain", "Which route each attention call of a model takes, and why."),
    "plan": (".plan:plan", "The longest context, or the largest batch in training, that fits."),
    "report": (".report:report", "Make one HTML page of results."),
    "tune": (
        ".tune:tune",
        "Measure the routes on this machine; the fastest are taken from then on.",
    ),
}


@click.command(
    cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="mlx-flash")
def mlx_flash() -> None:
    """Measures, explains and diagnoses attention on MLX."""
