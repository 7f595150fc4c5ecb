"""Attention by shape: by hand, MLX's own and ours, side by side."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx

from ... import stock
from ...attention import explain
from ...control import flash_attention_enabled, mlx_is_known
from ...planning.choice import stock_memory
from ...planning.machine import current_device
from ...report import report
from ...settings import resolve
from ...stock.release import mlx_version
from .machine import free_memory, is_out_of_memory
from .numbers import ratio, significant
from .plain import Attend, Check, error_budget, make_check, plain, run_phase
from .problems import Configuration, Inputs, make_inputs, problem_of
from .timing import Timing, calibrated, chained, interleaved, peak_memory

CANDIDATES = ("plain", "stock", "ours")
GAIN = 1.15  # the speedup that the project's first claims counted from

# A timed region is at least so long, and one row takes about so long, in seconds.
_REGION, _ROW = 0.01, 20.0
# Temporaries as large as the scores: their softmax; in training also the gradients of both.
_SCORE_ARRAYS = {"prefill": 2, "decode": 2, "train": 4}

OK, WRONG, TOO_LARGE = "ok", "wrong", "out of memory"

Row = dict[str, Any]


class FlashIsOff(Exception):
    """There is nothing to compare: the patch cannot be put in place, for the reason that the
    message gives."""


def need_flash_attention() -> None:
    """Raises FlashIsOff where `MLX_FLASH_DISABLE` or this MLX forbids the patch."""
    if not resolve(True, None).enabled:
        raise FlashIsOff("flash attention is off here: MLX_FLASH_DISABLE is set")
    if not mlx_is_known():
        raise FlashIsOff(
            f"flash attention is off here: MLX {mlx_version()} is not a version this package knows"
        )


def measure(configurations: Iterable[Configuration], rounds: int) -> Iterator[Row]:
    """One row per configuration, as it is done. Ours is whatever the patch does, on the route that
    it plans.

    Raises FlashIsOff at once.
    """
    need_flash_attention()
    return _rows(configurations, rounds)


def _rows(configurations: Iterable[Configuration], rounds: int) -> Iterator[Row]:
    with flash_attention_enabled():
        for configuration in configurations:
            yield measure_row(configuration, rounds)
            mx.clear_cache()


def measure_row(c: Configuration, rounds: int) -> Row:
    """One configuration. A candidate that does not fit into memory has no numbers, the others have
    theirs."""
    row: Row = {**asdict(c), "route": None, "calls": None, "rounds": None}
    for name in CANDIDATES:
        row |= {f"{name}_{key}": None for key in _NUMBERS} | {f"{name}_status": TOO_LARGE}
    try:
        inputs = _inputs_that_fit(c)
        check = make_check(c, inputs)
        candidates = _that_fit(c, inputs, check, row)
        if candidates:
            calls, rounds = calibrated(
                {name: partial(one.chained, 1) for name, one in candidates.items()},
                region=_REGION,
                limit=_ROW,
                rounds=rounds,
            )
            runs = {name: partial(one.chained, calls) for name, one in candidates.items()}
            row |= {"calls": calls, "rounds": rounds}
            if (
                calls > 1
            ):  # the chain is new to the allocator and, on a GPU, to the graphs that MLX keeps
                interleaved(runs, 1)
            for name, timing in interleaved(runs, rounds, calls).items():
                row |= timed(c, name, timing)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return row | speedups(row)


def speedups(row: Row) -> Row:
    """Ours over plain and over stock, from the times that the row shows."""
    return {
        "over_plain": ratio(row["plain_ms"], row["ours_ms"]),
        "over_stock": ratio(row["stock_ms"], row["ours_ms"]),
    }


_NUMBERS = ("ms", "low_ms", "high_ms", "tokens_per_s", "stability", "peak_mib", "error")


def timed(c: Configuration, name: str, timing: Timing) -> Row:
    """The numbers of one candidate. Rounded before anything is computed from them, so that a
    reader of the table gets the same speedup."""
    ms, low, high = (significant(1e3 * value) for value in (timing.median, *timing.quartiles))
    return {
        f"{name}_ms": ms,
        f"{name}_low_ms": low,
        f"{name}_high_ms": high,
        f"{name}_tokens_per_s": round(1e3 * c.tokens / ms),
        f"{name}_stability": round(1 - (high - low) / ms, 3),
    }


@dataclass(frozen=True)
class _Candidate:
    configuration: Configuration
    attend: Attend
    inputs: Inputs

    def run(self, cotangent: mx.array) -> list[mx.array]:
        return run_phase(self.configuration, self.attend, self.inputs, cotangent)

    def chained(self, calls: int) -> Sequence[mx.array]:
        def run(q: mx.array) -> list[mx.array]:
            inputs = replace(self.inputs, q=q)
            return run_phase(self.configuration, self.attend, inputs, inputs.cotangent)

        return chained(run, self.inputs.q, calls)


def _attends(inputs: Inputs) -> dict[str, Attend]:
    scale, mask = inputs.scale, inputs.mask
    return {
        "plain": lambda q, k, v: plain(q, k, v, scale=scale, mask=inputs.mask_array),
        "stock": lambda q, k, v: stock.attention(q, k, v, scale=scale, mask=mask),
        "ours": lambda q, k, v: mx.fast.scaled_dot_product_attention(
            q, k, v, scale=scale, mask=mask
        ),
    }


def _inputs_that_fit(c: Configuration) -> Inputs:
    """Raises MemoryError where the inputs and the check, which holds the keys and values in
    float64, do not fit."""
    queries = c.batch * c.heads * c.query_length * c.head_dim
    keys = c.batch * c.kv_heads * c.length * c.head_dim
    masked = c.query_length * c.length if c.mask != "none" else 0
    # Random numbers are made in float32, before they are converted, two arrays at a time.
    if 4 * (4 * queries + 4 * keys + 2 * masked) + 8 * 6 * keys > free_memory():
        raise MemoryError
    return make_inputs(c)


def _that_fit(c: Configuration, inputs: Inputs, check: Check, row: Row) -> dict[str, _Candidate]:
    """The candidates that run, each after its check; fills in what is known of them so far."""
    candidates = {}
    for name, attend in _attends(inputs).items():
        candidate = _Candidate(c, attend, inputs)
        try:
            # Not merely tried: with too large an allocation, MLX's CPU backend ends the process.
            if _needed(c, name, inputs) > free_memory():
                raise MemoryError
            before = report()
            results = candidate.run(check.cotangent)
            mx.eval(results)
            if name == "ours":
                row["route"] = routes_between(before, report())
            row[f"{name}_error"] = significant(check.error(results), 2)
            del results
            row[f"{name}_peak_mib"] = significant(
                peak_memory(partial(candidate.chained, 1)) / 2**20
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            mx.clear_cache()
        else:
            candidates[name] = candidate
            row[f"{name}_status"] = OK
    if "ours" in candidates and not row["ours_error"] <= error_budget(c, check, row["stock_error"]):
        row["ours_status"] = WRONG
    return candidates


def _needed(c: Configuration, name: str, inputs: Inputs) -> int:
    """Predicted bytes at the peak, beyond the inputs."""
    problem = problem_of(c, inputs)
    arrays = _SCORE_ARRAYS[c.phase]
    if name == "plain":
        return arrays * problem.item_bytes * problem.score_count
    return (
        arrays
        // 2
        * (
            stock_memory(problem, current_device())
            if name == "stock"
            else explain(problem).extra_memory
        )
    )


def routes_between(before: Any, after: Any) -> str:
    """The routes of the calls between two reports, most used first, joined by `+`."""
    counts = Counter(after.as_dict()["routes"])
    counts.subtract(before.as_dict()["routes"])
    return "+".join(route for route, calls in counts.most_common() if calls > 0)


SUMMARY_KEYS = ("dtype", "phase", "mask", "heads", "kv_heads")


def summary(rows: list[Row]) -> list[Row]:
    """For each dtype, phase, mask and number of heads: what the speedups of its rows come to.
    Means are arithmetic; rows without both times do not count."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in SUMMARY_KEYS), []).append(row)
    return [
        {**dict(zip(SUMMARY_KEYS, key, strict=True)), **_summary_of(group)}
        for key, group in groups.items()
    ]


def _summary_of(rows: list[Row]) -> Row:
    plain_gains = [row["over_plain"] for row in rows if row["over_plain"] is not None]
    stock_gains = [row["over_stock"] for row in rows if row["over_stock"] is not None]
    stabilities = [row["ours_stability"] for row in rows if row["ours_stability"] is not None]
    most: Callable[[list[float]], float | None] = lambda values: max(values, default=None)  # noqa: E731
    return {
        "configurations": len(rows),
        "wrong": sum(row["ours_status"] == WRONG for row in rows),
        "mean_over_plain": _mean(plain_gains),
        "best_over_plain": most(plain_gains),
        "worst_over_plain": min(plain_gains, default=None),
        "gaining": sum(gain >= GAIN for gain in plain_gains),
        "mean_over_stock": _mean(stock_gains),
        "worst_over_stock": min(stock_gains, default=None),
        "peak_tokens_per_s": most(
            [row["ours_tokens_per_s"] for row in rows if row["ours_tokens_per_s"]]
        ),
        "median_stability": round(statistics.median(stabilities), 3) if stabilities else None,
        "worst_stability": min(stabilities, default=None),
    }


def _mean(values: list[float]) -> float | None:
    return round(statistics.fmean(values), 2) if values else None
