"""Whole workflows: MLX's own attention and ours in turns, and what there is to gain at all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from ...control import flash_attention_enabled
from ...planning.choice import stock_memory
from ...planning.machine import current_device
from ...problem import Problem
from .grid import OK, TOO_LARGE, WRONG, Row, need_flash_attention
from .machine import free_memory, is_out_of_memory
from .model_check import compared, is_wrong
from .models import Model
from .numbers import ratio, significant
from .routes_taken import counting, in_words
from .timing import Timing, no_collections, turns
from .variants import VARIANTS, attention
from .workloads import TRAINING, Run, Sizes, Work, adapt, prepare, tokens_of

_ROW = 20.0  # seconds that one row takes, about, beyond the first run of each variant


class _TooLarge(Exception):
    """A variant does not fit in memory."""

    def __init__(self, variant: str) -> None:
        self.variant = variant


def measure(
    make: Callable[[], Model],
    workflow: str,
    sizes: Sequence[Sizes],
    rounds: int,
    checkpoint: bool = False,
) -> Iterator[Row]:
    """One row of each sizes, as it is done, on the model that `make` makes (again, when it was lost
    for want of memory). Raises FlashIsOff at once."""
    need_flash_attention()
    return _rows(make, workflow, sizes, rounds, checkpoint)


def _rows(
    make: Callable[[], Model], workflow: str, sizes: Sequence[Sizes], rounds: int, checkpoint: bool
) -> Iterator[Row]:
    # All along: to patch and to unpatch for each run would take longer than some.
    with flash_attention_enabled():
        model = make()
        layer_type: Any = type(model.module.layers[0])
        call = layer_type.__call__
        adapt(model, workflow, checkpoint)
        try:
            for each in sizes:
                row = _empty_row(model, workflow, each, checkpoint)
                variants = []
                for one in VARIANTS:
                    if _needed(model, workflow, each, one, checkpoint) <= free_memory():
                        variants.append(one)
                numbers = _measured_if_they_fit(model, workflow, each, variants, rounds)
                while numbers is None:
                    if workflow in TRAINING:  # the step that failed took the weights with it
                        del model
                        mx.clear_cache()
                        model = make()
                        # The layers are checkpointed by their class.
                        adapt(model, workflow, checkpoint=False)
                    numbers = _measured_if_they_fit(model, workflow, each, variants, rounds)
                yield row | numbers
                mx.clear_cache()
        finally:
            layer_type.__call__ = call  # mlx-lm checkpoints by changing the class


def _empty_row(model: Model, workflow: str, sizes: Sizes, checkpoint: bool) -> Row:
    """What is said of every variant that has no numbers."""
    row: Row = {"workflow": workflow, "model": model.name, "dtype": model.dtype, **sizes._asdict()}
    if workflow not in ("chat", "batch"):
        row["new_tokens"] = None
    row |= {
        "batch": 1 if workflow == "chat" else sizes.batch,
        "checkpoint": checkpoint,
        "routes": None,
        "rounds": None,
    }
    for variant in VARIANTS:
        row |= {f"{variant}_{key}": None for key in _NUMBERS} | {f"{variant}_status": TOO_LARGE}
    return row


def _measured_if_they_fit(
    model: Model, workflow: str, sizes: Sizes, variants: list[str], rounds: int
) -> Row | None:
    """As `_measured`; None where a variant does not fit in memory, which is then no more in
    `variants`."""
    try:
        return _measured(model, workflow, sizes, variants, rounds)
    except _TooLarge as error:
        variants.remove(error.variant)
    mx.clear_cache()  # now that the error, which holds on to what was computed, is gone
    return None


def _measured(
    model: Model, workflow: str, sizes: Sizes, variants: Sequence[str], rounds: int
) -> Row:
    """The numbers of those variants, and how they compare; raises _TooLarge."""
    make = prepare(model, workflow, sizes)
    row: Row = {f"{variant}_status": OK for variant in variants}
    works, slowest = {}, 0.0
    for variant in variants:
        with _fitting(variant):
            works[variant], seconds = _warmed_up(make, variant, row)
            slowest += seconds
    if works:
        row["rounds"] = max(3, min(rounds, int(_ROW / slowest)))
        with counting() as taken:
            timed = _interleaved(works, row["rounds"])
        # A compiled step calls attention in Python only when it is compiled, before it is timed.
        row["routes"] = in_words(taken) or row.get("routes")
        for variant, runs in timed.items():
            row |= _numbers(variant, runs, tokens_of(workflow, sizes))
            row |= _after_first(variant, runs, sizes.new_tokens)
    speeds = {variant: row.get(f"{variant}_tokens_per_s") for variant in VARIANTS}
    row["over_stock"] = ratio(speeds["ours"], speeds["stock"])
    differences = compared(model, sizes.length)
    row |= _share(speeds) | differences
    return row | ({"ours_status": WRONG} if "ours" in variants and is_wrong(differences) else {})


@contextmanager
def _fitting(variant: str) -> Iterator[None]:
    """That variant's attention; raises _TooLarge where memory does not suffice."""
    with attention(variant):
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise _TooLarge(variant) from error


