"""The ten scripts after `flash-integrate`: the same results by default, disabled, in blocks and
without the runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import Outcome, run_plain
from scripts import HAND_WRITTEN, REPO, SCRIPTS, TEN, WITH_SPEED, Result, Script

from mlx_flash_runtime.tools.bench import agreement

Run = Callable[..., tuple[Outcome, Path]]
Unpatched = Callable[[Script], tuple[Outcome, Path, Result]]

LAYERS = {f"model.layers.{i}.self_attn" for i in range(3)}  # of both tiny models

every_script = pytest.mark.parametrize("script", TEN, ids=lambda script: script.name)
every_command = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


@pytest.fixture(scope="session")
def flash_integrate(environment: dict[str, str]) -> Callable[..., str]:
    """Run the command, which must succeed, and give what it printed."""

    def flash_integrate(*arguments: object) -> str:
        command = [sys.executable, "-m", "flash_integrate", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return flash_integrate


@pytest.fixture(scope="session")
def patched(flash_integrate: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repo with the codemods applied."""
    repo = copy_repo(tmp_path_factory.mktemp("patched"))
    flash_integrate(repo)
    return repo


def copy_repo(folder: Path) -> Path:
    return shutil.copytree(REPO, folder / "repo", ignore=shutil.ignore_patterns("__pycache__"))


def contents(repo: Path) -> dict[str, bytes]:
    """Every file of a folder and what is in it."""
    return {
        str(path.relative_to(repo)): path.read_bytes() for path in repo.rglob("*") if path.is_file()
    }


def assert_same_result(script: Script, outcome: Outcome, work: Path, unpatched: Unpatched) -> None:
    _, _, expected = unpatched(script)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    result = script.result(outcome, work)
    assert result.exact == expected.exact
    assert result.close == pytest.approx(expected.close, rel=1e-4)


def test_apply_twice_then_revert(flash_integrate: Callable[..., str], tmp_path: Path) -> None:
    repo = copy_repo(tmp_path)
    original = contents(repo)
    flash_integrate(repo)
    applied = contents(repo)
    assert {path for path in applied if applied[path] != original.get(path)} == {
        *(script.path for script in TEN),
        HAND_WRITTEN,
        ".flash-integrate/rewritten.json",
    }
    flash_integrate(repo)
    assert contents(repo) == applied
    flash_integrate(repo, "--revert")
    assert contents(repo) == original


@every_command
@pytest.mark.parametrize(
    ("options", "route"),
    [
        pytest.param((), None, id="default"),
        # Models this small are left to MLX unless another route is asked for.
        pytest.param(("--flash-block-size", "16"), "blockwise", id="blockwise"),
    ],
)
def test_enabled(
    run: Run,
    unpatched: Unpatched,
    patched: Path,
    tmp_path: Path,
    script: Script,
    options: tuple[str, ...],
    route: str | None,
) -> None:
    path = tmp_path / "report.json"
    env = {"MLX_FLASH_REPORT": str(path), "MLX_FLASH_ROUTE": route or ""}
    outcome, work = run(script, patched, options, env=env)
    assert_same_result(script, outcome, work, unpatched)
    assert len(flash_lines(outcome)) == 1

    report = json.loads(path.read_text())
    calls = {layer["name"]: layer["calls"] for layer in report["layers"]}
    assert all(calls.pop(layer) > 0 for layer in LAYERS)
    # What is left is attention outside of the model, such as through a name that was bound before
    # the patch.
    assert [name.split()[-1] for name in calls] == (
        [script.own_attention] if script.own_attention else []
    )
    if route:
        assert report["routes"][route] > 0
        assert report["block_size"] == 16
    elif script.drive is run_plain:
        assert_compared(script, outcome, work, unpatched)


def assert_compared(script: Script, outcome: Outcome, work: Path, unpatched: Unpatched) -> None:
    """What `mlx-flash compare` would find in what both versions have printed."""
    stock, stock_work, _ = unpatched(script)
    ours = outcome.stdout.replace(str(work), "work")
    found = agreement.compare([ours], [stock.stdout.replace(str(stock_work), "work")])
    assert found.agree, str(found)
    assert bool(agreement.speeds(ours + outcome.stderr)) == (script.name in WITH_SPEED)


@every_script
def test_disabled(run: Run, unpatched: Unpatched, patched: Path, script: Script) -> None:
    outcome, work = run(script, patched, ("--disable-flash-attention",))
    assert_same_result(script, outcome, work, unpatched)
    assert not flash_lines(outcome)


@every_script
def test_without_the_runtime(
    run: Run,
    unpatched: Unpatched,
    patched: Path,
    environment: dict[str, str],
    tmp_path: Path,
    script: Script,
) -> None:
    (tmp_path / "mlx_flash_runtime.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    outcome, work = run(script, patched, env={"PYTHONPATH": path})
    assert_same_result(script, outcome, work, unpatched)
    assert not flash_lines(outcome)


@every_script
def test_bad_block_size(run: Run, patched: Path, script: Script) -> None:
    outcome, _ = run(script, patched, ("--flash-block-size", "7"), drive=run_plain)
    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stderr
    last = outcome.stderr.splitlines()[-1]
    assert "--flash-block-size" in last
    assert "positive multiple of 8" in last


def flash_lines(outcome: Outcome) -> list[str]:
    """The lines that speak of flash attention: on stderr, or wherever the script has its log."""
    return [
        line for line in (outcome.stdout + outcome.stderr).splitlines() if "flash attention" in line
    ]
