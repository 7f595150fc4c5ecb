"""Side-by-side timing: every candidate in one process, interleaved, with medians and quartiles."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from .routes_taken import counting

Candidates = Mapping[str, Callable[[], Any]]
Chains = Mapping[str, Callable[[int], Any]]

_MOST_CALLS = 256
_FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, one number per round; `processor` is the same of the process's
    processor time."""

    seconds: tuple[float, ...]
    processor: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile; both the value itself where there is only one."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def stability(self) -> float:
        """1 minus the interquartile range over the median: 1 where every round took the same
        time."""
        low, high = self.quartiles
        return 1 - (high - low) / self.median


def interleaved(candidates: Candidates, rounds: int, calls: int = 1) -> dict[str, Timing]:
    """Times each candidate once per round, in turns. A candidate makes `calls` calls and returns
    arrays, which are evaluated inside the timed region. Warming up is left to the caller."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    processor: dict[str, list[float]] = {name: [] for name in candidates}
    with no_collections():
        for name in turns(list(candidates), rounds):
            start, processor_start = time.perf_counter(), time.process_time()
            mx.eval(candidates[name]())
            mx.synchronize()
            seconds[name].append((time.perf_counter() - start) / calls)
            processor[name].append((time.process_time() - processor_start) / calls)
    return {name: Timing(tuple(seconds[name]), tuple(processor[name])) for name in candidates}


@contextmanager
def no_collections() -> Iterator[None]:
    """Python's garbage collector off, as `timeit` has it: one collection takes longer than many
    calls, and would count for whichever candidate it falls on."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Each name once per round, and each right after each other one as often as it gets: what runs
    finds the caches as the one before it left them, which must not be a certain one more often
    than others."""
    followed: Counter[tuple[str | None, str]] = Counter()
    last: str | None = None
    for _ in range(rounds):
        left = list(names)
        while left:
            name = min(left, key=lambda name: (name == last, followed[last, name]))
            left.remove(name)
            followed[last, name] += 1
            last = name
            yield name


def chained(
    run: Callable[[mx.array], Sequence[mx.array]], x: mx.array, calls: int
) -> Sequence[mx.array]:
    """The results of the last of so many calls of `run` on `x`, each of which waits for the one
    before, as a model's layers do. Nothing is evaluated yet."""
    results = run(x)
    for _ in range(calls - 1):
        (x,) = mx.depends([x], list(results))
        results = run(x)
    return results


def calibrated(
    candidates: Candidates, *, region: float, limit: float, rounds: int
) -> tuple[int, int]:
    """How many calls one timed region needs to last `region` seconds for the fastest candidate,
    and how many rounds, at most `rounds`, fit into `limit` seconds. The candidates have been
    warmed up."""
    fastest, total = math.inf, 0.0
    for run in candidates.values():
        start = time.perf_counter()
        mx.eval(run())
        mx.synchronize()
        seconds = time.perf_counter() - start
        fastest, total = min(fastest, seconds), total + seconds
    calls = max(1, min(_MOST_CALLS, math.ceil(region / fastest)))
    return calls, max(_FEWEST_ROUNDS, min(rounds, int(limit / (calls * total))))


@dataclass(frozen=True)
class SideBySide:
    """Candidates timed in turns: `calls` in each of their timed regions, and the attention calls of
    all of these by the route that they took."""

    calls: int
    timings: dict[str, Timing]
    taken: Mapping[str, int]

    @property
    def rounds(self) -> int:
        """Timed regions of each candidate."""
        return len(next(iter(self.timings.values())).seconds)


def side_by_side(chains: Chains, *, region: float, limit: float, rounds: int) -> SideBySide:
    """Times candidates that have been warmed up, each a function of how many calls to make. All
    make the same number in a timed region, so that what a region costs by itself falls on all of
    them alike; how many, and how many rounds, as `calibrated` says."""
    single = {name: partial(chain, 1) for name, chain in chains.items()}
    calls, rounds = calibrated(single, region=region, limit=limit, rounds=rounds)
    runs = {name: partial(chain, calls) for name, chain in chains.items()}
    if calls > 1:
        # The chain is new to the allocator and, on a GPU, to the graphs that MLX keeps.
        interleaved(runs, 1)
    with counting() as taken:
        timings = interleaved(runs, rounds, calls)
    return SideBySide(calls, timings, taken)


def peak_memory(run: Callable[[], Any]) -> int:
    """Bytes that one call needs at its peak, beyond what was allocated before it: outputs and
    temporaries."""
    mx.synchronize()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(run())
    mx.synchronize()
    return max(0, mx.get_peak_memory() - before)
