"""The command `mlx-flash tune`: its options, its words, what it keeps and forgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tuning import command, here

from mlx_flash_runtime.planning import calibration
from mlx_flash_runtime.planning.calibration import STOCK, class_of
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.tools.bench.models import config_of

pytestmark = pytest.mark.usefixtures("calibration_file")


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


def test_a_real_run_is_kept_shown_and_forgotten(calibration_file: Path) -> None:
    done = command(*TINY)
    assert done.exit_code == 0, done.output
    assert f"kept in {calibration_file}" in done.stdout
    kept = json.loads(calibration_file.read_text(encoding="utf-8"))["classes"]
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
    assert command("--forget").stdout == f"deleted {calibration_file}\n"
    assert not calibration_file.exists()
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
