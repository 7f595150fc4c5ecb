"""Argparse scripts whose behaviour two more flags could change: each does after the rewrite what
it did before.

Where the flags would show, the script gets the call alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from argparse_cases import CASES
from outcomes import run

from forked import Runner

STAND_INS = {
    "mlx_lm.py": "def load(model=None):\n    return model\n",
    "options.py": "def add_options(parser):\n    parser.add_argument('--dim')\n",
    "mlx_flash_runtime.py": """\
import sys


def enable_flash_attention(enabled=True, block_size=None):
    print("enabled", enabled, block_size, file=sys.stderr)
""",
}
ON_SPELLING = ("abbreviations that argparse now refuses", "unknown arguments are left to others")
FLAGS = ["--disable-flash-attention", "--flash-block-size", "64"]


@pytest.mark.parametrize("name", CASES)
def test_a_patched_script_does_what_it_did(name: str, tmp_path: Path, runner: Runner) -> None:
    case = CASES[name]
    (tmp_path / "packages").mkdir()
    for module, text in STAND_INS.items():
        (tmp_path / "packages" / module).write_text(text)
    outcome = run(tmp_path / "repo", {"script.py": case.text})["script.py"]
    assert outcome.changes, outcome.reason
    assert ("--flash-block-size" in outcome.after.decode()) == (case.note is None)
    notes = [note.reason for note in outcome.notes if not note.reason.startswith(ON_SPELLING)]
    assert notes == ([] if case.note is None else [f"no flags: {case.note}"])
    before, after = tmp_path / "repo" / "script.py", tmp_path / "repo" / "patched.py"
    after.write_bytes(outcome.after)
    for argv in case.argvs:
        expected = runner.run(before, argv.split(), tmp_path / "packages")
        seen = runner.run(after, argv.split(), tmp_path / "packages")
        assert expected.code == 0, expected.stderr
        assert (seen.code, seen.stdout) == (0, expected.stdout), seen.stderr
        assert set(seen.stderr.splitlines()) == {"enabled True None"}
    if case.note is None:
        steered = runner.run(after, [*FLAGS, *case.argvs[0].split()], tmp_path / "packages")
        assert steered.code == 0, steered.stderr
        assert (
            steered.stdout
            == runner.run(before, case.argvs[0].split(), tmp_path / "packages").stdout
        )
        assert steered.stderr.splitlines() == ["enabled False 64"]


ABBREVIATED = """\
import argparse

from mlx_lm import load

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--model")
    args = parser.parse_args()
    load(args.model)
"""


def test_an_abbreviation_that_becomes_ambiguous_fails_and_is_named(
    tmp_path: Path, runner: Runner
) -> None:
    (tmp_path / "mlx_lm.py").write_text(STAND_INS["mlx_lm.py"])
    texts = {"run.sh": "# trains\npython script.py --m tiny --d here\n", "other.sh": "tool --d 1\n"}
    outcome = run(tmp_path / "repo", {"script.py": ABBREVIATED, **texts})["script.py"]
    assert [(note.reason, note.line) for note in outcome.notes] == [
        (
            "abbreviations that argparse now refuses as ambiguous: --d (of --data); "
            "used in run.sh:2",
            6,
        )
    ]
    patched = tmp_path / "repo" / "patched.py"
    patched.write_bytes(outcome.after)
    failed = runner.run(patched, ["--d", "here"], tmp_path)
    assert failed.code == 2
    assert "ambiguous option: --d could match --data, --disable-flash-attention" in failed.stderr
    assert runner.run(patched, ["--m", "tiny", "--da", "here"], tmp_path).code == 0


def test_of_many_uses_of_an_abbreviation_the_first_are_named_and_the_rest_counted(
    tmp_path: Path,
) -> None:
    lines = "python script.py --d here\n"
    texts = {"Makefile": lines, "run.sh": 2 * lines, ".github/workflows/ci.yml": 2 * lines}
    outcome = run(tmp_path / "repo", {"script.py": ABBREVIATED, **texts})["script.py"]
    (note,) = outcome.notes
    assert note.reason.endswith("; used in Makefile:1, run.sh:1, run.sh:2 and 2 more")


WITH_COMMANDS = """\
import argparse

from mlx_lm import load

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    serve = commands.add_parser("serve")
    cached = serve.add_argument_group("cache")
    serve.add_argument("--data")
    cached.add_argument("--disable-cache", action="store_true")
    args = parser.parse_args()
    load(args.data)
"""


def test_an_abbreviation_of_a_command_s_option_stays_one(tmp_path: Path, runner: Runner) -> None:
    (tmp_path / "mlx_lm.py").write_text(STAND_INS["mlx_lm.py"])
    outcome = run(tmp_path / "repo", {"script.py": WITH_COMMANDS})["script.py"]
    assert [note for note in outcome.notes if "ambiguous" in note.reason] == []
    patched = tmp_path / "repo" / "patched.py"
    patched.write_bytes(outcome.after)
    assert runner.run(patched, ["serve", "--da", "here", "--disable"], tmp_path).code == 0


HANDS_ON = """\
import argparse

from bot.chat import start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    args = parser.parse_args()
    start(args)


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [
        ("    return load(args.model, getattr(args, 'kind', None))\n", False),
        ("    return _start(args)\n\n\ndef _start(args):\n    return load(args.model)\n", False),
        ("    return load(vars(args))\n", True),
        ("    return load(**vars(args))\n", True),
        ("    return _start(args)\n\n\ndef _start(args):\n    return load(args)\n", True),
    ],
)
def test_a_function_of_another_file_that_reads_single_arguments_gets_them_as_they_are(
    body: str, is_whole: bool, tmp_path: Path
) -> None:
    chat = f"from mlx_lm import load\n\n\ndef start(args):\n{body}"
    files = {"bot/__init__.py": "from .chat import start\n", "bot/chat.py": chat}
    for imported in ("bot.chat", "bot"):
        script = HANDS_ON.replace("bot.chat", imported)
        outcome = run(tmp_path / imported, {**files, "script.py": script})["script.py"]
        assert (b"del vars(args)" in outcome.after) == is_whole
