"""The summary on a terminal and in a pipe: lines that can be read, and cut, whatever the width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from conftest import SCRIPT, Run
from outcomes import run
from rich.console import Console

from flash_integrate.report.text import print_summary

NAME = "performance_utils/benchmark/mlx/a script of some length.py"
NOTED = (
    "import mlx.core as mx\n\n\n"
    "def attend(q):\n    return mx.softmax(q @ q.T) @ q\n\n\n"
    "print(attend(1))\n"
)


def summary(repo: Path, width: int) -> list[str]:
    outcomes = list(run(repo, {NAME: NOTED, "run.py": SCRIPT}).values())
    console = Console(file=io.StringIO(), width=width)
    print_summary(console, outcomes, dry_run=True, verbose=False)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 80, 115, 200])
def test_lines_fit_and_break_between_words_alone(tmp_path: Path, width: int) -> None:
    lines = summary(tmp_path, width)
    assert all(line == line.rstrip() for line in lines)
    assert sum(line.startswith(NAME) for line in lines) == 1
    assert all(len(line) <= width for line in lines if NAME not in line)
    words = " ".join(" ".join(lines).split())
    assert all(
        text in words
        for text in (
            "written by hand stays as it is:",
            "run.py:9 -> mlx_lm.generate",
            "1 would change",
        )
    )


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (200, f"{'run.py':<{len(NAME)}}  would change  argparse-script"),
        (120, f"{'run.py':<{len(NAME)}}  would change"),
        (80, "run.py: would change"),
    ],
)
def test_columns_are_left_out_where_they_do_not_fit(tmp_path: Path, width: int, row: str) -> None:
    assert row in summary(tmp_path, width)


def test_in_a_pipe_nothing_is_broken_or_filled_up(flash_integrate: Run, tmp_path: Path) -> None:
    name = "/".join(["folder"] * 40) + "/run.py"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(SCRIPT)
    lines = flash_integrate(tmp_path).stderr.decode().splitlines()
    chain = "mlx_lm.generate -> mlx_lm.models.base -> mx.fast.scaled_dot_product_attention"
    assert lines[1:3] == [f"{name}  changed  argparse-script", f"  {name}:9 -> {chain}"]
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("options", [[], ["--revert"]])
def test_what_is_no_python_is_called_so(
    flash_integrate: Run, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "README.md").write_text("It isn't. See mlx and mlx_flash_runtime.\n")
    (tmp_path / "chat").write_text(SCRIPT)
    result = flash_integrate("README.md", "chat", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count(b"not a Python file or a notebook") == 1
    assert ((tmp_path / "chat").read_text() == SCRIPT) == bool(options)
