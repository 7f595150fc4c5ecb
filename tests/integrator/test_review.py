"""The review of a change hunk by hunk: what a person answers is what is written."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from conftest import SCRIPT, commit_all, git
from reviewing import FILLER, SPREAD, TWO_PARSERS, only, reviewed, scanned
from rich.console import Console

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.report.diff import unified_diff
from flash_integrate.report.text import hunks_of
from flash_integrate.review.dialogue import review


def test_hunks_hold_each_changed_line_once(tmp_path: Path) -> None:
    for text, count in ((SPREAD, 2), (TWO_PARSERS, 4), (SCRIPT, 1)):
        outcome = only(tmp_path, text)
        found = hunks_of(outcome)
        assert len(found) == count
        assert sorted(number for hunk in found for number in hunk.changed) == sorted(outcome.lines)


# The answers


def test_yes_to_everything_changes_nothing_of_the_plan(repo: Path) -> None:
    (repo / "spread.py").write_text(SPREAD)
    outcomes = scanned(repo)
    accepted, printed = reviewed(outcomes, "yyyy")
    assert list(accepted.values()) == outcomes
    assert "(1/1) insert these 2 hunks, which need each other [y,n,q,a,d,e,?]? " in printed


def test_each_hunk_is_shown_as_the_diff_shows_it(tmp_path: Path) -> None:
    outcome = only(tmp_path, SPREAD)
    _, printed = reviewed([outcome], "yyy")
    diff = b"".join(
        unified_diff("run.py", outcome.before, outcome.after, set(outcome.lines))
    ).decode()
    shown = [
        line for line in printed.splitlines() if line.startswith(("@@", "+", "-", "diff", " "))
    ]
    assert shown == diff.splitlines()


@pytest.mark.parametrize("answers", ["n", "d", "nnn", "dd"])
def test_no_leaves_the_file_as_it_is(tmp_path: Path, answers: str) -> None:
    outcome = only(tmp_path, SPREAD)
    # Two answers more than a file needs: they are not asked for.
    accepted, _ = reviewed([outcome], answers.ljust(3, "n"))
    assert accepted["run.py"] == Outcome(
        outcome.base, outcome.name, Status.SKIPPED, "declined in the review"
    )


def test_a_takes_the_rest_of_the_file_and_asks_for_the_next(repo: Path) -> None:
    (repo / "spread.py").write_text(SPREAD)
    (repo / "two.py").write_text(TWO_PARSERS)
    accepted, printed = reviewed(scanned(repo), "daa")
    assert accepted["run.py"].status is Status.SKIPPED
    assert accepted["spread.py"].status is accepted["two.py"].status is Status.CHANGED
    assert "(1/2)" in printed
    assert "(2/2)" not in printed


def test_q_leaves_this_and_everything_that_follows_and_keeps_what_came_before(repo: Path) -> None:
    (repo / "a.py").write_text(SCRIPT)
    (repo / "z.py").write_text(SCRIPT)
    accepted, _ = reviewed(scanned(repo), "yqyyyy")
    status = {
        name: (outcome.status, outcome.reason)
        for name, outcome in accepted.items()
        if name != "notes.py"
    }
    assert status["a.py"][0] is Status.CHANGED
    assert status["run.py"] == (Status.SKIPPED, "declined in the review")
    assert status["z.py"] == (Status.SKIPPED, "the review ended before it")


def test_the_end_of_the_answers_is_q(repo: Path) -> None:
    (repo / "z.py").write_text(SCRIPT)
    console = Console(file=io.StringIO())
    after = {
        outcome.name.as_posix(): outcome
        for outcome in review(scanned(repo), console, io.StringIO("y\n"))
    }
    assert after["run.py"].status is Status.CHANGED
    assert after["z.py"].status is Status.SKIPPED


def test_help_and_what_is_no_answer_ask_again(tmp_path: Path) -> None:
    accepted, printed = reviewed([only(tmp_path, SCRIPT)], "?xy")
    assert accepted["run.py"].status is Status.CHANGED
    assert printed.count("(1/1)") == 3
    assert printed.count("q - leave this hunk and everything that follows") == 2


def test_notes_and_what_to_look_at_are_shown_above_the_hunks(tmp_path: Path) -> None:
    written = "\ndef attend(q, k, v):\n    return mx.softmax(q @ k.T) @ v\n"
    outcome = only(tmp_path, SCRIPT.replace("\nif __name__", written + "\nif __name__"))
    _, printed = reviewed([outcome], "y")
    above = printed[: printed.index("@@")]
    assert "run.py:6: note: attention written by hand" in above
    assert outcome.review in above


@pytest.mark.parametrize("colours", [True, False])
def test_colours_follow_the_console(tmp_path: Path, colours: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=colours, no_color=not colours)
    review([only(tmp_path, SCRIPT)], console, io.StringIO("y\n"))
    assert ("\x1b[32m+" in console.file.getvalue()) is colours  # type: ignore[attr-defined]
    assert ("\x1b" in console.file.getvalue()) is colours  # type: ignore[attr-defined]


def test_j_and_k_put_a_decision_off(tmp_path: Path) -> None:
    outcome = only(tmp_path, TWO_PARSERS)
    accepted, printed = reviewed([outcome], "jky" + "n")
    questions = [line[:5] for line in printed.splitlines() if line.startswith("(")]
    assert questions == ["(1/2)", "(2/2)", "(1/2)", "(2/2)"]
    text = accepted["run.py"].after.decode()
    assert text.count("enable_flash_attention(not") == 1
    assert 'one.add_argument(\n        "--disable-flash-attention"' in text
    assert "[y,n,q,a,d,j,e,?]" in printed
    assert "[y,n,q,a,d,k,e,?]" in printed


NEAR = TWO_PARSERS
for name in ("first", "second"):
    for number in range(8):
        NEAR = NEAR.replace(f'    print("{name} {number}")\n', "")
NEAR = NEAR.replace(FILLER, "").replace("\n\n\n\n", "\n\n")


def test_s_splits_a_hunk_into_what_can_be_had_alone(tmp_path: Path) -> None:
    outcome = only(tmp_path, NEAR)
    whole, printed = reviewed([outcome], "y")
    assert "[y,n,q,a,d,s,e,?]" in printed
    assert whole["run.py"] == outcome
    accepted, printed = reviewed([outcome], "sny")
    assert "(2/2)" in printed
    text = accepted["run.py"].after.decode()
    assert 'two.add_argument(\n        "--disable-flash-attention"' in text
    assert text.count("enable_flash_attention(not") == 1
    [undone] = reverted_text(tmp_path, text)
    assert undone.after.decode() == NEAR


def reverted_text(folder: Path, text: str) -> list[Outcome]:
    (folder / "run.py").write_text(text)
    return scanned(folder, revert)


OWN_LINE = "a line of the file's own was edited or taken out"


def editing(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Makes a program the editor that does this to its `text`."""
    script = folder / "editor.sh"
    lines = ["import sys", "text = open(sys.argv[1]).read()", code]
    lines += ["open(sys.argv[1], 'w').write(text)"]
    (folder / "edit.py").write_text("\n".join(lines))
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/edit.py" "$1"\n')
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(script))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_e_has_the_lines_edited(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    newline: str,
) -> None:
    (tmp_path / "run.py").write_bytes(SPREAD.replace("\n", newline).encode())
    [outcome] = scanned(tmp_path)
    tools = tmp_path_factory.mktemp("tools")
    editing(monkeypatch, tools, "text = text.replace('use stock MLX attention', 'as it was')")
    accepted, _ = reviewed([outcome], "e")
    result = accepted["run.py"]
    expected = outcome.after.replace(b"use stock MLX attention", b"as it was")
    assert result.after == expected
    assert result.lines == outcome.lines
    assert result.notes == outcome.notes  # a help text of one's own is taken out again too


