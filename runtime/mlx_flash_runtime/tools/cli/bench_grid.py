"""`mlx-flash bench grid`."""

from __future__ import annotations

from typing import Any

import click

from ...planning.machine import current_device
from ...report import counted
from ..bench import definitions, problems
from ..bench import grid as measuring
from ..bench.machine import machine
from ..bench.tables import Document
from .cpu_kernel import have_cpu_kernel
from .errors import Usage
from .options import Several, command_line, rounds_option, typed
from .outputs import Outputs, exit_if_wrong, output_options, write_measured


def _defaults(option: str) -> str:
    """What each preset has for it, as help shows a default."""
    said = []
    for name, values in problems.PRESETS.items():
        if values[option]:
            said.append(f"{name}: {typed(values[option])}")
    return f"[{'; '.join(said)}]"


@click.command()
@click.option(
    "--preset",
    type=click.Choice(list(problems.PRESETS)),
    default="models",
    show_default=True,
    help="What the options below are where they are not given.",
)
@click.option("--batch", type=Several(), help=f"Rows at once.  {_defaults('batch')}")
@click.option(
    "--length", type=Several(), help=f"Keys; queries too, but in decode.  {_defaults('length')}"
)
@click.option("--head-dim", type=Several(), help=_defaults("head_dim"))
@click.option("--heads", type=Several(), help=f"Query heads.  {_defaults('heads')}")
@click.option(
    "--kv-heads",
    type=Several(),
    help=f"Key heads.  {_defaults('kv_heads')}; else as many as --heads",
)
@click.option("--dtype", type=Several(problems.DTYPES), help=_defaults("dtype"))
@click.option(
    "--mask",
    metavar="MASK,...",
    help=f"Of {', '.join(problems.MASKS)}.  {_defaults('mask')}",
)
@click.option("--phase", type=Several(problems.PHASES), help=_defaults("phase"))
@rounds_option(21, "Timed regions of each candidate.")
@output_options
def grid(preset: str, mask: str | None, rounds: int, outputs: Outputs, **given: Any) -> None:
    """Attention by shape: by hand, MLX's own, ours.

    \b
    mlx-flash bench grid
    mlx-flash bench grid --length 1024,4096 --phase prefill --json grid.json
    mlx-flash bench grid --preset claims --dtype float32,bfloat16

    Every combination of the options is one row; values are separated by commas. Without options
    it measures what language models do (on a CPU up to 2,048 tokens); the preset claims has the
    eight shapes that the project's first claims were about. Phases: prefill (as many queries as
    keys), decode (one query), train (with the gradients). Exits with 1 if a row is wrong.
    """
    masks = None if mask is None else [part.strip() for part in mask.split(",")]
    try:
        wanted = problems.preset(preset, {**given, "mask": masks}, current_device().backend)
        measured = measuring.measure(wanted, rounds)
    except (ValueError, measuring.FlashIsOff) as error:
        raise Usage(str(error)) from error
    have_cpu_kernel()
    facts = machine()

    def document_of(rows: list[dict[str, Any]]) -> Document:
        return Document(
            kind="grid",
            title="Attention by shape: plain, stock and ours",
            command=command_line(),
            machine=facts,
            definitions=definitions.GRID_DEFINITIONS,
            rows=rows,
            summary=measuring.summary(rows),
        )

    shapes = counted(len(wanted), "shape")
    exit_if_wrong(write_measured(measured, len(wanted), shapes, outputs, document_of))
