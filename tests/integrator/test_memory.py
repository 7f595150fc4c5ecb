"""What a run needs no more is held by nothing, and most of it does not wait for the garbage
collector."""

from __future__ import annotations

import ast
import gc
from pathlib import Path, PurePosixPath

import pytest

from flash_integrate.planning.run import EVERYTHING, integrate
from flash_integrate.project import workspace
from flash_integrate.project.imports import Project

CASES = Path(__file__).parents[2] / "fixtures" / "codemods"


def trees() -> list[ast.Module]:
    return [item for item in gc.get_objects() if isinstance(item, ast.Module)]


def test_a_tree_goes_with_its_file() -> None:
    gc.collect()
    gc.disable()
    try:
        outcomes = integrate([CASES], (), lambda files, stage: files, EVERYTHING, jobs=1)
        without_collector = len(trees())
    finally:
        gc.enable()
    assert sum(outcome.changes for outcome in outcomes) > 50
    assert without_collector < 64  # of some 240
    gc.collect()
    assert len(trees()) <= 1  # of the script that was looked at last


def test_the_files_asked_for_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (PurePosixPath(f"{name}.py") for name in ("one", "two", "three"))
    for name in (one, two, three):
        (tmp_path / name).write_text("import mlx.core\n")
    monkeypatch.setattr(workspace, "_KEPT", 2 * len("import mlx.core\n"))
    project = workspace.Workspace(Project(tmp_path, {}), lambda codemod: True)
    first, second = project.facts(one), project.facts(two)
    assert project.facts(one) is first
    project.facts(three)
    assert project.facts(one) is first
    assert project.facts(two) is not second
