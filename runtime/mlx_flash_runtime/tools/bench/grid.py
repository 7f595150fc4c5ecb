"""Attention by shape: by hand, MLX's own and ours, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx

from ... import stock
from ...control import flash_attention_enabled, mlx_is_known
from ...explanation import explain
from ...ops.written_out import attention
from ...planning.choice import stock_memory
from ...planning.machine import current_device
from ...problem import Problem
from ...settings import resolve
from ...stock.release import mlx_version
from .check import Attend, Check, error_budget, make_check, run_phase
from .inputs import Inputs, inputs_that_fit
from .machine import free_memory, is_out_of_memory
from .numbers import ratio, significant
from .problems import as_planned, words_of
from .routes_taken import in_words
from .timing import Timing, chained, peak_memory, side_by_side

CANDIDATES = ("plain", "stock", "ours")
GAIN = 1.15  # the speedup that the project's first claims counted from

# A timed region is at least so long, and one row takes about so long, in seconds.
_REGION, _ROW = 0.01, 20.0

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


def measure(problems: Iterable[Problem], rounds: int) -> Iterator[Row]:
    """One row per problem, as it is done. Ours is whatever the patch does, on the route that it
    plans.

    Raises FlashIsOff at once.
    """
    need_flash_attention()
    return _rows(problems, rounds)


def _rows(problems: Iterable[Problem], rounds: int) -> Iterator[Row]:
    with flash_attention_enabled():
        for problem in problems:
            yield measure_row(problem, rounds)
            mx.clear_cache()


def measure_row(problem: Problem, rounds: int) -> Row:
    """One problem. A candidate that does not fit into memory has no numbers, the others have
    theirs."""
    row: Row = {**words_of(problem), "routes": None, "calls": None, "rounds": None}
    for name in CANDIDATES:
        row |= {f"{name}_{key}": None for key in _NUMBERS} | {f"{name}_status": TOO_LARGE}
    try:
        inputs = inputs_that_fit(problem)
        check = make_check(problem, inputs)
        candidates = _that_fit(problem, inputs, check, row)
        if candidates:
            row |= _times(problem, candidates, rounds)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return row | speedups(row)


def _times(problem: Problem, candidates: dict[str, _Candidate], rounds: int) -> Row:
    """The numbers of the candidates, timed in turns, on which routes, and how often: calls and
    rounds."""
    chains = {name: one.chained for name, one in candidates.items()}
    measured = side_by_side(chains, region=_REGION, limit=_ROW, rounds=rounds)
    row: Row = {
        "routes": in_words(measured.taken),
        "calls": measured.calls,
        "rounds": measured.rounds,
    }
    for name, timing in measured.timings.items():
        row |= timed(problem, name, timing)
    return row


def speedups(row: Row) -> Row:
    """Ours over plain and over stock, from the times that the row shows."""
    return {
        "over_plain": ratio(row["plain_ms"], row["ours_ms"]),
        "over_stock": ratio(row["stock_ms"], row["ours_ms"]),
    }


_NUMBERS = ("ms", "low_ms", "high_ms", "tokens_per_s", "stability", "peak_mib", "error")


def timed(problem: Problem, name: str, timing: Timing) -> Row:
    """The numbers of one candidate. Rounded before anything is computed from them, so that a
    reader of the table gets the same speedup."""
    ms, low, high = (significant(1e3 * value) for value in (timing.median, *timing.quartiles))
    tokens = problem.batch * problem.query_length
    return {
        f"{name}_ms": ms,
        f"{name}_low_ms": low,
        f"{name}_high_ms": high,
        f"{name}_tokens_per_s": round(1e3 * tokens / ms),
        f"{name}_stability": round(1 - (high - low) / ms, 3),
    }


@dataclass(frozen=True)
class _Candidate:
    problem: Problem
    attend: Attend
    inputs: Inputs

    def run(self, cotangent: mx.array) -> list[mx.array]:
        return run_phase(self.problem, self.attend, self.inputs, cotangent)

    def chained(self, calls: int) -> Sequence[mx.array]:
        def run(q: mx.array) -> list[mx.array]:
            inputs = replace(self.inputs, q=q)
            return run_phase(self.problem, self.attend, inputs, inputs.cotangent)

        return chained(run, self.inputs.q, calls)


def _attends(inputs: Inputs) -> dict[str, Attend]:
    scale, mask, array = inputs.scale, inputs.mask, inputs.mask_array
    if array is not None:
        mx.eval(array)  # by hand it is made once, for all layers

    def plain(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return attention(q, k, v, scale=scale, mask=array)

    def stock_attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return stock.attention(q, k, v, scale=scale, mask=mask)

    def ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

    return {"plain": plain, "stock": stock_attention, "ours": ours}


def _that_fit(problem: Problem, inputs: Inputs, check: Check, row: Row) -> dict[str, _Candidate]:
    """The candidates that run, each after its check; fills in what is known of them so far."""
    candidates = {}
    for name, attend in _attends(inputs).items():
        candidate = _Candidate(problem, attend, inputs)
        try:
            # Not merely tried: with too large an allocation, MLX's CPU backend ends the process.
            if _needed(as_planned(problem), name) > free_memory():
                raise MemoryError
            row |= _checked(name, candidate, check)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            mx.clear_cache()
        else:
            candidates[name] = candidate
            row[f"{name}_status"] = OK
    if "ours" in candidates:
        budget = error_budget(problem, check, row["stock_error"])
        if not row["ours_error"] <= budget:  # NaN is not, either
            row["ours_status"] = WRONG
    return candidates


def _checked(name: str, candidate: _Candidate, check: Check) -> Row:
    """The error and the peak memory of a candidate."""
    results = candidate.run(check.cotangent)
    mx.eval(results)
    error = significant(check.error(results), 2)
    del results
    peak = peak_memory(partial(candidate.chained, 1))
    return {f"{name}_error": error, f"{name}_peak_mib": significant(peak / 2**20)}


def _needed(problem: Problem, name: str) -> int:
    """Predicted bytes at the peak, beyond the inputs; with gradients twice those of the forward
    pass, as each temporary has one."""
    if name == "plain":  # the scores and their softmax
        forward = 2 * problem.item_bytes * problem.score_count
    elif name == "stock":
        forward = stock_memory(problem, current_device())
    else:
        forward = explain(problem).extra_memory
    return 2 * forward if problem.training else forward


SUMMARY_KEYS = ("dtype", "phase", "mask", "heads", "kv_heads")


def summary(rows: list[Row]) -> list[Row]:
    """For each dtype, phase, mask and number of heads: what the speedups of its rows come to.
    Means are arithmetic; rows without both times do not count."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in SUMMARY_KEYS)
        groups.setdefault(key, []).append(row)
    summaries = []
    for key, group in groups.items():
        named = dict(zip(SUMMARY_KEYS, key, strict=True))
        summaries.append(named | _summary_of(group))
    return summaries


def _summary_of(rows: list[Row]) -> Row:
    plain_gains = _known(rows, "over_plain")
    stock_gains = _known(rows, "over_stock")
    stabilities = _known(rows, "ours_stability")
    return {
        "configurations": len(rows),
        "wrong": sum(row["ours_status"] == WRONG for row in rows),
        "mean_over_plain": _mean(plain_gains),
        "best_over_plain": max(plain_gains, default=None),
        "worst_over_plain": min(plain_gains, default=None),
        "gaining": sum(gain >= GAIN for gain in plain_gains),
        "mean_over_stock": _mean(stock_gains),
        "worst_over_stock": min(stock_gains, default=None),
        "peak_tokens_per_s": max(_known(rows, "ours_tokens_per_s"), default=None),
        "median_stability": round(statistics.median(stabilities), 3) if stabilities else None,
        "worst_stability": min(stabilities, default=None),
    }


def _known(rows: list[Row], key: str) -> list[float]:
    """The numbers that there are."""
    return [row[key] for row in rows if row[key] is not None]


def _mean(values: list[float]) -> float | None:
    return round(statistics.fmean(values), 2) if values else None
