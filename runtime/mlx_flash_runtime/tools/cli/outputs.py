"""Where the results of a measurement go: to files that options name, and to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from ..bench import columns, tables
from ..bench.grid import WRONG
from ..bench.tables import Document
from .errors import WITHOUT_MATPLOTLIB, Failure, Usage, has_matplotlib, need_folder_of
from .printing import print_tables
from .progress import tracked

F = TypeVar("F", bound=Callable[..., Any])


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
        if self.json is not None:
            self.json.write_text(document.as_json(), encoding="utf-8")
        if self.csv is not None:
            self.csv.write_text(document.as_csv(), encoding="utf-8")
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
