"""What fits on a device, with the runtime and without it, and what would with other choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...problem import Device
from ...settings import resolve
from .fits import budget_of, largest
from .stand_ins import MlxRaises
from .steps import Generation, Need, NoSuchCache, Steps

_SHORTEST, _LARGEST_BATCH = 2048, 256
_LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0}  # mlx-lm's defaults
_LORA_LAYERS = 16


@dataclass(frozen=True)
class Row:
    """A length or a batch, and what it needs with the runtime and without it; None where MLX itself
    has an error."""

    size: int
    with_runtime: Need
    without: Need | None


@dataclass(frozen=True)
class Found:
    """What fits, in tokens or rows: the largest with and without the runtime, some sizes with their
    needs, and what the largest would be with other choices."""

    title: str
    unit: str
    budget: int
    limit: int | None
    largest_with: int
    largest_without: int
    error_without: str | None
    rows: tuple[Row, ...]
    advice: tuple[tuple[str, int], ...]


def of_generation(module: Any, device: Device, how: Generation, batch: int, limit: int) -> Found:
    """What fits of a text of up to `limit` tokens, `batch` at once. Raises as `Steps` does."""
    ours, own = (Steps(module, device, settings) for settings in (resolve(True, None), None))
    budget, step = budget_of(device), how.prefill_step_size

    def longest(steps: Steps, how: Generation) -> int:
        step = how.prefill_step_size
        return largest(lambda length: steps.generation(length, batch, how), budget, step, limit)

    with_runtime, without = longest(ours, how), longest(own, how)
    sizes = _doubled(max(step, _SHORTEST), limit)
    rows = [
        Row(size, ours.generation(size, batch, how), own.generation(size, batch, how))
        for size in sizes
    ]
    advice: list[tuple[str, int]] = []
    if with_runtime < limit:
        for words, other in _other_ways(how):
            try:
                advice.append((words, longest(ours, other)))
            except NoSuchCache:
                continue
    return Found(
        f"generating, {batch} at once" if batch > 1 else "generating",
        "tokens",
        budget,
        limit,
        with_runtime,
        without,
        None,
        tuple(rows),
        tuple((words, size) for words, size in advice if size > with_runtime),
    )


def _other_ways(how: Generation) -> list[tuple[str, Generation]]:
    """Options of mlx-lm that take less memory."""
    ways: list[tuple[str, Generation]] = []
    if how.kv_bits is None and how.max_kv_size is None:
        ways += [(f"--kv-bits {bits}", replace(how, kv_bits=bits)) for bits in (8, 4)]
    if how.prefill_step_size > 512:
        ways.append(("--prefill-step-size 512", replace(how, prefill_step_size=512)))
    if how.max_kv_size is None and how.kv_bits is None:
        ways.append(("--max-kv-size 8192", replace(how, max_kv_size=8192)))
    return ways


def of_training(module: Any, device: Device, kind: str, length: int) -> Found:
    """What fits of a batch of rows of `length` tokens, in training that is "lora" or "full".
    Raises as `Steps` does."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    if kind == "lora":
        module.freeze()
        linear_to_lora_layers(module, min(_LORA_LAYERS, len(module.layers)), _LORA)
    else:
        module.unfreeze()
    ours, own = (Steps(module, device, settings) for settings in (resolve(True, None), None))
    budget, error = budget_of(device), None

    def most(steps: Steps) -> int:
        return largest(lambda batch: steps.training(length, batch), budget, 1, _LARGEST_BATCH)

    try:
        without = most(own)
    except MlxRaises as raised:
        error, without = str(raised), 0
    with_runtime = most(ours)
    rows = [
        Row(size, ours.training(length, size), None if error else own.training(length, size))
        for size in (1, 2, 4, 8)
    ]
    advice: list[tuple[str, int]] = []
    if length > 512:
        shorter = length // 2
        found = largest(lambda batch: ours.training(shorter, batch), budget, 1, _LARGEST_BATCH)
        advice.append((f"rows of {shorter:,} tokens", found))
    return Found(
        f"training {kind} on rows of {length:,} tokens",
        "rows",
        budget,
        None,
        with_runtime,
        without,
        error,
        tuple(rows),
        tuple(advice),
    )


def _doubled(first: int, limit: int) -> list[int]:
    """`first`, twice as many, and so on up to `limit`."""
    sizes: list[int] = []
    size = first
    while size < limit and len(sizes) < 12:
        sizes.append(size)
        size *= 2
    return [*sizes, limit] if limit <= size else sizes
