"""`mlx-flash tune`: what it measures and what it decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from backends import cpu_only
from hypothesis import given
from hypothesis import strategies as st
from tuning import SMALL, here, route

from mlx_flash_runtime.planning import calibration
from mlx_flash_runtime.planning.calibration import STOCK
from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.bench import tune
from mlx_flash_runtime.tools.bench.timing import Timing

pytestmark = pytest.mark.usefixtures("calibration_file")

Seconds = Mapping[str, float | tuple[float, ...]]


ROUNDS = 5


def told(prefill: Seconds, training: Seconds | None = None) -> tune.Time:
    """A clock that says so many seconds of each candidate, first of prefill, then of training; a
    day of any other."""
    answers = iter([prefill, training or prefill])

    def time(runs: Mapping[str, Callable[[], Any]]) -> dict[str, Timing]:
        seconds = next(answers)
        assert set(seconds) <= set(runs)
        return {name: timing(seconds.get(name, 86400.0)) for name in runs}

    return time


def timing(seconds: float | tuple[float, ...]) -> Timing:
    return Timing(seconds if isinstance(seconds, tuple) else (seconds,) * ROUNDS)


def tuned(prefill: Seconds, training: Seconds | None = None) -> tune.Tuned:
    (found,) = tune.tune([SMALL], here(), told(prefill, training))
    if found.measured is not None:
        calibration.save({found.name: found.measured})
    return found


@cpu_only
@pytest.mark.parametrize(
    ("prefill", "training", "winner"),
    [
        ({"stock": 3.0, "blockwise": 2.0, "query_blocks": 1.0}, None, "query_blocks"),
        ({"stock": 3.0, "blockwise": 1.0, "query_blocks": 2.0}, None, "blockwise"),
        ({"stock": 1.0, "blockwise": 2.0, "query_blocks": 3.0}, None, "unfused"),
        ({"stock": 1.0, "blockwise": 0.98, "query_blocks": 3.0}, None, "unfused"),  # noise
        # Faster in the middle, but not in most rounds; and in every round, on a machine that slows
        # down meanwhile.
        (
            {"stock": (1.0, 2.0, 3.0, 2.0, 1.0), "blockwise": (1.5, 1.0, 1.0, 2.5, 1.2)},
            None,
            "unfused",
        ),
        (
            {"stock": (1.0, 2.0, 3.0, 4.0, 5.0), "blockwise": (0.9, 1.8, 2.7, 3.6, 4.5)},
            None,
            "blockwise",
        ),
        (
            {"stock": 3.0, "blockwise": 1.0, "query_blocks": 2.9},
            {"stock": 3.0, "blockwise": 3.5, "query_blocks": 2.5},
            "query_blocks",
        ),
        (
            {"stock": 3.0, "blockwise": 1.0, "query_blocks": 4.0},
            {"stock": 3.0, "blockwise": 3.5, "query_blocks": 1.0},
            "unfused",
        ),
    ],
)
def test_the_planner_takes_what_was_fastest_and_never_what_lost(
    prefill: Seconds, training: Seconds | None, winner: str
) -> None:
    longer = replace(SMALL, query_length=128, key_length=128)
    shipped = route(longer)
    tuned(prefill, training)
    chosen = choose(SMALL, here(), Settings(True))
    assert chosen.decision == (winner, "measured to be the fastest on this machine")
    for name, reason in chosen.refused:
        if name in ("blockwise", "query_blocks"):
            assert reason == "measured slower on this machine"
    assert route(replace(SMALL, training=True)) == winner
    assert route(replace(SMALL, query_length=127, key_length=127)) == winner  # the same class
    assert route(longer) == shipped  # another class
    assert route(SMALL, route="reference") == "reference"  # asked for by name


times = st.floats(0.01, 100, allow_nan=False)


ROUTES = ("stock", "lowered", "query_blocks", "blockwise")


def timings(rounds: int) -> st.SearchStrategy[list[dict[str, Timing]]]:
    """Of one or two phases, each candidate in so many rounds."""
    one = st.lists(times, min_size=rounds, max_size=rounds).map(
        lambda seconds: Timing(tuple(seconds))
    )
    return st.lists(st.fixed_dictionaries(dict.fromkeys(ROUTES, one)), min_size=1, max_size=2)


@given(st.integers(3, 7).flatmap(timings))
def test_whatever_wins_is_not_slower_than_stock_in_any_phase(
    phases: list[dict[str, Timing]],
) -> None:
    found = tune.fastest({str(number): of for number, of in enumerate(phases)})
    if found.route == STOCK:
        assert found.gain == 1
        return
    gains = [of[STOCK].median / of[found.route].median for of in phases]
    assert min(gains) > 1 + tune.NOISE
    assert found.gain == pytest.approx(min(gains), abs=0.01)


def test_where_stock_does_not_fit_the_fastest_of_the_others_wins() -> None:
    found = tune.fastest({"prefill": {"blockwise": timing(3.0), "query_blocks": timing(2.0)}})
    assert (found.route, found.gain) == ("query_blocks", None)


@cpu_only
def test_a_route_that_computes_something_wrong_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args: lambda call: right(*args)(call) * 1.01)
    found = tuned({"stock": 3.0, "query_blocks": 2.0})
    assert found.wrong == ("blockwise",)
    assert route(SMALL) == "query_blocks"


@cpu_only
@pytest.mark.parametrize(
    "problem",
    [
        replace(SMALL, mask="none", dtype="bfloat16"),
        replace(SMALL, mask="window", mask_shape=(64, 64), structure=Window(20)),
        replace(SMALL, mask="bool", mask_shape=(1, 4, 64, 64), dtype="float16"),
        replace(SMALL, mask="bool", mask_shape=(1, 64)),
        replace(SMALL, mask="additive", mask_shape=(64, 64)),
        replace(SMALL, value_head_dim=24, sinks=True, batch=2),
        replace(SMALL, query_length=1, mask="bool", mask_shape=(1, 1, 1, 64), sinks=True),
    ],
)
def test_every_kind_of_problem_passes_its_check(problem: Problem) -> None:
    def time(runs: Mapping[str, Callable[[], list[mx.array]]]) -> dict[str, Timing]:
        for run in runs.values():
            mx.eval(run())
        return {name: timing(1.0) for name in runs}

    (found,) = tune.tune(tune.distinct([problem], here()), here(), time)
    assert (found.wrong, found.too_large) == ((), ())
    assert found.measured is not None
    assert all({STOCK, "blockwise", "query_blocks"} <= set(of) for of in found.measured.ms.values())


def test_problems_that_cannot_be_measured_are_left_out() -> None:
    others = [
        replace(SMALL, softcap=30.0),
        replace(SMALL, query_length=10),
        replace(SMALL, mask="bool", mask_shape=(64, 1)),
        replace(SMALL, query_length=65, key_length=65),
    ]
    assert tune.distinct([SMALL, *others], here()) == [SMALL]


@cpu_only
def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(SMALL, query_length=2048, key_length=2048, mask="none")
    # MLX's own scores and their softmax take 128 MiB forward, those of 1,024 queries half of it.
    free = 100 * 2**20
    monkeypatch.setattr(tune, "free_memory", lambda: free)
    (found,) = tune.tune(
        [problem], here(), told({"query_blocks": 2.0, "blockwise": 1.0}, {"blockwise": 1.0})
    )
    assert found.too_large == ("query_blocks", "stock")
    assert found.measured is not None
    assert (found.measured.route, found.measured.gain) == ("blockwise", None)
