"""What a run needs no more is held by nothing, and most of it does not wait for the garbage
collector."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

from flash_integrate.planning.run import EVERYTHING, integrate

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
    assert without_collector < 64, without_collector  # of some 240
    gc.collect()
    assert len(trees()) <= 1  # of the script that was looked at last
