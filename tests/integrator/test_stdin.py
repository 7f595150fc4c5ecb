"""A script through standard input: the whole source comes back, rewritten or as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_codemods.argparse import argparse_script
from flash_integrate.cli.stdin import revert_stdin, rewrite_stdin
from flash_integrate.errors import FileError, UnreadableSource
from flash_integrate.planning.plan import Status

GUARD_BELOW_MODEL = (
    b"import model\n\nif __name__ == '__main__':\n    print(model.attention(64, 4))\n"
)


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
    rewritten, decision = rewrite_stdin(data)
    assert rewritten == (tmp_path / "run.py").read_bytes() != data
    assert (decision.status, decision.codemod) == (Status.CHANGED, "argparse-script")


def test_what_was_rewritten_comes_back_as_it_is() -> None:
    rewritten, _ = rewrite_stdin(SCRIPT.encode())
    again, decision = rewrite_stdin(rewritten)
    assert again == rewritten
    assert decision.status is Status.INTEGRATED


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "<stdin>", "no MLX"),
        (b"print('hello')\n", "<stdin>", "no MLX"),
        (SCRIPT.encode(), "tests/run.py", "a test"),
        (
            b"import mlx.core as mx\nprint(mx.zeros(3))\n",
            "<stdin>",
            "no attention is reached from it",
        ),
        (
            GUARD_BELOW_MODEL,
            "<stdin>",
            "no MLX",
        ),  # it stands alone: its local imports are not looked for
    ],
)
def test_what_is_skipped_comes_back_as_it_is_with_the_reason(
    data: bytes, name: str, reason: str
) -> None:
    result, decision = rewrite_stdin(data, name)
    assert result == data
    assert (decision.status, decision.reason) == (Status.SKIPPED, reason)


@pytest.mark.parametrize(
    "data", [b"from mlx_lm import load\nx = = 1\n", b"from mlx_lm import load\nx = '\xe9'\n"]
)
def test_what_can_not_be_read_is_an_error_with_its_line(data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        rewrite_stdin(data)
    assert caught.value.line == 2


def filtered(*options: str, data: bytes = SCRIPT.encode()) -> subprocess.CompletedProcess[bytes]:
    """The command as a filter."""
    return subprocess.run(
        [sys.executable, "-m", "flash_integrate", "-", *options], input=data, capture_output=True
    )


def test_the_way_there_and_back() -> None:
    there = filtered()
    assert there.stdout == rewrite_stdin(SCRIPT.encode())[0] != SCRIPT.encode()
    assert filtered("--revert", data=there.stdout).stdout == SCRIPT.encode()
    assert filtered("--revert").stdout == SCRIPT.encode()  # of which nothing is to be taken out


def test_the_choice_of_codemods_is_heeded() -> None:
    assert filtered("--skip", "argparse-script").stdout.count(b"add_argument") == 1
    assert filtered("--only", "flat-script").stdout == SCRIPT.encode()
    unknown = filtered("--only", "nonsense")
    assert (unknown.returncode, b"no codemod is called 'nonsense'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("direction", [[], ["--revert"]])
def test_check_prints_nothing_and_tells_by_its_status(direction: list[str]) -> None:
    patched, _ = rewrite_stdin(SCRIPT.encode())
    results = [filtered("--check", *direction, data=data) for data in (SCRIPT.encode(), patched)]
    assert [result.stdout for result in results] == [b"", b""]
    assert [result.returncode for result in results] == ([0, 1] if direction else [1, 0])


@pytest.mark.parametrize(
    "options",
    [
        ["--json", "x.json"],
        ["-i"],
        ["--explain"],
        ["--dry-run"],
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
        rewrite_stdin(SCRIPT.encode())


def test_a_revert_of_what_can_not_be_read_is_an_error_with_its_line() -> None:
    with pytest.raises(UnreadableSource) as caught:
        revert_stdin(b"import mlx_flash_runtime\nx = = 1\n")
    assert caught.value.line == 2
