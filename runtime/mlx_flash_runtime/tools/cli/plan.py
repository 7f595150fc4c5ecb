"""`mlx-flash plan`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.text import Text

from ..bench import models
from ..bench.tables import Table
from ..memory import folder
from ..memory.fits import LARGEST_BATCH, Fits, Row, of_generation, of_training
from ..memory.steps import Generation, NoSuchCache
from ..rehearsal import NotLazy
from .devices import described, device_of, device_options
from .errors import Failure, Usage, need_mlx_lm
from .options import given
from .printing import console_of_stdout, parts_of

_GIB = 2**30


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    required=True,
    help="A model; its config.json is enough.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Prompts at once."
)
@click.option("--kv-bits", type=click.Choice(["4", "8"]), help="With a cache of so many bits.")
@click.option("--max-kv-size", type=click.IntRange(1), metavar="N", help="Keep the last N tokens.")
@click.option(
    "--prefill-step-size",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Tokens of a prompt at a time.",
)
@click.option("--train", type=click.Choice(["lora", "full"]), help="Train instead, with Adam.")
@click.option(
    "--length",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="With --train: tokens.",
)
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def plan(
    model: Path,
    batch: int,
    kv_bits: str | None,
    max_kv_size: int | None,
    prefill_step_size: int,
    train: str | None,
    length: int,
    backend: str | None,
    chip: str | None,
    memory: int | None,
    capability: tuple[int, int] | None,
    mlx: str | None,
    as_json: bool,
) -> None:
    """The longest context, or the largest batch in training, that fits.

    \b
    mlx-flash plan --model ./my_model
    mlx-flash plan --model ./my_model --memory 16 --device metal --chip m3 --kv-bits 8
    mlx-flash plan --model ./my_model --train lora --length 2048

    With the runtime and without it: weights, cache, and what the step needs on top of them at its
    peak, activations and attention on the planned routes, as mlx-lm generates and trains. Nothing
    is computed and no weights are read. The program's own memory and MLX's cache of buffers come on
    top. On the CPU it was held against what MLX measures (benchmarks/plan.py); for other devices
    the same graph is followed with their limits. How much memory a GPU needs depends on how far it
    lags behind what describes the work to it: `total` is the most, and what fits is judged by it,
    `least` where it is done with each task at once. On an H200 prompts and full training came to
    0.66 to 1.00 of the most, LoRA to 0.44 to 0.94. On Metal nothing was measured.
    Needs the extra `lm`. Exits with 1 where not even the smallest fits, with 2 for a folder that is
    no model.
    """
    need_mlx_lm("plan needs")
    for_generation = given(("batch", "kv_bits", "max_kv_size", "prefill_step_size"))
    if train and for_generation:
        raise Usage(f"{', '.join(for_generation)}: of generation, and --train is given")
    if not train and given(("length",)):
        raise Usage("--length is of --train; a context is what this command finds")
    device = device_of(backend, memory, mlx, capability, chip)
    try:
        module = folder.model_of(model)
        longest = folder.longest_of(model)
        if train:
            found = of_training(module, device, train, length)
        else:
            how = Generation(int(kv_bits) if kv_bits else None, max_kv_size, prefill_step_size)
            found = of_generation(module, device, how, batch, longest)
    except models.NotAModel as error:
        raise Usage(str(error)) from error
    except NoSuchCache as error:
        raise Usage(str(error)) from error
    except NotLazy as error:
        raise Failure(f"{model} cannot be planned without its weights: {error}") from error
    except Exception as error:  # a model's own code, on a configuration that may be wrong
        raise Failure(f"{model} does not run: {type(error).__name__}: {error}") from error
    found = replace(found, title=f"{model.resolve().name}: {found.title} on {described(device)}")
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        _print(found)
    if not found.largest_with:
        raise click.exceptions.Exit(1)


def _print(found: Fits) -> None:
    console = console_of_stdout()
    console.print(Text(found.title, "bold"))
    sizes = "sizes below in GiB, at the peak where the device lags behind, least where it keeps up"
    console.print(Text(f"a program may have {_gib(found.budget)}; {sizes}", "dim"))
    first = "context" if found.unit == "tokens" else "batch"
    middle = ("cache",) if found.unit == "tokens" else ()
    headings = [first, "weights", *middle, "step", "total", "least", "without", "fits"]
    words = [heading == "fits" for heading in headings]
    table = Table("", headings, words, [_cells(row, found) for row in found.rows])
    for part in parts_of(table, None):
        console.print()
        for line in part:
            console.print(line, soft_wrap=True)
    console.print()
    for sentence in _summary(found):
        console.print(Text(sentence), soft_wrap=True)


def _cells(row: Row, found: Fits) -> list[str]:
    need, own = row.with_runtime, row.without
    parts = [need.weights, *([need.cache] if found.unit == "tokens" else []), need.rest]
    fits = {True: "yes", False: "no"}
    own_fits = own is not None and own.total <= found.budget
    answer = fits[need.total <= found.budget]
    if (need.total <= found.budget) != own_fits:
        answer = "with the runtime" if not own_fits else "without the runtime"
    total = "error" if own is None else _number(own.total)
    numbers = map(_number, (*parts, need.total, need.least))
    return [f"{row.size:,}", *numbers, total, answer]


def _summary(found: Fits) -> list[str]:
    what = "longest context" if found.unit == "tokens" else "largest batch"
    at_limit = found.limit is not None and found.largest_with == found.limit
    lines = [
        f"{what} with the runtime: {_counted(found.largest_with, found.unit)}"
        f"{', as far as the model goes' if at_limit else ''}; "
        + (
            f"without it MLX has an error: {found.error_without}"
            if found.error_without
            else f"{_number_of(found.largest_without, found.unit)} without"
        )
    ]
    last = found.rows[-1].with_runtime
    parts = {"the weights": last.weights, "the cache": last.cache, "the step itself": last.rest}
    name = max(parts, key=lambda part: parts[part])
    share = parts[name] / last.total
    lines.append(f"at {found.rows[-1].size:,} most is {name}: {share:.0%}")
    lines += [f"with {words}: {_counted(size, found.unit)}" for words, size in found.advice]
    return lines


def _counted(size: int, unit: str) -> str:
    if size == 1:
        return f"1 {unit.removesuffix('s')}"
    return f"{size:,} {unit}{_or_more(size, unit)}"


def _number_of(size: int, unit: str) -> str:
    return f"{size:,}{_or_more(size, unit)}"


def _or_more(size: int, unit: str) -> str:
    return " or more" if unit == "rows" and size == LARGEST_BATCH else ""


def _gib(size: int) -> str:
    return f"{_number(size)} GiB"


def _number(size: int) -> str:
    gib = size / _GIB
    return f"{gib:,.1f}" if gib >= 10 else f"{gib:.2f}"
