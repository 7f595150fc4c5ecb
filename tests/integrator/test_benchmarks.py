"""The benchmarks that run flash-integrate on public repos, on one small repo."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import SCRIPT, commit_all, git

ROOT = Path(__file__).parents[2]
FORM = ROOT / "fixtures" / "codemods" / "handwritten-attention" / "causal_tril.before.py"


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    """A folder with a clone of `owner/tiny`: a script for the flags, and attention by hand."""
    repo = tmp_path / "clones" / "owner+tiny"
    repo.mkdir(parents=True)
    (repo / "run.py").write_text(SCRIPT)
    (repo / "attention.py").write_bytes(FORM.read_bytes())
    commit_all(repo)
    git(repo, "remote", "add", "origin", "https://github.com/owner/tiny")
    return repo.parent


def listing(clones: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of that name, with the small repo in the place of the listed ones."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark, repos = importlib.import_module(name), importlib.import_module("corpus_repos")
    commit = git(clones / "owner+tiny", "rev-parse", "HEAD").decode().strip()
    script = {"path": "run.py", "expect": "flags+patch", "also_ok": []}
    repo = repos.Repo("owner/tiny", commit, (script,))
    monkeypatch.setattr(benchmark, "listed_repos", lambda only: [repo])
    return benchmark


def test_a_script_ends_as_expected(
    clones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = listing(clones, "corpus", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["corpus.py", str(clones)])
    assert corpus.main() == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| owner/tiny | 1 of 1 | 2 | 1 |")


def test_a_change_that_changes_nothing(
    clones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ecosystem = listing(clones, "ecosystem", monkeypatch)
    path = clones.parent / "seen.json"
    options = ["--repos", str(clones), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["ecosystem.py", ".", ".", *options])
    assert ecosystem.main() == 0
    out = capsys.readouterr().out
    assert "=== 1 repos: working tree -> working tree" in out
    assert "=== owner/tiny" not in out
    seen = json.loads(path.read_text())["owner/tiny"]
    assert seen["old"]["diffs"] == seen["new"]["diffs"]
    assert seen["new"]["outcomes"]["run.py"] == "flags+patch"


def test_differences_of_diffs_are_printed_once_with_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ecosystem = importlib.import_module("ecosystem")
    old, new = [
        ecosystem.Seen(diffs={path: ["@@ -1 +1,2 @@", " a", line] for path in ("a.py", "b.py")})
        for line in ("+before", "+after")
    ]
    ecosystem.print_changes("owner/tiny", (old, new))
    *places, was, now = capsys.readouterr().out.split("\n", 2)[2].splitlines()
    assert [place.split()[1] for place in places[:2]] == ["a.py", "b.py"]
    assert (was.strip(), now.strip()) == ("-+before", "++after")


def test_attention_by_hand_is_rewritten_and_imported(clones: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "handwritten.py"), str(clones)]
    done = subprocess.run(
        [*command, "--importer", sys.executable, "--jobs", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 functions in 1 files of 1 of 1 repos: 1 proved" in done.stdout
    assert "1 files are rewritten, and compile; 1 were imported" in done.stdout
    assert "### owner/tiny at " in done.stdout
