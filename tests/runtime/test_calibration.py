"""`mlx-flash tune`: what it measures, what it decides, what it keeps, and that the planner goes by
it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from backends import cpu_only
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mlx_flash_runtime import explain
from mlx_flash_runtime.planning import calibration
from mlx_flash_runtime.planning.calibration import STOCK, Measured, class_of
from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.bench import tune
from mlx_flash_runtime.tools.bench.models import config_of
from mlx_flash_runtime.tools.bench.timing import Timing
from mlx_flash_runtime.tools.cli.group import mlx_flash

MACHINE = Device("cpu", (0, 32, 4), 2**34, name="A CPU")
SMALL = Problem(1, 4, 2, 64, 64, 16, 16, mask="causal")

Seconds = Mapping[str, float | tuple[float, ...]]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache" / "calibration.json"
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(path))
    calibration._read_once.cache_clear()
    return path


ROUNDS = 5


def here() -> Device:
    """Asked in a test: before the first one, the CPU kernel may not be built yet."""
    return current_device()


def route(problem: Problem, device: Device | None = None, **settings: Any) -> str:
    return choose(problem, device or here(), Settings(True, **settings)).decision.route


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


def test_classes_differ_by_what_the_choice_depends_on() -> None:
    problems = [
        SMALL,
        replace(SMALL, dtype="float16"),
        replace(SMALL, head_dim=32),
        replace(SMALL, value_head_dim=32),
        replace(SMALL, key_heads=4),
        replace(SMALL, batch=2),
        replace(SMALL, mask="none"),
        replace(SMALL, mask="window", mask_shape=(64, 64), structure=Window(8)),
        replace(SMALL, mask="window", mask_shape=(64, 64), structure=Window(32)),
        replace(SMALL, mask="bool", mask_shape=(64, 64)),
        replace(SMALL, mask="bool", mask_shape=(1, 64)),
        replace(SMALL, sinks=True),
        replace(SMALL, query_length=1),
        replace(SMALL, key_length=128),
    ]
    devices = [
        MACHINE,
        replace(MACHINE, name="Another CPU"),
        replace(MACHINE, mlx=(0, 32, 5)),
        replace(MACHINE, tf32=False),
    ]
    names = [class_of(problem, device) for problem in problems for device in devices]
    assert len(set(names)) == len(names)
    decoded = replace(SMALL, query_length=1)
    assert class_of(decoded, MACHINE) == class_of(replace(decoded, mask="none"), MACHINE)
    # A CPU does not tell.
    assert class_of(replace(SMALL, training=True), MACHINE) == class_of(SMALL, MACHINE)


def test_what_was_measured_holds_for_that_device_alone() -> None:
    others = replace(MACHINE, name=""), replace(MACHINE, mlx=(0, 32, 3))
    shipped = [route(SMALL, device) for device in others]
    calibration.save({class_of(SMALL, MACHINE): Measured("query_blocks", 2.0)})
    assert route(SMALL, MACHINE) == "query_blocks"
    assert [route(SMALL, device) for device in others] == shipped != ["query_blocks"] * 2


def test_a_winner_that_does_not_hold_is_not_taken() -> None:
    long = replace(SMALL, query_length=2**16, key_length=2**16)
    shipped = [route(problem, MACHINE) for problem in (SMALL, long)]
    for name in ("forced", "gone", "native"):
        calibration.save({class_of(SMALL, MACHINE): Measured(name, 2.0)})
        assert route(SMALL, MACHINE) == shipped[0]
    calibration.save({class_of(long, MACHINE): Measured(STOCK, 1.0)})
    assert route(long, MACHINE) == shipped[1] != "unfused"  # MLX's own scores would not fit
    assert route(long, replace(MACHINE, memory=2**40)) == "unfused"


def test_plans_follow_what_was_measured_and_explain_says_so() -> None:
    q = mx.zeros((1, 4, 64, 16))
    k = mx.zeros((1, 2, 64, 16))
    calibration.save({class_of(SMALL, here()): Measured("query_blocks", 2.0)})
    assert Planner(Settings(True)).lookup(q, k, k, "causal", None).decision.route == "query_blocks"
    assert "measured to be the fastest" in str(explain(q, k, k, mask="causal"))


def test_saving_adds_and_replaces_in_one_step(file: Path) -> None:
    calibration.save(
        {"a": Measured("blockwise", 2.0, {"prefill": {"stock": 2.0, "blockwise": 1.0}})}
    )
    calibration.save({"b": Measured(STOCK, 1.0), "a": Measured("lowered", 3.0)})
    assert calibration.read() == {"a": Measured("lowered", 3.0), "b": Measured(STOCK, 1.0)}
    with pytest.raises(TypeError):
        calibration.save({"c": Measured("lowered", object())})  # type: ignore[arg-type]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert list(calibration.read()) == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 2, "classes": {}}',
        '{"format": 1, "classes": {"a": {}}}',
        '{"format": 1, "classes": {"a": {"route": "unfused", "gain": 1.0, "ms": 3}}}',
        '{"format": 1, "classes": {"a": {"route": "unfused", "gain": 1.0, '
        '"ms": {"decode": {"unfused": "q"}}}}}',
        '{"format": 1, "classes": {"a": {"route": "unfused", "gain": "q", "ms": {}}}}',
        "\x00",
        "null",
    ],
)
def test_a_broken_file_is_a_warning_and_the_shipped_rules(
    content: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [route(SMALL, MACHINE) for _ in range(3)] == [
            route(SMALL, replace(MACHINE, name=""))
        ] * 3
    assert len(caplog.records) == 1
    assert f"{file} is ignored, mlx-flash tune writes it anew" in caplog.text
    assert command("--show").stdout == f"nothing was measured yet: there is nothing in {file}\n"
    calibration.save({class_of(SMALL, MACHINE): Measured("blockwise", 2.0)})
    assert route(SMALL, MACHINE) == "blockwise"


def command(*arguments: object) -> Result:
    return CliRunner().invoke(mlx_flash, ["tune", *map(str, arguments)])


TINY = (
    "--heads",
    2,
    "--head-dim",
    16,
    "--length",
    64,
    "--phase",
    "prefill,decode",
    "--seconds",
    0.01,
)


def test_a_real_run_is_kept_shown_and_forgotten(file: Path) -> None:
    done = command(*TINY)
    assert done.exit_code == 0, done.output
    assert f"kept in {file}" in done.stdout
    kept = json.loads(file.read_text(encoding="utf-8"))["classes"]
    assert set(kept) == {
        class_of(Problem(1, 2, 2, queries, 64, 16, 16, mask="causal"), here())
        for queries in (1, 64)
    }
    for entry in kept.values():
        for times in entry["ms"].values():
            assert entry["route"] in times
            assert times[entry["route"]] <= times[STOCK]
    shown = command("--show")
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in kept)
    assert command("--forget").stdout == f"deleted {file}\n"
    assert not file.exists()
    assert command("--forget").stdout == "nothing was measured yet\n"
    assert command("--show").stdout.startswith("nothing was measured yet")


def test_shapes_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of("tiny", "window")), encoding="utf-8")
    done = command(
        "--model",
        tmp_path,
        "--length",
        100,
        "--phase",
        "prefill",
        "--seconds",
        0.01,
        "--dtype",
        "float32",
    )
    assert done.exit_code == 0, done.output
    assert len(calibration.read()) == 2
    assert "window of 64" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "nowhere"), 2, "error: nowhere: no such folder"),
        (("--model", ".", "--heads", 2), 2, "error: --heads: shapes are those of the model"),
        (("--mask", "diagonal"), 2, "error: diagonal is not a mask"),
        (("--heads", 4, "--kv-heads", 3), 2, "error: 3 key heads do not divide 4 query heads"),
        (("--seconds", 0), 2, "Usage"),
        (("--show", "--forget"), 2, "error: --forget: --show does nothing else"),
        (("--forget", "--heads", 2), 2, "error: --heads: --forget does nothing else"),
    ],
)
def test_bad_options_are_refused(arguments: tuple[object, ...], status: int, message: str) -> None:
    done = command(*arguments)
    assert done.exit_code == status
    assert done.stderr.startswith(message)


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(tmp_path / "file" / "calibration.json"))
    done = command(*TINY)
    assert done.exit_code == 1
    assert "cannot be written: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
