"""What `mlx-flash tune` has measured: classes, the file, and that the planner goes by it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from tuning import MACHINE, SMALL, command, here, route

from mlx_flash_runtime import explain
from mlx_flash_runtime.planning import calibration
from mlx_flash_runtime.planning.calibration import STOCK, Measured, class_of
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.settings import Settings

pytestmark = pytest.mark.usefixtures("calibration_file")


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


def test_saving_adds_and_replaces_in_one_step(calibration_file: Path) -> None:
    calibration.save(
        {"a": Measured("blockwise", 2.0, {"prefill": {"stock": 2.0, "blockwise": 1.0}})}
    )
    calibration.save({"b": Measured(STOCK, 1.0), "a": Measured("lowered", 3.0)})
    assert calibration.read() == {"a": Measured("lowered", 3.0), "b": Measured(STOCK, 1.0)}
    with pytest.raises(TypeError):
        calibration.save({"c": Measured("lowered", object())})  # type: ignore[arg-type]
    assert [path.name for path in calibration_file.parent.iterdir()] == [calibration_file.name]
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
    content: str, calibration_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibration_file.parent.mkdir()
    calibration_file.write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [route(SMALL, MACHINE) for _ in range(3)] == [
            route(SMALL, replace(MACHINE, name=""))
        ] * 3
    assert len(caplog.records) == 1
    assert f"{calibration_file} is ignored, mlx-flash tune writes it anew" in caplog.text
    assert (
        command("--show").stdout
        == f"nothing was measured yet: there is nothing in {calibration_file}\n"
    )
    calibration.save({class_of(SMALL, MACHINE): Measured("blockwise", 2.0)})
    assert route(SMALL, MACHINE) == "blockwise"
