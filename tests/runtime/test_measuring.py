"""Measurements that are cut off, and what they leave."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("benchmarks")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the modules of that folder found."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_page_of_the_folder_names_every_script() -> None:
    folder = ROOT / "benchmarks"
    named = re.findall(r"`(\w+)`", (folder / "README.md").read_text(encoding="utf-8"))
    assert {path.stem for path in folder.glob("*.py")} <= set(named)


STUBBORN = """\
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
with open(sys.argv[2], "w") as file:
    json.dump({"machine": {}, "rows": [{"case": "one"}]}, file)
time.sleep(60)
"""


@pytest.mark.parametrize("hangs", [True, False])
def test_what_a_measurement_got_to_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    measuring = importlib.import_module("measuring")
    monkeypatch.setattr(measuring, "_LAST_WORDS", 0)
    program, path = tmp_path / "measure.py", tmp_path / "result.json"
    program.write_text(STUBBORN if hangs else STUBBORN.replace("sleep(60)", "sleep(0)"))

    one = measuring.Measuring(f"python {program}", path, {"commit": "abc"}, float("inf"))
    while hangs and not (path.exists() and path.read_text(encoding="utf-8")):
        time.sleep(0.05)
    if hangs:
        monkeypatch.setattr(one, "_end", 0.0)
    while not one.has_ended():
        time.sleep(0.05)
    assert one.close() is not hangs
    written = json.loads(path.read_text(encoding="utf-8"))
    said = {"complete": False} if hangs else {}
    assert written == {"machine": {"commit": "abc", **said}, "rows": [{"case": "one"}]}


def test_one_that_takes_too_long_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("measuring"), "_LAST_WORDS", 0)
    suite, suite_commands = map(importlib.import_module, ("suite", "suite_commands"))
    chosen = {}
    for name, seconds, allowed in (("slow", 60, 0.1), ("quick", 0, 60), ("another", 0, 60)):
        program = tmp_path / f"{name}.py"
        program.write_text(STUBBORN.replace("sleep(60)", f"sleep({seconds})"))
        chosen[name] = suite_commands.Measurement(f"python {program}", allowed)
    args = argparse.Namespace(
        seconds=float("inf"), gpus=2, into=tmp_path, machine="cpu", commit="a"
    )
    assert suite.measure(chosen, args) == ["slow"]
    assert json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))["machine"] == {
        "commit": "a",
        "code": {},
        "beside": 1,
    }
    assert (tmp_path / "another.json").exists()


def test_what_runs_alone_has_nothing_beside_it() -> None:
    suite, suite_commands = map(importlib.import_module, ("suite", "suite_commands"))
    kinds = suite_commands.SUITES["h200"]
    training, reply = kinds["workflow_full_h200"], kinds["workflow_chat_h200"]
    assert suite.may_start(reply, [])
    assert suite.may_start(training, [training])
    assert not suite.may_start(reply, [training])
    assert not suite.may_start(training, [reply])


def test_an_interrupted_table_has_rows_of_every_kind() -> None:
    spread = importlib.import_module("cuda_rows").spread
    assert sorted(spread(42)) == list(range(42))
    assert spread(42)[:4] == [0, 5, 10, 15]
