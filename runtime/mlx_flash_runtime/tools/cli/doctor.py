"""`mlx-flash doctor`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...environment import loading
from ...version import __version__
from ..doctor import Examination, examine

if TYPE_CHECKING:
    from ..doctor.kernels import Answer  # which needs an MLX that loads

_COLOURS = {"ok": "green", "missing": "cyan", "warning": "yellow", "broken": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--build", is_flag=True, help="First compile the kernel for the CPU, if it is not there yet."
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what MLX fuses on this machine to FILE, asked of MLX, and nothing else.",
)
def doctor(as_json: bool, build: bool, record: Path | None) -> None:
    """What this machine has for attention, and what to do about what is missing.

    \b
    mlx-flash doctor
    mlx-flash doctor --json > machine.json
    mlx-flash doctor --build
    mlx-flash doctor --record fused.json

    Looks at the device, MLX and its fused kernels, the speed of matmul, the compiler and mlx-lm.
    Colours are off where NO_COLOR is set or the output is no terminal. Exits with 1 if something
    is broken, else with 0.
    """
    if build and loading.failure() is None:
        from .cpu_kernel import build_cpu_kernel  # needs an MLX that loads

        build_cpu_kernel()
    if record is not None:
        _record(record)
        return
    examination = examine()
    if as_json:
        click.echo(json.dumps(examination.as_dict(), indent=2))
    else:
        _print(examination)
    if examination.is_broken:
        raise click.exceptions.Exit(1)


def _record(path: Path) -> None:
    """Writes the data file of this machine. Raises Failure where MLX can't be asked."""
    if loading.failure() is not None:
        raise click.ClickException(f"{loading.failure()}; {loading.advice()}")
    from ...planning.machine import current_device
    from ...stock import asked
    from ..doctor.record import as_text, record
    from .errors import Failure, need_folder_of

    need_folder_of(path)
    if not asked.can_be_read():
        raise Failure("the graphs of this MLX don't tell what it fuses")
    device = current_device()
    path.write_text(as_text(record(device)), encoding="utf-8")
    click.echo(f"{path}: what MLX fuses on {device.name}")


def _print(examination: Examination) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    console.print(Text(f"mlx-flash-runtime {__version__}", "bold"))
    width = max(len(finding.name) for finding in examination.findings)
    for finding in examination.findings:
        colour = _COLOURS[finding.status]
        status = Text(f"{finding.status:7}  ", colour)
        console.print(status + Text(f"{finding.name:{width}}  {finding.value}", ""), soft_wrap=True)
        if finding.advice:
            console.print(Text(f"{'':{width + 11}}{finding.advice}", colour), soft_wrap=True)
    if any(answer.fused or answer.expected for answer in examination.kernels):
        console.print(_kernels(examination))


def _kernels(examination: Examination) -> Table:
    """A row per phase, mask and type, a column per head dim; `!` where this package's table says
    otherwise."""
    table = Table(
        title="MLX's fused kernels by head dim", title_justify="left", header_style="bold"
    )
    rows: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in examination.kernels:
        rows.setdefault((answer.phase, answer.mask, answer.dtype), []).append(answer)
    head_dims = dict.fromkeys(str(answer.head_dim) for answer in examination.kernels)
    for heading in ("phase", "mask", "dtype", *head_dims):
        table.add_column(heading)
    for names, answers in rows.items():
        table.add_row(*names, *map(_cell, answers))
    return table


def _cell(answer: Answer) -> Text:
    fused = Text("yes", "green") if answer.fused else Text("-", "dim")
    return fused if answer.fused == answer.expected else fused + Text(" !", "bold red")
