"""`mlx-flash tune`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import click
from rich.text import Text

from ...planning import calibration
from ...planning.calibration import STOCK, Measured
from ...planning.machine import current_device
from ...problem import Problem
from ...report import counted
from ..bench import problems
from ..bench import tune as tuning
from .cpu_kernel import have_cpu_kernel
from .errors import Failure, Usage
from .model_calls import calls_of
from .options import Several, given, refuse_shapes, seconds_option
from .printing import console_of_stdout
from .progress import tracked

_SHAPE = ("heads", "kv_heads", "head_dim", "mask")
_MEASURING = ("model", "length", "batch", "phase", *_SHAPE, "dtype", "seconds")


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Shapes of a model, by config.json.",
)
@click.option("--length", type=Several(), default="512,2048", show_default=True)
@click.option("--batch", type=Several(), default="1", show_default=True)
@click.option("--phase", type=Several(problems.PHASES), default="prefill,decode", show_default=True)
@click.option("--heads", type=Several(), help="Without --model.  [default: 8]")
@click.option("--kv-heads", type=Several(), help="Without --model.  [default: as many as --heads]")
@click.option("--head-dim", type=Several(), help="Without --model.  [default: 64,128]")
@click.option(
    "--dtype", type=Several(problems.DTYPES), help="The model's own, or float32, unless given."
)
@click.option(
    "--mask",
    metavar="MASK,...",
    help=f"Without --model, of {', '.join(problems.MASKS)}.  [default: causal]",
)
@seconds_option
@click.option("--show", is_flag=True, help="Show what was measured so far, and measure nothing.")
@click.option(
    "--forget", is_flag=True, help="Delete what was measured so far, and measure nothing."
)
def tune(
    model: Path | None,
    length: tuple[int, ...],
    batch: tuple[int, ...],
    phase: tuple[str, ...],
    heads: tuple[int, ...] | None,
    kv_heads: tuple[int, ...] | None,
    head_dim: tuple[int, ...] | None,
    dtype: tuple[str, ...] | None,
    mask: str | None,
    seconds: float,
    show: bool,
    forget: bool,
) -> None:
    """Measure the routes on this machine; the fastest are taken from then on.

    \b
    mlx-flash tune --model ./my_model --length 512,4096
    mlx-flash tune --heads 16 --kv-heads 4 --head-dim 128 --dtype bfloat16 --phase decode,train
    mlx-flash tune --show

    Every route that holds is checked against float64 and timed in turns with MLX's own function;
    it wins where it is faster by more than noise. Winners are kept by class of problem, with
    device and versions, in a file of your cache folder (or MLX_FLASH_CALIBRATION), and count
    before the rules that come with this package. On the CPU, where a call does not know whether it
    is part of training, a winner is faster both ways. Exits with 1 if a route gives a wrong
    result; that route is never used.
    """
    if show or forget:
        others = given(("forget", *_MEASURING) if show else _MEASURING)
        if others:
            raise Usage(f"{', '.join(others)}: --{'show' if show else 'forget'} does nothing else")
        return _show() if show else _forget()
    if model is None:
        wanted = _grid(batch, length, head_dim, heads, kv_heads, dtype, mask, phase)
    else:
        refuse_shapes(_SHAPE)
        wanted = _of_model(model, dtype or (None,), phase, batch, length)
    have_cpu_kernel()
    device = current_device()  # which has the kernel by now
    todo = tuning.distinct(wanted, device)
    if not todo:
        raise Usage(
            "there is nothing to measure: no attention call goes through MLX's own function"
        )
    measuring = tuning.tune(todo, device, tuning.interleaving(seconds))
    results = _saved(tracked(measuring, len(todo), counted(len(todo), "kind") + " of call"))
    if any(tuned.wrong for tuned in results):
        raise click.exceptions.Exit(1)


def _grid(
    batch: Sequence[int],
    length: Sequence[int],
    head_dim: Sequence[int] | None,
    heads: Sequence[int] | None,
    kv_heads: Sequence[int] | None,
    dtype: Sequence[str] | None,
    mask: str | None,
    phase: Sequence[str],
) -> list[Problem]:
    masks = [part.strip() for part in (mask or "causal").split(",")]
    shapes = (batch, length, head_dim or (64, 128), heads or (8,), kv_heads or ())
    try:
        wanted = problems.cross_product(*shapes, dtype or ("float32",), masks, phase)
    except ValueError as error:
        raise Usage(str(error)) from error
    return [problems.as_planned(problem) for problem in wanted]


def _of_model(
    folder: Path,
    dtypes: Sequence[str | None],
    phases: Sequence[str],
    batches: Sequence[int],
    lengths: Sequence[int],
) -> list[Problem]:
    """What the model's layers call for, in each of these ways."""
    device = current_device()
    wanted = []
    for dtype, phase, batch, length in product(dtypes, phases, batches, lengths):
        for call in calls_of(folder, (batch, length), dtype, phase, device):
            wanted.append(call.problem)
    return wanted


def _saved(measuring: Iterable[tuning.Tuned]) -> list[tuning.Tuned]:
    """The results, each kept as soon as it is measured, so that an interruption loses nothing, and
    then printed."""
    results: list[tuning.Tuned] = []
    try:
        for tuned in measuring:
            results.append(tuned)
            if tuned.measured is not None:
                calibration.save({tuned.name: tuned.measured})
    except OSError as error:
        raise Failure(f"{calibration.path()} cannot be written: {error.strerror}") from error
    finally:
        _print_results(results)
    return results


def _print_results(results: Sequence[tuning.Tuned]) -> None:
    if not results:
        return
    console = console_of_stdout()
    for tuned in results:
        console.print(Text(str(tuned.problem), "bold red" if tuned.wrong else "bold"))
        console.print(
            Text(_told(tuned.measured) if tuned.measured else "  nothing could be measured")
        )
        for words, names in (("wrong", tuned.wrong), ("too large", tuned.too_large)):
            if names:
                console.print(Text(f"  {words}: {', '.join(names)}"))
    click.echo(f"kept in {calibration.path()}")


def _show() -> None:
    measured = calibration.read()
    if not measured:
        click.echo(f"nothing was measured yet: there is nothing in {calibration.path()}")
        return
    console = console_of_stdout()
    for name, entry in measured.items():
        console.print(Text(name, "bold"))
        console.print(Text(_told(entry)))
    click.echo(f"kept in {calibration.path()}")


def _told(measured: Measured) -> str:
    """`  fastest: blockwise, 2.00 × MLX's own`, and the times of each phase in a line."""
    own = measured.route == STOCK
    gain = "" if own or measured.gain is None else f", {measured.gain:.2f} × MLX's own"
    lines = [f"  fastest: {_name(measured.route)}{gain}"]
    for phase, times in measured.ms.items():
        ranked = sorted(times.items(), key=lambda item: item[1])
        lines.append(f"  {phase}, ms: " + ", ".join(f"{_name(name)} {ms:g}" for name, ms in ranked))
    return "\n".join(lines)


def _name(route: str) -> str:
    return "MLX's own" if route == STOCK else route


def _forget() -> None:
    try:
        gone = calibration.forget()
    except OSError as error:
        raise Failure(f"{calibration.path()} cannot be deleted: {error.strerror}") from error
    click.echo(f"deleted {calibration.path()}" if gone else "nothing was measured yet")
