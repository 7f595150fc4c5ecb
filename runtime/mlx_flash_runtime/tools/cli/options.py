"""Options that several subcommands share, and where their results go."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import Progress

from ..bench import columns, tables
from ..bench.grid import WRONG
from ..bench.tables import Document
from .printing import print_tables

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Failure(click.ClickException):
    """One line on stderr and exit status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.format_message()}", file=file, err=True)


class Usage(Failure):
    """The same for what the user can set right on the command line: exit status 2."""

    exit_code = 2


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


@dataclass(frozen=True)
class Outputs:
    """The files that a result goes to, next to the terminal."""

    json: Path | None
    csv: Path | None
    markdown: Path | None
    plot: Path | None
    verbose: bool

    def check(self) -> None:
        """Before anything is measured: plots can be made, and every folder is there. Raises
        Usage."""
        if self.plot is not None:
            if self.plot.suffix not in (".png", ".svg"):
                raise Usage(f"--plot {self.plot}: the file's name must end in .png or .svg")
            if not has_matplotlib():
                raise Usage(WITHOUT_MATPLOTLIB)
        for path in (self.json, self.csv, self.markdown, self.plot):
            if path is not None:
                need_folder_of(path)

    def write(self, document: Document) -> None:
        """The files, then the tables on the terminal, which a pager may close. Raises Failure."""
        found = columns.tables_of(document)
        try:
            self._write_files(document, found)
        except OSError as error:
            raise Failure(f"{error.filename}: {error.strerror}") from error
        finally:
            print_tables(document, found, self.verbose)

    def _write_files(self, document: Document, found: Sequence[tables.Table]) -> None:
        texts = {self.json: document.as_json, self.csv: document.as_csv}
        for path, text in texts.items():
            if path is not None:
                path.write_text(text(), encoding="utf-8")
        if self.markdown is not None:
            self.markdown.write_text(tables.as_markdown(document, found), encoding="utf-8")
        if self.plot is not None:
            from ..bench import plots

            plots.save(document, self.plot)


def output_options(command: F) -> F:
    """Adds --json, --csv, --markdown, --plot and --verbose, and hands them to the command as
    `outputs`, checked."""

    @wraps(command)
    def with_outputs(
        json_file: Path | None,
        csv_file: Path | None,
        markdown_file: Path | None,
        plot_file: Path | None,
        verbose: bool,
        **options: Any,
    ) -> Any:
        outputs = Outputs(json_file, csv_file, markdown_file, plot_file, verbose)
        outputs.check()
        return command(outputs=outputs, **options)

    with_outputs = click.option(
        "-v", "--verbose", is_flag=True, help="Say what the words mean and how it was measured."
    )(with_outputs)
    path = click.Path(dir_okay=False, path_type=Path)
    for name, text in (
        ("plot", "Draw it, as .png or .svg (needs the extra `plot`)."),
        ("markdown", "Write the tables as Markdown."),
        ("csv", "Write the rows as CSV."),
        ("json", "Write everything as JSON, for `mlx-flash report`."),
    ):
        with_outputs = click.option(
            f"--{name}", f"{name}_file", type=path, metavar="FILE", help=text
        )(with_outputs)
    return cast(F, with_outputs)


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


def given(names: Iterable[str]) -> list[str]:
    """Which of these parameters of the running command are on its command line, as options."""
    context = click.get_current_context()
    on_line = (
        name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )
    return [f"--{name.replace('_', '-')}" for name in on_line]


def progress(what: str) -> Progress:
    """A bar on stderr, so that results on stdout stay clean. Where that is no terminal there is
    none, and one line says `what` goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"{what} ...", err=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def tracked(rows: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The rows as they are measured, with a bar."""
    with progress(f"measuring {what}") as bar:
        yield from bar.track(rows, total, description="measuring")


def rounds_option(default: int, what: str) -> Callable[[F], F]:
    """Adds --rounds."""
    return click.option(
        "--rounds", type=click.IntRange(3), default=default, show_default=True, help=what
    )


def write_measured(
    measured: Iterable[dict[str, Any]],
    total: int,
    what: str,
    outputs: Outputs,
    document_of: Callable[[list[dict[str, Any]]], Document],
) -> list[dict[str, Any]]:
    """The rows, measured with a bar, and written as `document_of` has them; also after an error or
    an interruption: what was measured is not lost."""
    rows: list[dict[str, Any]] = []
    try:
        for row in tracked(measured, total, what):
            rows.append(row)
    finally:
        if rows:
            outputs.write(document_of(rows))
    return rows


def exit_if_wrong(rows: Iterable[dict[str, Any]]) -> None:
    """Ends the command with status 1 where a result is not what it should be."""
    if any(row["ours_status"] == WRONG for row in rows):
        raise click.exceptions.Exit(1)