def test_an_edit_that_revert_does_not_know_is_noted(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path_factory.mktemp("tools")
    editing(monkeypatch, tools, "text = text.replace('+        pass', '+        print(1)')")
    accepted, _ = reviewed([only(tmp_path, SCRIPT)], "e")
    assert b"print(1)" in accepted["run.py"].after
    assert "--revert does not take out all of it" in accepted["run.py"].notes[-1].reason


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("text = text.replace('+        pass', '+        pass pass')", "would not be valid"),
        (
            "text = text.replace('parse_args()', 'parse_args')",
            OWN_LINE,
        ),
        ("text = text.replace(' if __name__', '#')", OWN_LINE),
    ],
)
def test_an_edit_that_can_not_be_used_is_asked_again(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    said: str,
) -> None:
    editing(monkeypatch, tmp_path_factory.mktemp("tools"), code)
    outcome = only(tmp_path, SCRIPT)
    accepted, printed = reviewed([outcome], "ey")
    assert "Not taken: " in printed
    assert said in printed
    assert accepted["run.py"] == outcome


# Through the command


def test_interactive_in_a_terminal(repo: Path) -> None:
    (repo / "z.py").write_text(SPREAD)
    before = (repo / "z.py").read_bytes()
    command = [*["-m", "flash_integrate", "--interactive", "--color", "never"], str(repo)]
    child = pexpect.spawn(
        sys.executable, command, encoding="utf-8", timeout=60, dimensions=(60, 200)
    )
    child.expect_exact("diff --git a/run.py b/run.py")
    child.expect_exact("(1/1) insert this hunk [y,n,q,a,d,e,?]? ")
    child.sendline("?")
    child.expect_exact("(1/1) insert this hunk [y,n,q,a,d,e,?]? ")
    child.sendline("y")
    child.expect_exact("(1/1) insert these 2 hunks, which need each other")
    child.sendline("q")
    child.expect_exact("1 changed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "enable_flash_attention" in (repo / "run.py").read_text()
    assert (repo / "z.py").read_bytes() == before


def test_interactive_through_a_pipe_makes_a_patch_with_dry_run(repo: Path) -> None:
    (repo / "z.py").write_text(SCRIPT)
    commit_all(repo)
    command = [sys.executable, "-m", "flash_integrate", "--interactive", "--dry-run", str(repo)]
    result = subprocess.run(command, input=b"n\ny\n", capture_output=True, check=True)
    assert result.stdout.count(b"diff --git") == 1
    assert b"+++ b/z.py" in result.stdout
    (repo.parent / "review.diff").write_bytes(result.stdout)
    git(repo, "apply", str(repo.parent / "review.diff"))
    assert (repo / "run.py").read_text() == SCRIPT
    assert "enable_flash_attention" in (repo / "z.py").read_text()


def test_nothing_is_written_when_the_review_is_interrupted(repo: Path) -> None:
    (repo / "z.py").write_text(SCRIPT)
    before = {path: path.read_bytes() for path in repo.glob("*.py")}
    command = ["-m", "flash_integrate", "--interactive", str(repo)]
    child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=60)
    child.expect_exact("this hunk")
    child.sendline("y")
    child.expect_exact("z.py")
    child.expect_exact("this hunk")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus != 0
    assert {path: path.read_bytes() for path in repo.glob("*.py")} == before


