"""Several paths in one run: what comes out does not depend on their order, and one configuration
holds for all."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.project.discover import discover

USES_PARENT = "from helpers import load\n\nload('model')\n"


def found(*paths: Path) -> set[tuple[Path, str]]:
    return {(item.base, item.name.as_posix()) for item in discover(paths)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("run.py", "lib/run.py", "lib/deep/run.py", "other/run.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SCRIPT)
    return tmp_path


def test_folders_of_which_one_holds_the_other_share_a_base_in_any_order(tree: Path) -> None:
    whole = {(tree, name) for name in ("run.py", "lib/run.py", "lib/deep/run.py", "other/run.py")}
    for paths in itertools.permutations([tree, tree / "lib", tree / "lib" / "deep" / "run.py"]):
        assert found(*paths) == whole
    apart = {(tree / "lib", "run.py"), (tree / "lib", "deep/run.py"), (tree / "other", "run.py")}
    assert found(tree / "lib", tree / "other") == found(tree / "other", tree / "lib") == apart


def test_a_checkout_within_a_folder_that_is_named_too(tree: Path) -> None:
    (tree / "lib" / ".git").mkdir()
    assert found(tree / "lib", tree) == found(tree, tree / "lib") == found(tree)
    assert (tree / "lib", "run.py") in found(tree / "lib")


def test_imports_are_followed_above_a_folder_in_any_order(
    flash_integrate: Run, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "helpers.py").write_text("from mlx_lm import load\n")
    (tmp_path / "lib" / "run.py").write_text(USES_PARENT)
    for paths in ([".", "lib"], ["lib", "."]):
        assert flash_integrate(*paths, "--check", cwd=tmp_path).returncode == 1


def test_paths_that_are_configured_by_different_files_are_refused(
    flash_integrate: Run, tree: Path
) -> None:
    for name in ("lib", "other"):
        (tree / name / "pyproject.toml").write_text(
            '[tool.flash-integrate]\nexclude = ["run.py"]\n'
        )
    result = flash_integrate("lib", "other", cwd=tree)
    assert result.returncode == 2
    assert b"these paths do not share one [tool.flash-integrate]" in result.stderr
    assert str(tree / "other" / "pyproject.toml") in result.stderr.decode()
    assert (tree / "lib" / "deep" / "run.py").read_text() == SCRIPT
    (tree / "pyproject.toml").write_text('[tool.flash-integrate]\nexclude = ["deep/"]\n')
    for name in ("lib", "other"):
        (tree / name / "pyproject.toml").unlink()
    flash_integrate("lib", "other", cwd=tree)
    changed = [path for path in sorted(tree.rglob("*.py")) if path.read_text() != SCRIPT]
    assert changed == [tree / "lib" / "run.py", tree / "other" / "run.py"]
