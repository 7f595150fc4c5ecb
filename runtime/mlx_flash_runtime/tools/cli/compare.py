"""`mlx-flash compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from ..bench import compare as comparing
from ..bench import definitions, scripts
from ..bench.machine import machine
from ..bench.tables import Document
from .errors import Failure, Usage
from .outputs import Outputs, output_options
from .progress import progress


class CommandLine(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click alone
    """A command in one argument, as a shell would split it."""

    name = "COMMAND"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """`("curl", "localhost")` of `curl localhost`."""
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            self.fail(f"{value!r} is not a command: {error}", param, ctx)
        if not words:
            self.fail("it is empty", param, ctx)
        return words


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each kind."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds.",
)
@click.option(
    "--stdin",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What the script reads from standard input, which is empty otherwise.",
)
@click.option(
    "--client",
    type=CommandLine(),
    metavar="COMMAND",
    help="For a script that is a server: a command that asks it something. The server is stopped "
    "after it.",
)
@output_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def compare(
    runs: int,
    timeout: float,
    stdin: Path | None,
    client: tuple[str, ...] | None,
    command: tuple[str, ...],
    outputs: Outputs,
) -> None:
    """Run a script with and without flash attention, in turns.

    \b
    mlx-flash compare --runs 5 -- python my_script.py --model ./model
    mlx-flash compare --client "curl --retry 9 --retry-connrefused localhost:8080" -- python app.py

    The script is one that flash-integrate has patched. It runs as a process of its own, once more
    of each kind than asked, to fill caches; without flash attention it gets
    --disable-flash-attention where it has that flag, and MLX_FLASH_DISABLE=1. Exits with 1 if it
    fails.
    """
    facts = machine()
    try:
        script = scripts.find_script(command)
        for program in (command[0], *(client or ())[:1]):
            scripts.need_program(program)
        outcomes = _outcomes(script, runs, stdin=stdin, timeout=timeout, client=client)
    except (FileNotFoundError, scripts.NotPatched) as error:
        raise Usage(str(error)) from error
    except scripts.ScriptFailed as error:
        raise Failure(str(error)) from error
    server = f"--client {shlex.quote(shlex.join(client))} " if client else ""
    summary = comparing.summary_of(outcomes)
    outputs.write(
        Document(
            kind="compare",
            title=f"{script.name} with and without flash attention",
            command=f"mlx-flash compare --runs {runs} {server}-- {shlex.join(command)}",
            machine=facts,
            definitions=definitions.COMPARE_DEFINITIONS,
            rows=comparing.rows_of(outcomes),
            summary=summary,
            findings=(
                comparing.verdict(summary[0]),
                str(comparing.agreement_of(outcomes)),
                comparing.routes_of(outcomes),
            ),
        )
    )


def _outcomes(script: scripts.Script, runs: int, **how: Any) -> comparing.Outcomes:
    """Those of all runs, warm-ups too, with a bar; `how` is the rest of `scripts.measure`."""
    total = len(scripts.MODES) * (scripts.WARM_UPS + runs)
    with progress(f"running {script.name} {total} times") as bar:
        task = bar.add_task(f"running {script.name}", total=total)
        return list(scripts.measure(script, runs, progress=lambda: bar.advance(task), **how))
