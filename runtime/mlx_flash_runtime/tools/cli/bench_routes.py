"""`mlx-flash bench routes`."""

from __future__ import annotations

import click
from rich.text import Text

from ...planning.calibration import STOCK
from ...report import counted
from ..bench import routes as measuring
from ..bench import tune
from ..bench.machine import described, machine
from .cpu_kernel import have_cpu_kernel
from .errors import Usage
from .options import seconds_option
from .printing import console_of_stdout
from .progress import tracked


@click.command()
@click.option(
    "--only",
    default="",
    metavar="TEXT",
    help="Those calls alone in whose name it is, such as training or 'window 128'.",
)
@seconds_option
def routes(only: str, seconds: float) -> None:
    """The calls that docs/metal.md counts, on every route.

    \b
    mlx-flash bench routes
    mlx-flash bench routes --only training

    Windows, packed documents, few queries, training: each on MLX's own function and on every route
    that there is for it on this machine, each checked against float64 and timed in turns. Nothing
    is kept: `mlx-flash tune` does that. On a GPU it takes some minutes, on a CPU hours without
    --only. Exits with 1 if a route gives a wrong result.
    """
    problems = measuring.named(only)
    if not problems:
        raise Usage(
            f"--only {only}: no call has that in its name: {'; '.join(measuring.named(''))}"
        )
    have_cpu_kernel()
    console = console_of_stdout()
    console.print(Text(described(machine()), "dim"))
    measured = measuring.measure(problems, tune.interleaving(seconds))
    is_wrong = False
    for result in tracked(measured, len(problems), counted(len(problems), "call")):
        console.print(Text(result.name, "bold red" if result.wrong else "bold"))
        for line in _lines(result):
            console.print(Text(f"  {line}"))
        is_wrong |= bool(result.wrong)
    if is_wrong:
        raise click.exceptions.Exit(1)


def _lines(result: measuring.Measured) -> list[str]:
    """`metal_kernel 1.2 ms, 3.40 × MLX's own, taken`, the fastest first."""
    lines = []
    own = result.ms.get(STOCK)
    for name, ms in result.ms.items():
        words = [f"{_name(name)} {ms:g} ms"]
        if own is not None and name != STOCK:
            words.append(f"{own / ms:.2f} × MLX's own")
        if name == result.taken:
            words.append("taken")
        lines.append(", ".join(words))
    for words_of, names in (("wrong", result.wrong), ("too large", result.too_large)):
        if names:
            lines.append(f"{words_of}: {', '.join(map(_name, names))}")
    return lines


def _name(candidate: str) -> str:
    return "MLX's own" if candidate == STOCK else candidate