def test_git_is_asked_before_the_questions(repo: Path) -> None:
    commit_all(repo)
    (repo / "run.py").write_text(SCRIPT + "# work in progress\n")
    command = [sys.executable, "-m", "flash_integrate", "--interactive", str(repo)]
    result = subprocess.run(command, input=b"y\n", capture_output=True)
    assert result.returncode == 2
    assert b"not committed" in result.stderr
    assert b"this hunk" not in result.stderr


STARTS = """\
import multiprocessing

from mlx_lm import load

from worker import work


def main():
    load("warm")
    multiprocessing.Process(target=work).start()


if __name__ == "__main__":
    main()
"""
WORKER = """\
from mlx_lm import generate, load


def work():
    generate(*load("model"))
"""


@pytest.mark.parametrize(
    ("answers", "are_named"), [("yy", False), ("yn", True), ("nn", False), ("ny", False)]
)
def test_a_child_whose_call_is_declined_is_not_covered(
    tmp_path: Path, answers: str, are_named: bool
) -> None:
    """Where its parent turns the runtime on, in this run or since an earlier one."""
    (tmp_path / "start.py").write_text(STARTS)
    (tmp_path / "worker.py").write_text(WORKER)
    accepted, _ = reviewed(scanned(tmp_path), answers)
    found = [(item.line, item.reason) for item in accepted["start.py"].uncovered]
    assert found == ([(10, "its call in worker.py was declined")] if are_named else [])
    assert not accepted["worker.py"].uncovered
    if accepted["start.py"].changes:
        (tmp_path / "start.py").write_bytes(accepted["start.py"].after)
        again, _ = reviewed(scanned(tmp_path), "n")
        assert [item.reason for item in again["start.py"].uncovered] == [
            "its call in worker.py was declined"
        ]
