"""`mlx-flash explain`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...explanation import Explanation, explanation_of
from ...planning.choice import choose, stock_memory
from ...problem import Problem
from ...settings import resolve
from ..bench import problems
from ..rehearsal import LayerCalls
from .devices import described, device_of, device_options
from .errors import Usage
from .explain_printing import as_dict, print_explanations
from .model_calls import calls_of
from .options import refuse_shapes

_PHASES = {
    "prefill": "prefill of",
    "decode": "decoding one token after",
    "train": "training on",
}
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
    phase = _phase_of(decode, train)
    device = device_of(backend, memory, mlx, capability, chip)
    if model is None:
        problem = _problem(batch, length, dtype or "bfloat16", phase, **shape)
        calls = [LayerCalls(choose(problem, device, resolve(True, None)), ())]
    else:
        refuse_shapes(_SHAPE)
        calls = calls_of(model, (batch, length), dtype, phase, device)
    explanations = [_explained(call) for call in calls]
    if as_json:
        click.echo(json.dumps(as_dict(calls, explanations, device), indent=2))
        return
    subject = "attention" if model is None else model.resolve().name
    title = f"{subject}: {_PHASES[phase]} {length:,} tokens on {described(device)}"
    print_explanations(title, calls, explanations)


def _phase_of(decode: bool, train: bool) -> str:
    """One of `problems.PHASES`. Raises Usage where two are asked for."""
    if decode and train:
        raise Usage(
            "--decode and --train exclude each other: nothing is trained one token at a time"
        )
    if train:
        return "train"
    return "decode" if decode else "prefill"


def _problem(
    batch: int,
    length: int,
    dtype: str,
    phase: str,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    value_head_dim: int | None,
    mask: str | None,
    sinks: bool | None,
) -> Problem:
    """The call that the options describe. Raises Usage where they describe none."""
    if heads is None or head_dim is None:
        raise Usage("give a --model FOLDER, or --heads and --head-dim")
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


def _explained(call: LayerCalls) -> Explanation:
    """Why the call takes its route; of one that a layer's own rewriting took, that."""
    explanation = explanation_of(call.choice)
    if call.decision == call.choice.decision:
        return explanation
    route, reason = call.decision
    memory = stock_memory(call.problem, call.choice.device)
    return replace(explanation, route=route, reason=reason, block_size=None, extra_memory=memory)
