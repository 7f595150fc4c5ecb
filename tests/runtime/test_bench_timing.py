"""What the numbers of a measurement mean."""

from __future__ import annotations

import gc
import statistics
from collections import Counter
from functools import partial
from itertools import pairwise, permutations

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_flash_runtime import stock
from mlx_flash_runtime.control import flash_attention_enabled
from mlx_flash_runtime.planning import layers
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.routes_taken import counting, in_words
from mlx_flash_runtime.tools.bench.timing import (
    Timing,
    calibrated,
    chained,
    interleaved,
    peak_memory,
    side_by_side,
    turns,
)


@given(st.lists(st.floats(1e-6, 10), min_size=2, max_size=30))
def test_median_quartiles_and_stability(seconds: list[float]) -> None:
    timing = Timing(tuple(seconds))
    low, high = timing.quartiles
    assert min(seconds) <= low <= timing.median <= high <= max(seconds)
    assert timing.median == statistics.median(seconds)
    assert timing.stability == pytest.approx(1 - (high - low) / timing.median)


def test_equal_rounds_are_perfectly_stable() -> None:
    assert Timing((0.2,) * 5).stability == 1


@pytest.mark.parametrize("names", ["ab", "abc", "abcdef"])
def test_each_candidate_runs_once_a_round_and_follows_every_other_one_alike(names: str) -> None:
    rounds = 60
    order = list(turns(list(names), rounds))
    count = len(names)
    assert all(
        set(order[start : start + count]) == set(names) for start in range(0, rounds * count, count)
    )
    # Across rounds too: nobody runs more often than others in the wake of a certain one.
    pairs = Counter(pairwise(order))
    often = rounds / (count - 1)
    assert all(abs(pairs[pair] - often) <= 2 for pair in permutations(names, 2))
    assert not any(pairs[name, name] for name in names)


def test_candidates_are_evaluated_and_counted_per_call() -> None:
    x = mx.random.normal((64, 64))
    runs = {"one": lambda: x @ x, "many": lambda: [x @ x for _ in range(4)]}
    calls, rounds = calibrated(runs, region=1e-3, limit=0.5, rounds=7)
    assert calls >= 1
    assert 3 <= rounds <= 7
    timings = interleaved(runs, 5, calls=2)
    assert all(len(timing.seconds) == len(timing.processor) == 5 for timing in timings.values())
    assert all(second > 0 for timing in timings.values() for second in timing.seconds)


def test_candidates_make_the_same_calls_and_the_timed_ones_of_ours_are_counted() -> None:
    q = mx.random.normal((1, 2, 16, 32))
    lengths: dict[str, list[int]] = {"ours": [], "stock": []}

    def chain(name: str, calls: int) -> object:
        lengths[name].append(calls)
        if name == "stock":
            return chained(lambda x: [stock.attention(x, q, q, scale=1.0)], q, calls)
        return chained(
            lambda x: [mx.fast.scaled_dot_product_attention(x, q, q, scale=1.0)], q, calls
        )

    with flash_attention_enabled():
        chains = {name: partial(chain, name) for name in lengths}
        measured = side_by_side(chains, region=1e-3, limit=0.2, rounds=5)
    assert lengths["ours"] == lengths["stock"]
    # One round to find out how many calls to make, one to warm up such a chain, and the timed ones.
    assert lengths["ours"][1:][-measured.rounds :] == [measured.calls] * measured.rounds
    assert sum(measured.taken.values()) == measured.calls * measured.rounds


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ({}, None),
        ({"native": 7}, "native"),
        ({"cuda_kernel": 128, "native": 1472}, "native 92%, cuda_kernel 8%"),
        ({"cuda_kernel": 1, "native": 999}, "native >99%, cuda_kernel <1%"),
    ],
)
def test_routes_are_shown_with_their_shares_of_the_calls(
    taken: dict[str, int], words: str | None
) -> None:
    assert in_words(taken) == words


def test_no_garbage_is_collected_while_candidates_are_timed() -> None:
    collecting: list[bool] = []

    def run() -> mx.array:
        collecting.append(gc.isenabled())
        return mx.zeros(1)

    gc.enable()  # flash-integrate, which other tests run in this process, leaves it off
    interleaved({"one": run}, 3)
    assert collecting == [False] * 3
    assert gc.isenabled()


def test_peak_memory_counts_what_a_call_needs_beyond_what_is_there() -> None:
    x = mx.zeros((1024, 1024))
    mx.eval(x)
    assert 4 * 2**20 <= peak_memory(lambda: x + 1) < 6 * 2**20
    assert peak_memory(lambda: x) == 0


@given(st.floats(1e-12, 1e12))
def test_significant_digits(value: float) -> None:
    assert significant(value) == float(f"{value:.3e}")


def test_a_ratio_needs_both_numbers() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, None) is None


def test_counting_routes_does_not_have_calls_look_for_their_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layers, "in_every_call", False)
    x = mx.zeros((1, 1, 16, 8))
    with flash_attention_enabled(), counting() as taken:
        for _ in range(3):
            mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)
    assert taken.total() == 3
    assert not layers.in_every_call