_NUMBERS = (
    "tokens_per_s",
    "low_tokens_per_s",
    "high_tokens_per_s",
    "stability",
    "first_token_ms",
    "later_tokens_per_s",
    "peak_mib",
)


def _warmed_up(make: Callable[[], Work], variant: str, row: Row) -> tuple[Work, float]:
    """The work after two runs (the first compiles), with the peak memory of the second and its
    seconds."""
    work = make()
    with counting() as taken:
        work()
    if variant == "ours":
        row["routes"] = in_words(taken)
    mx.clear_cache()
    mx.reset_peak_memory()
    seconds = work().seconds
    row[f"{variant}_peak_mib"] = significant(mx.get_peak_memory() / 2**20)
    return work, seconds


def _interleaved(works: dict[str, Work], rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {variant: [] for variant in works}
    for variant in turns(list(works), rounds):
        with _fitting(variant), no_collections():
            runs[variant].append(works[variant]())
    return runs


def _numbers(variant: str, runs: list[Run], tokens: int) -> Row:
    timing = Timing(tuple(run.seconds for run in runs))
    low, high = timing.quartiles
    return {
        f"{variant}_tokens_per_s": significant(tokens / timing.median),
        f"{variant}_low_tokens_per_s": significant(tokens / high),
        f"{variant}_high_tokens_per_s": significant(tokens / low),
        f"{variant}_stability": round(timing.stability, 3),
    }


def _after_first(variant: str, runs: list[Run], new_tokens: int) -> Row:
    """Milliseconds until the first token of a reply, and the speed of a reply's others; of other
    workflows nothing."""
    firsts, speeds = [], []
    for run in runs:
        if run.first_token is None:
            return {}
        firsts.append(1e3 * run.first_token)
        speeds.append((new_tokens - 1) / (run.seconds - run.first_token))
    return {
        f"{variant}_first_token_ms": significant(statistics.median(firsts)),
        f"{variant}_later_tokens_per_s": significant(statistics.median(speeds)),
    }


def _share(speeds: dict[str, float | None]) -> Row:
    """The share of the time that goes with attention, and the speedup if it took no time at all
    (Amdahl)."""
    stock, without = speeds["stock"], speeds["without"]
    if stock is None or without is None:
        return {"attention_share": None, "bound": None}
    return {
        "attention_share": round(max(0.0, 1 - stock / without), 3),
        "bound": round(max(1.0, without / stock), 2),
    }


def _needed(model: Model, workflow: str, sizes: Sizes, variant: str, checkpoint: bool) -> int:
    """Predicted bytes of the scores on the CPU, where a failed allocation would end the process; a
    GPU says so."""
    if current_device().backend != "cpu" or variant != "stock":
        return 0
    batch = 1 if workflow == "chat" else sizes.batch
    heads = (model.heads, model.kv_heads)
    lengths, dims = (sizes.length, sizes.length), (model.head_dim, model.head_dim)
    problem = Problem(batch, *heads, *lengths, *dims, dtype=model.dtype, mask="causal")
    forward = stock_memory(problem, current_device())
    if workflow not in TRAINING:
        return forward
    return 2 * forward if checkpoint else forward * model.layers
