"""The repo that one stands in may hold modules of any name: none of them is taken for a part of
the tool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flash_integrate

SCRIPT = "from mlx_lm import load\n\nload('tiny')\n"
MODULES = [
    "click",
    "rich",
    "libcst",
    "pathspec",
    "ast",
    "json",
    "textwrap",
    "tomllib",
    "concurrent",
    "pickle",
    "random",
]
PLANTED = "raise SystemExit('the module of the repo was run')\n"
# As on a Mac, where Python does not fork.
IN_NEW_PROCESSES = """\
import multiprocessing
import sys

if __name__ == "__main__":
    from flash_integrate.cli import main

    multiprocessing.set_start_method("spawn")
    main([sys.argv[1], "-j", "2"])
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    top = tmp_path / "repo"
    top.mkdir()
    for name in MODULES:
        (top / f"{name}.py").write_text(PLANTED)
    (top / "run.py").write_text(SCRIPT)
    return top


def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("options", [[], ["-I"]])
def test_started_as_a_module(repo: Path, options: list[str]) -> None:
    assert "of the repo was run" in run("-c", "import click", cwd=repo).stderr
    result = run(*options, "-m", "flash_integrate", ".", "--markdown", "report.md", cwd=repo)
    assert result.returncode == 0, result.stderr
    assert "enable_flash_attention" in (repo / "run.py").read_text()


def test_the_processes_that_it_starts(repo: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text(IN_NEW_PROCESSES)
    result = run(start, repo, cwd=repo)
    assert result.returncode == 0, result.stderr
    assert "of the repo was run" not in result.stderr
    assert "enable_flash_attention" in (repo / "run.py").read_text()


def test_where_the_tool_itself_lies_it_finds_what_it_needs(tmp_path: Path) -> None:
    """As after `pip install --target`: whoever starts it there trusts that folder."""
    (tmp_path / "flash_integrate").symlink_to(Path(flash_integrate.__file__).parent)
    (tmp_path / "click.py").write_text(PLANTED)
    assert "of the repo was run" in run("-m", "flash_integrate", ".", cwd=tmp_path).stderr
