"""What `mlx-flash explain` found, as JSON and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from ...explanation import Explanation
from ...problem import Device
from ..rehearsal import LayerCalls
from .printing import console_of_stdout


def as_dict(
    calls: Sequence[LayerCalls], explanations: Sequence[Explanation], device: Device
) -> dict[str, Any]:
    """`device` and `calls`; of a call its `layers` (each with `name` and `class`), its `phase`,
    and the fields of `Explanation`."""
    told = []
    for call, explanation in zip(calls, explanations, strict=True):
        told.append(_call_as_dict(call, explanation))
    return {"device": asdict(device), "calls": told}


def _call_as_dict(call: LayerCalls, explanation: Explanation) -> dict[str, Any]:
    fields = asdict(explanation)
    del fields["device"]  # that of all calls
    fields["refused"] = [
        {"route": route, "reason": reason} for route, reason in explanation.refused
    ]
    layers = [{"name": name, "class": class_name} for name, class_name in call.layers]
    return {"layers": layers, "phase": call.problem.phase, **fields}


def print_explanations(
    title: str, calls: Sequence[LayerCalls], explanations: Sequence[Explanation]
) -> None:
    """A paragraph for each call."""
    console = console_of_stdout()
    console.print(Text(title, "bold"), soft_wrap=True)
    for call, explanation in zip(calls, explanations, strict=True):
        _print_call(console, call, explanation)
    if not calls:
        console.print("no attention calls: the model writes out its attention by hand, or has none")


def _print_call(console: Console, call: LayerCalls, explanation: Explanation) -> None:
    console.print()
    if call.layers:
        console.print(Text(_layers(call.layers), "bold"), soft_wrap=True)
    console.print(Text(str(call.problem), ""), soft_wrap=True)
    first, *rest = str(explanation).splitlines()
    ours = explanation.route not in ("native", "unfused")
    console.print(Text(f"  {first}", "green" if ours else ""), soft_wrap=True)
    for line in rest:
        console.print(Text(f"  {line}", "dim" if line.startswith("  not ") else ""), soft_wrap=True)


def _layers(layers: Sequence[tuple[str, str]]) -> str:
    """`3 layers: model.layers.0-2.self_attn (Attention)`."""
    names = [name for name, _ in layers]
    classes = dict.fromkeys(class_name for _, class_name in layers)
    count = f"{len(names)} layer{'s' if len(names) > 1 else ''}"
    return f"{count}: {shortened(names)} ({', '.join(classes)})"


def shortened(names: Sequence[str]) -> str:
    """Names that differ in one number, as one: `model.layers.0-2,5.self_attn`."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        found = re.search(r"\d+", name)
        pattern = re.sub(r"\d+", "\0", name, count=1)
        numbers.setdefault(pattern, []).extend([int(found[0])] if found else [])
    return ", ".join(pattern.replace("\0", _ranges(found)) for pattern, found in numbers.items())


def _ranges(numbers: Sequence[int]) -> str:
    """`0-2,5` of 0, 1, 2 and 5."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
