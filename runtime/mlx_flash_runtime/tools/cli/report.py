"""`mlx-flash report`."""

from __future__ import annotations

from pathlib import Path

import click

from ..bench.tables import NotAResult, load
from .errors import WITHOUT_MATPLOTLIB, Failure, Usage, has_matplotlib, need_folder_of


@click.command()
@click.argument(
    "results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULT.json..."
)
@click.option(
    "--html",
    "target",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The page.",
)
def report(results: tuple[Path, ...], target: Path) -> None:
    """Make one HTML page of results.

    \b
    mlx-flash bench grid --json grid.json
    mlx-flash report grid.json --html page.html

    Of files that `mlx-flash bench` or `mlx-flash compare` wrote with --json. The page has plots
    where the extra `plot` is installed; who reads it needs nothing, nor a network.
    """
    pictures = has_matplotlib()
    if not pictures:
        click.echo(f"no plots in the page: {WITHOUT_MATPLOTLIB}", err=True)
    need_folder_of(target)
    if target.exists() and any(path.exists() and target.samefile(path) for path in results):
        raise Usage(
            f"--html {target} is one of the results that the page is made of; name another file"
        )
    from ..bench.page import page

    try:
        text = page({path: load(path) for path in results}, pictures=pictures)
    except NotAResult as error:
        raise Usage(str(error)) from error
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{target}: {error.strerror}") from error
    click.echo(f"wrote {target}")
