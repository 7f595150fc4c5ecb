"""What measurements print: on a terminal, however narrow, and into a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_flash_runtime.planning import calibration
from mlx_flash_runtime.planning.calibration import Measured
from mlx_flash_runtime.tools.bench import tables
from mlx_flash_runtime.tools.bench.columns import tables_of
from mlx_flash_runtime.tools.cli import printing

GRID = (
    "bench",
    "grid",
    "--length",
    "24,100",
    "--head-dim",
    "16",
    "--heads",
    "2",
    "--dtype",
    "float32,bfloat16",
)
GRID += ("--rounds", "3")
# The command with timed regions of a millisecond: no test asks how exact the times are.
COMMAND = (
    sys.executable,
    "-c",
    "from mlx_flash_runtime.tools.bench import grid; grid._REGION = 1e-3; "
    "from mlx_flash_runtime.tools.cli import main; main()",
)


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    """The lines that the command prints on a terminal so wide, without what styles them."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": str(columns)},
    ):
        os.close(theirs)
        read = b""
        try:
            while chunk := os.read(ours, 4096):
                read += chunk
        except OSError:  # Linux's word for the end
            pass
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode()).splitlines()


def test_columns_stand_below_their_headings_where_a_letter_is_written_as_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = [tables.text("name", "name"), tables.number("over", "× stock")]
    table = tables.make_table("", columns, [{"name": "1 ±2%", "over": 1}])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    [lines] = printing.parts_of(table, None)
    assert [line.plain.rstrip() for line in lines][::2] == ["name    x stock", "1 +-2%        1"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_wider_than_the_terminal_goes_on_below_with_every_number_whole(
    columns: int, tmp_path: Path
) -> None:
    path = tmp_path / "grid.json"
    lines = on_a_terminal(columns, *GRID, "--json", str(path))
    assert max(map(len, lines)) <= columns
    measured, summary = tables_of(tables.load(path))
    for table in (measured, summary):
        for column, heading in enumerate(table.headings):
            assert any(heading in line for line in lines)
            for row in table.cells:
                names = [row[i] for i in range(table.keys)]
                # In a line that starts as the row does.
                assert any(
                    line.split()[: len(names)] == names and row[column] in line for line in lines
                )


def test_rows_in_a_pipe_are_a_line_each_without_trailing_blanks(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    command = [*COMMAND, *GRID, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    for table in tables_of(tables.load(path)):
        for row in table.cells:
            assert any(all(cell in line for cell in row) for line in lines)


def test_what_was_tuned_is_a_few_lines_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(tmp_path / "calibration.json"))
    times = {
        "prefill": {"stock": 2.125, "blockwise": 1.0625},
        "training": {"stock": 4.5, "blockwise": 3.0},
    }
    calibration.save(
        {"cpu A CPU, prefill or training, float32, 2^6 queries": Measured("blockwise", 1.5, times)}
    )
    assert on_a_terminal(80, "tune", "--show") == [
        "cpu A CPU, prefill or training, float32, 2^6 queries",
        "  fastest: blockwise, 1.50 × MLX's own",
        "  prefill, ms: blockwise 1.0625, MLX's own 2.125",
        "  training, ms: blockwise 3, MLX's own 4.5",
        f"kept in {tmp_path}/calibration.json",
    ]
