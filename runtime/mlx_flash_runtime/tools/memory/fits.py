"""What fits in a device's memory, with the runtime and without it, and what would with other
choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mlx.core as mx

from ...problem import Device
from ...settings import resolve
from .in_place import MlxRaises
from .steps import Generation, Need, NoSuchCache, Steps

_GIB = 2**30
# Of a Mac's memory Metal recommends two thirds to programs, from 36 GiB on three quarters
# (`recommendedMaxWorkingSetSize`, as MLX prints it on such machines); beyond, macOS takes pages
# away, and MLX its buffers. On CUDA, and on the CPU, MLX's own default limit.
_METAL_SMALL, _METAL_LARGE, _LARGE_MAC = 2 / 3, 3 / 4, 36 * _GIB
_SHARES = {"cuda": 0.95, "cpu": 0.8}
_SHORTEST, LARGEST_BATCH = 2048, 256
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
class Fits:
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


def of_generation(module: Any, device: Device, how: Generation, batch: int, limit: int) -> Fits:
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
    return Fits(
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


def of_training(module: Any, device: Device, kind: str, length: int) -> Fits:
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
        return largest(lambda batch: steps.training(length, batch), budget, 1, LARGEST_BATCH)

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
        found = largest(lambda batch: ours.training(shorter, batch), budget, 1, LARGEST_BATCH)
        advice.append((f"rows of {shorter:,} tokens", found))
    return Fits(
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


def budget_of(device: Device) -> int:
    """Bytes that a program may have on the device before memory is scarce."""
    if device.backend == "metal":
        if device.here and mx.default_device().type == mx.DeviceType.gpu:
            size = mx.device_info().get("memory_size")
            if size == device.memory:
                return int(mx.device_info()["max_recommended_working_set_size"])
        return int(device.memory * (_METAL_LARGE if device.memory >= _LARGE_MAC else _METAL_SMALL))
    return int(device.memory * _SHARES[device.backend])


def largest(need_of: Callable[[int], Need], budget: int, step: int, limit: int) -> int:
    """The largest multiple of `step` up to `limit`, or `limit` itself, whose need is within
    `budget`; 0 where none is. A need grows with its size."""

    @cache
    def fits(steps: int) -> bool:
        return need_of(min(steps * step, limit)).total <= budget

    most = -(-limit // step)
    high = 1
    while high < most and fits(high):
        high *= 2
    high = min(high, most)
    if fits(high):
        return min(high * step, limit)
    low = high // 2 if high > 1 and fits(high // 2) else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * step
