"""`mlx-flash bench grid`."""

from __future__ import annotations

from typing import Any

import click

from ...report import counted
from ..bench import grid as measuring
from ..bench import problems, show
from ..bench.machine import machine
from ..bench.tables import Document
from .cpu_kernel import have_cpu_kernel
from .options import (
    Outputs,
    Several,
    Usage,
    command_line,
    exit_if_wrong,
    output_options,
    rounds_option,
    typed,
    write_measured,
)


@click.command()
@click.option(
    "--batch",
    type=Several(),
    default=typed(problems.BATCHES),
    show_default=True,
    help="Rows at once.",
)
@click.option(
    "--length",
    type=Several(),
    default=typed(problems.LENGTHS),
    show_default=True,
    help="Keys; queries too, but in decode.",
)
@click.option("--head-dim", type=Several(), default=typed(problems.HEAD_DIMS), show_default=True)
@click.option("--heads", type=Several(), default="8", show_default=True, help="Query heads.")
@click.option(
    "--kv-heads", type=Several(), default=(), help="Key heads.  [default: as many as --heads]"
)
@click.option("--dtype", type=Several(problems.DTYPES), default="float32", show_default=True)
@click.option(
    "--mask",
    metavar="MASK,...",
    default="none",
    help=f"Of {', '.join(problems.MASKS)}.",
    show_default=True,
)
@click.option("--phase", type=Several(problems.PHASES), default="prefill", show_default=True)
@rounds_option(21, "Timed regions of each candidate.")
@output_options
def grid(
    batch: tuple[int, ...],
    length: tuple[int, ...],
    head_dim: tuple[int, ...],
    heads: tuple[int, ...],
    kv_heads: tuple[int, ...],
    dtype: tuple[str, ...],
    mask: str,
    phase: tuple[str, ...],
    rounds: int,
    outputs: Outputs,
) -> None:
    """Attention by shape: by hand, MLX's own, ours.

    \b
    mlx-flash bench grid
    mlx-flash bench grid --length 1024,4096 --mask causal --json grid.json

    Every combination of the options is one row; values are separated by commas. Phases: prefill
    (as many queries as keys), decode (one query), train (with the gradients). Exits with 1 if a
    row is wrong.
    """
    masks = [part.strip() for part in mask.split(",")]
    try:
        wanted = problems.cross_product(
            batch, length, head_dim, heads, kv_heads, dtype, masks, phase
        )
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
            definitions=show.GRID_DEFINITIONS,
            rows=rows,
            summary=measuring.summary(rows),
        )

    shapes = counted(len(wanted), "shape")
    exit_if_wrong(write_measured(measured, len(wanted), shapes, outputs, document_of))
