"""A script through standard input: the whole source comes back, rewritten or as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

import forked
from flash_codemods.argparse import argparse_script
from flash_integrate.cli.stdin import Piped, planned, undone
from flash_integrate.errors import FileError, UnreadableSource
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status

GUARD_BELOW_MODEL = (
    b"import model\n\nif __name__ == '__main__':\n    print(model.attention(64, 4))\n"
)


NOTEBOOKS = Path(__file__).parents[2] / "fixtures" / "notebooks"


def rewritten(data: bytes, name: str | None = None) -> tuple[bytes, Outcome]:
    outcome = planned(Piped(data, Path(name) if name else None))
    return (outcome.result if outcome.changes else data), outcome


def unchanged(data: bytes) -> bytes:
    return data


def crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def no_final_newline(data: bytes) -> bytes:
    return data.rstrip(b"\n")


@pytest.mark.parametrize("change", [unchanged, crlf, no_final_newline])
def test_it_is_rewritten_as_the_file_would_be(
    flash_integrate: Run, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    data = change(SCRIPT.encode())
    (tmp_path / "run.py").write_bytes(data)
    assert flash_integrate(tmp_path).returncode == 0
    result, decision = rewritten(data)
    assert result == (tmp_path / "run.py").read_bytes() != data
    assert (decision.status, decision.codemod) == (Status.CHANGED, "argparse-script")


def test_what_was_rewritten_comes_back_as_it_is() -> None:
    patched, _ = rewritten(SCRIPT.encode())
    again, decision = rewritten(patched)
    assert again == patched
    assert decision.status is Status.INTEGRATED


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", None, "no MLX"),
        (b"print('hello')\n", None, "no MLX"),
        (SCRIPT.encode(), "tests/run.py", "a test"),
        (
            b"import mlx.core as mx\nprint(mx.zeros(3))\n",
            None,
            "no attention is reached from it",
        ),
        (
            GUARD_BELOW_MODEL,
            None,
            "no MLX",
        ),  # it stands alone: its local imports are not looked for
    ],
)
def test_what_is_skipped_comes_back_as_it_is_with_the_reason(
    data: bytes, name: str | None, reason: str
) -> None:
    result, decision = rewritten(data, name)
    assert result == data
    assert (decision.status, decision.reason) == (Status.SKIPPED, reason)


@pytest.mark.parametrize(
    "data", [b"from mlx_lm import load\nx = = 1\n", b"from mlx_lm import load\nx = '\xe9'\n"]
)
def test_what_can_not_be_read_is_an_error_with_its_line(data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        rewritten(data)
    assert caught.value.line == 2


def filtered(*options: str, data: bytes = SCRIPT.encode()) -> subprocess.CompletedProcess[bytes]:
    """The command as a filter."""
    return forked.flash_integrate("-", *options, given=data)


def test_the_way_there_and_back() -> None:
    there = filtered()
    assert there.stdout == rewritten(SCRIPT.encode())[0] != SCRIPT.encode()
    assert filtered("--revert", data=there.stdout).stdout == SCRIPT.encode()
    assert filtered("--revert").stdout == SCRIPT.encode()  # of which nothing is to be taken out


def test_the_choice_of_codemods_is_heeded() -> None:
    assert filtered("--skip", "argparse-script").stdout.count(b"add_argument") == 1
    assert filtered("--only", "flat-script").stdout == SCRIPT.encode()
    unknown = filtered("--only", "nonsense")
    assert (unknown.returncode, b"no codemod is called 'nonsense'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("direction", [[], ["--revert"]])
def test_check_prints_nothing_and_tells_by_its_status(direction: list[str]) -> None:
    patched, _ = rewritten(SCRIPT.encode())
    results = [filtered("--check", *direction, data=data) for data in (SCRIPT.encode(), patched)]
    assert [result.stdout for result in results] == [b"", b""]
    assert [result.returncode for result in results] == ([0, 1] if direction else [1, 0])


@pytest.mark.parametrize(
    "options",
    [
        ["--json", "x.json"],
        ["-i"],
        ["--vendor"],
        ["--exclude", "x"],
        ["-v"],
        ["-j", "2"],
    ],
)
def test_options_that_have_no_meaning_for_it_are_refused(options: list[str]) -> None:
    result = filtered(*options)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"- (standard input) does not go with --" in result.stderr


def test_an_error_of_the_tools_own_is_reported_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def match(facts: object) -> None:
        raise KeyError("a table")

    monkeypatch.setattr(argparse_script, "match", match)
    with pytest.raises(
        FileError, match=r"please report this: KeyError: 'a table' \(test_stdin\.py:\d+\)"
    ):
        rewritten(SCRIPT.encode())


def test_a_revert_of_what_can_not_be_read_is_an_error_with_its_line() -> None:
    with pytest.raises(UnreadableSource) as caught:
        undone(Piped(b"import mlx_flash_runtime\nx = = 1\n"))
    assert caught.value.line == 2


# As by its path


def piped(data: bytes, *options: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return forked.flash_integrate("-", *options, given=data, cwd=cwd)


def test_with_its_name_it_is_that_file_with_the_modules_it_imports(
    flash_integrate: Run, repo: Path
) -> None:
    (repo / "use.py").write_bytes(GUARD_BELOW_MODEL)
    named = piped(GUARD_BELOW_MODEL, "--stdin-filename", "use.py", cwd=repo)
    assert b"use.py: changed: main-guard\n  use.py:4 -> model.py:3 -> nn.Multi" in named.stderr
    assert (repo / "use.py").read_bytes() == GUARD_BELOW_MODEL
    flash_integrate(repo / "use.py")
    assert named.stdout == (repo / "use.py").read_bytes()


def test_with_its_name_it_heeds_the_configuration_of_its_repo(repo: Path) -> None:
    (repo / "pyproject.toml").write_text('[tool.flash-integrate]\nexclude = ["run.py"]\n')
    result = piped(SCRIPT.encode(), "--stdin-filename", "run.py", cwd=repo)
    assert result.stdout == SCRIPT.encode()
    assert b"[tool.flash-integrate] excludes it" in result.stderr


def test_a_name_without_standard_input_is_refused(flash_integrate: Run, repo: Path) -> None:
    result = flash_integrate(".", "--stdin-filename", "run.py", cwd=repo)
    assert (result.returncode, b"goes with - (standard input) alone" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run.py", ["--dry-run"]),
        ("generate.ipynb", ["--check"]),
        ("generate.ipynb", ["--explain"]),
        ("no_attention.ipynb", ["--explain"]),
    ],
)
def test_what_is_said_and_shown_is_what_is_of_the_file(
    flash_integrate: Run, tmp_path: Path, name: str, options: list[str]
) -> None:
    data = SCRIPT.encode()
    if name.endswith(".ipynb"):
        [case] = NOTEBOOKS.glob(f"{Path(name).stem}.[bn]*.ipynb")
        data = case.read_bytes()
    (tmp_path / name).write_bytes(data)
    by_path = flash_integrate(name, *options, "--skip", "handwritten-attention", cwd=tmp_path)
    named = piped(data, "--stdin-filename", name, *options, cwd=tmp_path)
    assert (named.returncode, named.stdout) == (by_path.returncode, by_path.stdout)
    unnamed = piped(data, *options, cwd=tmp_path)
    stdin = "<stdin>.ipynb" if name.endswith(".ipynb") else "<stdin>"
    assert unnamed.returncode == by_path.returncode
    assert unnamed.stdout.decode().replace(stdin, name) == by_path.stdout.decode()


def test_a_revert_can_be_looked_at_first() -> None:
    patched, _ = rewritten(SCRIPT.encode())
    result = filtered("--revert", "--dry-run", data=patched)
    assert result.stdout.count(b"\n-") > 10
    assert b"would revert" in result.stderr


def test_attention_by_hand_is_said_to_be_left() -> None:
    result = filtered("--only", "handwritten-attention")
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"error: handwritten-attention does not go with -: " in result.stderr


def test_it_says_what_becomes_of_it_unless_it_is_told_not_to() -> None:
    assert filtered(data=b"print(1)\n").stderr == b"<stdin>: skipped: no MLX\n"
    assert filtered("--quiet").stderr == b""
