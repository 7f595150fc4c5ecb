"""What a run needs no more is held by nothing: the garbage collector can take it."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.run import EVERYTHING, integrate
from flash_integrate.project.workspace import _KEPT

CASES = Path(__file__).parents[2] / "fixtures" / "codemods"


def run() -> list[Outcome]:
    return integrate([CASES], (), lambda files, stage: files, EVERYTHING, jobs=1)


def test_no_tree_outlives_its_file() -> None:
    outcomes = run()
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, ast.Module)]
    assert sum(outcome.changes for outcome in outcomes) > 50
    assert len(alive) <= 1  # of the script that was looked at last


def test_a_tree_goes_with_its_file_and_does_not_wait_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        run()
        alive = [item for item in gc.get_objects() if isinstance(item, ast.Module)]
    finally:
        gc.enable()
    assert len(alive) < 2 * _KEPT  # of some 240
