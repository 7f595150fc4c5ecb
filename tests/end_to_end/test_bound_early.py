"""Repos that bind MLX's attention by name, or run a model while they are imported, before the
patch call is reached.

The runtime is the real one: its own report says how many attention calls it has routed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2] / "fixtures" / "mini_repos" / "early_binding"
LAYERS = 2
ASK_SERVER = "import server; print(server.app.test_client().get('/').text, end='')"


@pytest.fixture(scope="module")
def repos(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> tuple[Path, Path]:
    """The repo as it is, and patched by the command."""
    folder = tmp_path_factory.mktemp("early_binding")
    for name in ("before", "after"):
        shutil.copytree(REPO, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "flash_integrate", str(folder / "after")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return folder / "before", folder / "after"


def run(
    folder: Path, environment: dict[str, str], *command: str, report: Path | None = None
) -> str:
    env = environment if report is None else {**environment, "MLX_FLASH_REPORT": str(report)}
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (["generate.py", "--steps", "5"], 5 * LAYERS),
        (["at_import.py"], LAYERS),
        (
            ["-c", ASK_SERVER],
            2 * LAYERS,
        ),  # one answer at import, below the call, and one to the client
    ],
    ids=["generate", "at_import", "server"],
)
def test_the_calls_run_through_the_runtime(
    command: list[str],
    calls: int,
    repos: tuple[Path, Path],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    before, after = repos
    printed = run(after, environment, *command, report=tmp_path / "report.json")
    assert float(printed) == pytest.approx(float(run(before, environment, *command)), abs=2e-3)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["enabled"]
    assert report["calls"] == calls
    assert sum(report["routes"].values()) == calls


def test_the_flag_leaves_them_to_mlx(
    repos: tuple[Path, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    before, after = repos
    command = ["generate.py", "--disable-flash-attention"]
    printed = run(after, environment, *command, report=tmp_path / "report.json")
    assert float(printed) == pytest.approx(float(run(before, environment, "generate.py")), abs=2e-3)
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["enabled"]
    assert report["calls"] == 0
