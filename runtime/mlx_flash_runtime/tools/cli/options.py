"""Options that several subcommands share, and the command line as it was typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .errors import Usage

F = TypeVar("F", bound=Callable[..., Any])


class Several(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click alone
    """Values with commas between them, each a positive integer or one of a few names."""

    def __init__(self, choices: Sequence[str] | None = None) -> None:
        self.choices = choices
        self.name = "N,..." if choices is None else "NAME,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        return tuple(self._one(part.strip(), param, ctx) for part in value.split(","))

    def _one(
        self, part: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if self.choices is not None:
            if part not in self.choices:
                self.fail(f"{part!r} is not one of {', '.join(self.choices)}", param, ctx)
            return part
        if not part.isdecimal() or int(part) < 1:
            self.fail(f"{part!r} is not a positive whole number", param, ctx)
        return int(part)


def typed(values: Iterable[int | str]) -> str:
    """Values as they are typed, for a default that help shows."""
    return ",".join(map(str, values))


def rounds_option(default: int, what: str) -> Callable[[F], F]:
    """Adds --rounds."""
    return click.option(
        "--rounds", type=click.IntRange(3), default=default, show_default=True, help=what
    )


def seconds_option(command: F) -> F:
    """Adds --seconds."""
    return click.option(
        "--seconds",
        type=click.FloatRange(0, min_open=True),
        default=5.0,
        show_default=True,
        help="Seconds of timing per call.",
    )(command)


def given(names: Iterable[str]) -> list[str]:
    """Which of these parameters of the running command are on its command line, as options."""
    context = click.get_current_context()
    options = []
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            options.append(as_option(name))
    return options


def as_option(name: str) -> str:
    """A parameter's name as it is typed: `--head-dim` of `head_dim`."""
    return f"--{name.replace('_', '-')}"


def refuse_shapes(names: Iterable[str]) -> None:
    """Raises Usage where one of these parameters is given beside --model."""
    if options := given(names):
        raise Usage(
            f"{', '.join(options)}: shapes are those of the model; leave out --model to give them"
        )


def command_line() -> str:
    """The command as it was typed, without the files that the results go to."""
    words: list[str] = []
    arguments = iter(sys.argv[1:])
    for word in arguments:
        option = word.partition("=")[0]
        if option in ("--json", "--csv", "--markdown", "--plot"):
            if option == word:
                next(arguments, None)
        else:
            words.append(word)
    return shlex.join(["mlx-flash", *words])
