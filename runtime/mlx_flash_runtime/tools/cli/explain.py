"""`mlx-flash explain`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ...explanation import Explanation, explanation_of
from ...ops.work import Work
from ...planning.choice import choose, stock_memory
from ...problem import Device, Problem
from ...settings import resolve
from ..bench import models, problems
from ..rehearsal import LayerCalls, NotLazy, rehearse
from .devices import described, device_of, device_options
from .options import Failure, Usage, need_mlx_lm

_SHAPE = ("heads", "kv_heads", "head_dim", "value_head_dim", "mask", "sinks")


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A model; its config.json is enough.",
)
@click.option(
    "--length", type=click.IntRange(1), default=4096, show_default=True, help="Tokens, or keys."
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Rows at once.")
@click.option("--decode", is_flag=True, help="Plan one decode step after --length tokens.")
@click.option("--train", is_flag=True, help="With the gradient.")
@click.option(
    "--dtype",
    type=click.Choice(problems.DTYPES),
    help="The model's own unless given; bfloat16 without one.",
)
@click.option("--heads", type=click.IntRange(1), help="Without --model: query heads.")
@click.option(
    "--kv-heads", type=click.IntRange(1), help="Key heads.  [default: as many as --heads]"
)
@click.option("--head-dim", type=click.IntRange(1), help="Of queries and keys.")
@click.option(
    "--value-head-dim", type=click.IntRange(1), help="Of values.  [default: that of --head-dim]"
)
@click.option(
    "--mask", metavar="MASK", help=f"One of {', '.join(problems.MASKS)}.  [default: none]"
)
@click.option("--sinks", is_flag=True, default=None, help="With attention sinks.")
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain(
    model: Path | None,
    length: int,
    batch: int,
    decode: bool,
    train: bool,
    dtype: str | None,
    backend: str | None,
    chip: str | None,
    memory: int | None,
    capability: tuple[int, int] | None,
    mlx: str | None,
    as_json: bool,
    **shape: Any,
) -> None:
    """Which route each attention call of a model takes, and why.

    \b
    mlx-flash explain --model ./my_model --length 8192
    mlx-flash explain --model ./my_model --length 8192 --train --device metal
    mlx-flash explain --heads 16 --kv-heads 4 --head-dim 128 --length 8192 --mask causal

    Of each distinct call: the layers that make it, the route and why none of those asked before,
    the block size, and the peak memory that its forward pass is predicted to need beyond inputs
    and output, next to MLX's own function. Nothing is computed and no weights are read, so the
    device may be another than this one. A --model needs the extra `lm`. Exits with 2 for a folder
    that is no model.
    """
    if decode and train:
        raise Usage(
            "--decode and --train exclude each other: nothing is trained one token at a time"
        )
    device = device_of(backend, memory, mlx, capability, chip)
    settings = resolve(True, None)
    if model is None:
        problem = _problem(batch, length, dtype or "bfloat16", decode, train, **shape)
        calls = [LayerCalls(choose(problem, device, settings), ())]
    else:
        given = [f"--{name.replace('_', '-')}" for name in _SHAPE if shape[name] is not None]
        if given:
            raise Usage(
                f"{', '.join(given)}: shapes are those of the model; leave out --model to give them"
            )
        phase = "train" if train else "decode" if decode else "prefill"
        calls = calls_of(model, (batch, length), dtype, phase, device)
    explanations = [_explained(call) for call in calls]
    if as_json:
        click.echo(json.dumps(_as_dict(calls, explanations, device), indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    phase = "training on" if train else "decoding one token after" if decode else "prefill of"
    subject = "attention" if model is None else model.resolve().name
    console.print(
        Text(f"{subject}: {phase} {length:,} tokens on {described(device)}", "bold"), soft_wrap=True
    )
    for call, explanation in zip(calls, explanations, strict=True):
        _print(console, call, explanation)
    if not calls:
        console.print("no attention calls: the model writes out its attention by hand, or has none")


def _problem(
    batch: int,
    length: int,
    dtype: str,
    decode: bool,
    train: bool,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    value_head_dim: int | None,
    mask: str | None,
    sinks: bool | None,
) -> Problem:
    if heads is None or head_dim is None:
        raise Usage("give a --model FOLDER, or --heads and --head-dim")
    phase = "train" if train else "decode" if decode else "prefill"
    try:
        (problem,) = problems.cross_product(
            (batch,),
            (length,),
            (head_dim,),
            (heads,),
            (kv_heads or heads,),
            (dtype,),
            (mask or "none",),
            (phase,),
        )
    except ValueError as error:
        raise Usage(str(error)) from error
    problem = replace(problem, value_head_dim=value_head_dim or head_dim, sinks=bool(sinks))
    return problems.as_planned(problem)


def calls_of(
    folder: Path, shape: tuple[int, int], dtype: str | None, phase: str, device: Device
) -> list[LayerCalls]:
    """The distinct attention calls of the model in `folder` on so many rows and tokens, in one of
    `problems.PHASES`. Raises Usage for a folder that is no model, Failure for a model that does
    not run."""
    need_mlx_lm("--model needs")
    from mlx_lm.models.cache import make_prompt_cache

    train = phase == "train"
    try:
        module = models.by_config(folder, dtype)
        module.train(train)
        cache = None if train else make_prompt_cache(module)
        steps = [lambda tokens: module(tokens, cache=cache)]
        if phase == "decode":
            steps.append(lambda tokens: module(tokens[:, :1], cache=cache))
        return rehearse(steps, shape, device, resolve(True, None), training=train)[-1]
    except models.NotAModel as error:
        raise Usage(str(error)) from error
    except NotLazy as error:
        raise Failure(f"{folder} cannot be explained without its weights: {error}") from error
    except Exception as error:  # a model's own code, on a configuration that may be wrong
        raise Failure(f"{folder} does not run: {type(error).__name__}: {error}") from error


def _explained(call: LayerCalls) -> Explanation:
    explanation = explanation_of(call.choice)
    if call.decision == call.choice.decision:
        return explanation
    route, reason = call.decision
    memory = stock_memory(call.problem, call.choice.device)
    return replace(explanation, route=route, reason=reason, block_size=None, extra_memory=memory)


def _as_dict(
    calls: Sequence[LayerCalls], explanations: Sequence[Explanation], device: Device
) -> dict[str, Any]:
    """`device` and `calls`; of a call its `layers` (each with `name` and `class`), its `phase`,
    and the fields of `Explanation`."""
    return {
        "device": asdict(device),
        "calls": [
            {
                "layers": [{"name": name, "class": class_name} for name, class_name in call.layers],
                "phase": call.problem.phase,
                "problem": asdict(explanation.problem),
                "route": explanation.route,
                "reason": explanation.reason,
                "refused": [
                    {"route": route, "reason": reason} for route, reason in explanation.refused
                ],
                "block_size": explanation.block_size,
                "extra_memory": explanation.extra_memory,
                "stock_memory": explanation.stock_memory,
                "stock_work": asdict(explanation.stock_work),
                "lowered_work": _work_as_dict(explanation.lowered_work),
                "kernel_work": _work_as_dict(explanation.kernel_work),
                "most_seen": explanation.most_seen,
                "blocks_work": _work_as_dict(explanation.blocks_work),
            }
            for call, explanation in zip(calls, explanations, strict=True)
        ],
    }


def _work_as_dict(work: Work | None) -> dict[str, Any] | None:
    return None if work is None else asdict(work)


def _print(console: Console, call: LayerCalls, explanation: Explanation) -> None:
    console.print()
    if call.layers:
        names = [name for name, _ in call.layers]
        count = f"{len(names)} layer{'s' if len(names) > 1 else ''}"
        classes = ", ".join(dict.fromkeys(class_name for _, class_name in call.layers))
        console.print(Text(f"{count}: {shortened(names)} ({classes})", "bold"), soft_wrap=True)
    console.print(Text(str(call.problem), ""), soft_wrap=True)
    first, *rest = str(explanation).splitlines()
    ours = explanation.route not in ("native", "unfused")
    console.print(Text(f"  {first}", "green" if ours else ""), soft_wrap=True)
    for line in rest:
        console.print(Text(f"  {line}", "dim" if line.startswith("  not ") else ""), soft_wrap=True)


def shortened(names: Sequence[str]) -> str:
    """Names that differ in one number, as one: `model.layers.0-2,5.self_attn`."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        found = re.search(r"\d+", name)
        pattern = re.sub(r"\d+", "\0", name, count=1)
        numbers.setdefault(pattern, []).extend([int(found[0])] if found else [])
    return ", ".join(pattern.replace("\0", _ranges(found)) for pattern, found in numbers.items())


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
