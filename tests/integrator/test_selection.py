"""A part of a change is accepted if the file works with it, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from conftest import Run, commit_all, git
from reviewing import (
    FILLER,
    SPREAD,
    TWO_PARSERS,
    only,
    reviewed,
    scanned,
)

from flash_integrate.inserted.removal import inserted, without_lines
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.python.source import Source
from flash_integrate.report.diff import unified_diff
from flash_integrate.report.text import hunks_of
from flash_integrate.review.selection import select
from flash_integrate.review.units import units_of

NOTEBOOKS = Path(__file__).parents[2] / "fixtures" / "notebooks"


def test_hunks_that_need_each_other_are_one_question(tmp_path: Path) -> None:
    outcome = only(tmp_path, SPREAD)
    assert len(hunks_of(outcome)) == 2
    accepted, printed = reviewed([outcome], "y")
    assert printed.count("(1/1) insert these 2 hunks, which need each other") == 1
    assert accepted["run.py"] == outcome


@pytest.mark.parametrize(
    ("answers", "gained", "left"),
    [("yn", "one", "two"), ("ny", "two", "one"), ("na", "two", "one")],
)
def test_one_of_two_parsers_can_be_had_alone(
    tmp_path: Path, answers: str, gained: str, left: str
) -> None:
    outcome = only(tmp_path, TWO_PARSERS)
    accepted, _ = reviewed([outcome], answers)
    result = accepted["run.py"]
    assert result.status is Status.CHANGED
    text = result.after.decode()
    assert f'{gained}.add_argument(\n        "--disable-flash-attention"' in text
    assert f'{left}.add_argument(\n        "--disable-flash-attention"' not in text
    assert text.count("enable_flash_attention(not") == 1
    # The lines are counted in what is written, and `--revert` finds the same ones.
    assert inserted(Source(result.path, result.after)).lines == result.lines
    result.path.write_bytes(result.after)
    [undone] = scanned(tmp_path, revert)
    assert undone.after.decode() == TWO_PARSERS


@pytest.fixture
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an mlx_lm that answers at once, and a runtime that says that it was called."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "mlx_lm.py").write_text(
        "def load(model):\n    return model, 0\n\n\ndef generate(*parts):\n    return parts\n"
    )
    runtime = "def enable_flash_attention(enabled, block_size):\n    print('enabled', enabled)\n"
    (folder / "mlx_flash_runtime.py").write_text(runtime)
    return folder


def works(script: Path, packages: Path) -> bool:
    """Whether both commands run, and those with the flags, at least one, are those that call the
    runtime."""
    flags, calls = [], []
    for command, parser in (("first", "one"), ("second", "two")):
        result = subprocess.run(
            [sys.executable, script, command, "--model", "m"],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
        )
        if result.returncode:
            return False
        flags.append(
            f'{parser}.add_argument(\n        "--disable-flash-attention"' in script.read_text()
        )
        calls.append(b"enabled True" in result.stdout)
    return flags == calls and any(calls)


def test_exactly_those_selections_can_be_had_with_which_the_script_works(
    tmp_path: Path, packages: Path
) -> None:
    outcome = only(tmp_path, TWO_PARSERS)
    working = set()
    for chosen in (set(chosen) for size in range(1, 4) for chosen in combinations(range(4), size)):
        lines = frozenset[int]().union(*(hunks_of(outcome)[number].changed for number in chosen))
        (tmp_path / "run.py").write_bytes(
            without_lines(Source(outcome.path, outcome.after), set(outcome.lines - lines))
        )
        if works(tmp_path / "run.py", packages):
            working.add(lines)
            assert select(outcome, lines).after == (tmp_path / "run.py").read_bytes()
    assert {unit.part.lines for unit in units_of(outcome)} == working


def test_a_script_without_flags_is_had_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    text = f"from mlx_lm import load\n\n{FILLER}\nif __name__ == '__main__':\n    load('model')\n"
    outcome = only(tmp_path, text)
    assert list(reviewed([outcome], "y")[0].values()) == [outcome]
    assert reviewed([outcome], "n")[0]["run.py"].status is Status.SKIPPED


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_a_part_is_byte_for_byte_the_original_and_the_accepted_lines(
    tmp_path: Path, newline: str
) -> None:
    data = TWO_PARSERS.rstrip().replace("\n", newline).encode()
    (tmp_path / "run.py").write_bytes(data)
    [outcome] = scanned(tmp_path)
    accepted, _ = reviewed([outcome], "yn")
    result = accepted["run.py"]
    kept = [
        line
        for number, line in enumerate(Source(result.path, result.after).lines(), 1)
        if number not in result.lines
    ]
    assert b"".join(kept) == data


def test_a_notebook_is_had_as_a_whole_or_not_at_all(flash_integrate: Run, tmp_path: Path) -> None:
    for path in NOTEBOOKS.glob("*.before.ipynb"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    outcomes = scanned(tmp_path)
    # A cell that is one string.
    assert any(outcome.changes and not outcome.lines for outcome in outcomes)
    assert list(reviewed(outcomes, "y" * 9)[0].values()) == outcomes
    assert not any(outcome.changes for outcome in reviewed(outcomes, "n" * 9)[0].values())
    flash_integrate(tmp_path)
    undone = scanned(tmp_path, revert)
    assert list(reviewed(undone, "y" * 9)[0].values()) == undone


# A revert


def test_a_revert_is_reviewed_too_and_what_stays_must_work(
    flash_integrate: Run, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(TWO_PARSERS)
    flash_integrate(tmp_path)
    [outcome] = scanned(tmp_path, revert)
    accepted, printed = reviewed([outcome], "yn")
    assert "(1/2) take out these 2 hunks, which need each other" in printed
    result = accepted["run.py"]
    assert result.status is Status.REVERTED
    assert result.reason == f"{len(result.lines)} of {len(outcome.lines)} lines taken out"
    assert result.after.decode().count("enable_flash_attention(not") == 1
    shown = b"".join(
        unified_diff("run.py", result.before, result.after, set(result.lines), removes=True)
    )
    commit_all(tmp_path)
    (tmp_path.parent / "part.diff").write_bytes(shown)
    git(tmp_path, "apply", str(tmp_path.parent / "part.diff"))
    assert (tmp_path / "run.py").read_bytes() == result.after
