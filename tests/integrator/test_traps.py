"""Files that have broken tools of this kind: odd bytes, odd layouts, odd ways to start.

All stand in one repo, on which the command runs as a process: apply, check, revert. The files are
built from bytes, since git or an editor would spoil them.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Run

from forked import Runner

ARGPARSE = b"""\
import argparse

from mlx_lm import load


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    print(load(args.model))


if __name__ == "__main__":
    main()
"""
FLAT = b"""\
from mlx_lm import load

print(load("tiny"))
"""
GUARD = b"""\
if __name__ == "__main__":
    import mlx_lm

    print(mlx_lm.load("tiny"))
"""
# As in nanoGPT: settings are globals, and another file changes them from the command line.
CONFIGURED = b"""\
from mlx_lm import load

model = "tiny"
steps = 3
config_keys = [
    key
    for key, value in globals().items()
    if not key.startswith("_") and isinstance(value, (int, str))
]
exec(open("configurator.py").read())
config = {key: globals()[key] for key in config_keys}
print(load(model), config)
"""
CONFIGURATOR = b"""\
import sys

for argument in sys.argv[1:]:
    key, _, value = argument.removeprefix("--").partition("=")
    assert type(globals()[key])(value) is not None
    globals()[key] = type(globals()[key])(value)
"""
EXACT_COUNT = b"""\
import sys

from mlx_lm import load

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: exact_count.py MODEL")
    print(load(sys.argv[1]))
"""
CONDITIONAL_IMPORTS = b"""\
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
try:
    import mlx_lm
except ImportError:
    raise SystemExit("install mlx_lm")

print(mlx_lm.load("tiny"))
"""
ONLY_CONDITIONAL_IMPORTS = b"""\
try:
    import mlx_lm
except ImportError:
    raise SystemExit("install mlx_lm")

print(mlx_lm.load("tiny"))
"""
GUARD_ABOVE_IMPORTS = b"""\
if __name__ == "__main__":
    print("starting")

from mlx_lm import load

print(load("tiny"))
"""


@dataclass(frozen=True)
class Trap:
    """`reason` is why the tool leaves the file as it is; without one it is changed, and runs with
    `argv`."""

    data: bytes
    reason: str | None = None
    argv: tuple[str, ...] = ()


def mixed_newlines(data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"".join(
        line + (b"\r\n" if number % 3 == 0 else b"\n") for number, line in enumerate(lines[:-1])
    )


def below(data: bytes, *more: bytes) -> bytes:
    return data + b"".join(more) + b"\n"


SKIPPED = "no attention is reached from it"
TOO_DEEP = "nested too deeply to be parsed"
TRAPS = {
    "shebang": Trap(b"#!/usr/bin/env python\n" + FLAT),
    "future_after_comments": Trap(
        b"#!/usr/bin/env python\n# (c)\nfrom __future__ import annotations\n" + FLAT
    ),
    "future_on_a_shared_line": Trap(
        b'"""Doc."""; from __future__ import annotations; import sys\n' + FLAT
    ),
    "future_in_brackets": Trap(b"from __future__ import (\n    annotations,\n)\n" + FLAT),
    "cookie": Trap(b"# -*- coding: latin-1 -*-\n" + ARGPARSE.replace(b"tiny", b"caf\xe9")),
    "bom": Trap(codecs.BOM_UTF8 + ARGPARSE),
    "bom_before_the_first_statement": Trap(codecs.BOM_UTF8 + GUARD),
    "crlf": Trap(ARGPARSE.replace(b"\n", b"\r\n")),
    "cr": Trap(ARGPARSE.replace(b"\n", b"\r")),
    "mixed_newlines": Trap(mixed_newlines(ARGPARSE)),
    "tabs": Trap(ARGPARSE.replace(b"    ", b"\t")),
    "tabs_then_spaces": Trap(GUARD.replace(b"    print", b"    if True:\n    \tprint")),
    "form_feeds": Trap(
        ARGPARSE.replace(b"\n\n\n", b"\n\x0c\n\n").replace(b"    args", b"\x0c    args")
    ),
    "no_final_newline": Trap(FLAT.rstrip(b"\n")),
    "spaces_at_the_end": Trap(FLAT + b"    "),
    "empty": Trap(b"", "no MLX"),
    "comment_alone": Trap(b"# mlx", "a library module: nothing in it starts a program"),
    "semicolons": Trap(b"import sys; from mlx_lm import load\nprint(load('tiny')); print(2)\n"),
    "continued_import": Trap(b"from mlx_lm import load, \\\n    generate\nprint(load('tiny'))\n"),
    "star_import": Trap(b"from mlx_lm import *\n\nprint(load('tiny'))\n"),
    "two_guards": Trap(GUARD + b"\n\n" + GUARD.replace(b"tiny", b"large")),
    "guard_above_imports": Trap(GUARD_ABOVE_IMPORTS),
    "long": Trap(
        b"".join(b"def f%d(x):\n    return x\n\n\n" % number for number in range(1750)) + ARGPARSE
    ),
    "deep_brackets": Trap(below(ARGPARSE, b"x = ", b"(" * 150, b"1", b")" * 150)),
    "deeper_brackets": Trap(
        below(ARGPARSE, b"x = ", b"(" * 5000, b"1", b")" * 5000), "too many nested parentheses"
    ),
    "deep_blocks": Trap(
        below(ARGPARSE, *(b" " * n + b"if True:\n" for n in range(90)), b" " * 90 + b"pass")
    ),
    "sum": Trap(
        below(ARGPARSE, b"x = 1", b" + 1" * 900),
        "has an expression that is too deep for LibCST to print",
    ),
    "longer_sum": Trap(below(ARGPARSE, b"x = 1", b" + 1" * 20000), TOO_DEEP),
    "condition": Trap(below(ARGPARSE, b"if x == 1", b" + 1" * 20000, b": pass"), TOO_DEEP),
    "chained_calls": Trap(below(ARGPARSE, b"x = 'x'", b".strip()" * 5000), TOO_DEEP),
    "mlx_in_strings": Trap(b'"""from mlx_lm import load"""\nprint("mlx")\n', SKIPPED),
    "configured": Trap(CONFIGURED, argv=("--model=large", "--steps=5")),
    "configurator": Trap(CONFIGURATOR, "no MLX"),
    "exact_count": Trap(EXACT_COUNT, argv=("large",)),
    "conditional_imports": Trap(CONDITIONAL_IMPORTS),
    "only_conditional_imports": Trap(ONLY_CONDITIONAL_IMPORTS),
    "null_byte": Trap(FLAT + b"\x00", "source code string cannot contain null bytes"),
}
CHANGED = [name for name, trap in TRAPS.items() if trap.reason is None]


@dataclass(frozen=True)
class Repos:
    """The traps as they were, after the command, and after `--revert`; `reasons` says why, by
    file."""

    before: Path
    after: Path
    reverted: Path
    reasons: dict[str, str]


@pytest.fixture(scope="module")
def repos(flash_integrate: Run, tmp_path_factory: pytest.TempPathFactory) -> Repos:
    folder = tmp_path_factory.mktemp("traps")
    repos = Repos(folder / "before", folder / "after", folder / "reverted", {})
    write(repos.before, {name: trap.data for name, trap in TRAPS.items()})
    write(repos.after, contents(repos.before))
    (repos.after / "link.py").symlink_to("crlf.py")
    result = flash_integrate(repos.after, "--json", folder / "report.json")
    assert b"Traceback" not in result.stderr
    assert result.returncode == 2, result.stderr  # some can't be read
    files = json.loads((folder / "report.json").read_text())["files"]
    repos.reasons.update((entry["path"].removesuffix(".py"), entry["reason"]) for entry in files)
    assert (repos.after / "link.py").is_symlink()
    (repos.after / "link.py").unlink()
    write(repos.reverted, contents(repos.after))
    flash_integrate(repos.reverted, "--revert")
    for repo in (repos.before, repos.after):
        (repo / "mlx_lm.py").write_text(
            "def load(model):\n    return f'loaded {model}'\n\n\ngenerate = None\n"
        )
        (repo / "mlx_flash_runtime.py").write_text("raise ImportError\n")
    return repos


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / f"{name}.py").write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.py")}


@pytest.mark.parametrize("name", [name for name in TRAPS if name not in CHANGED])
def test_what_is_no_script_or_too_deep_is_left_as_it_is_with_a_reason(
    repos: Repos, name: str
) -> None:
    assert (repos.after / f"{name}.py").read_bytes() == TRAPS[name].data
    assert repos.reasons[name] == TRAPS[name].reason


@pytest.mark.parametrize("name", CHANGED)
def test_the_patched_file_does_what_it_did(repos: Repos, runner: Runner, name: str) -> None:
    before, after = repos.before / f"{name}.py", repos.after / f"{name}.py"
    assert b"enable_flash_attention" in after.read_bytes(), repos.reasons[name]
    for argv in ([], list(TRAPS[name].argv)):
        expected = runner.run(before, argv, repos.before)
        seen = runner.run(after, argv, repos.after)
        assert (seen.code, seen.stdout) == (expected.code, expected.stdout), seen.stderr
    assert expected.code == 0, expected.stderr


@pytest.mark.parametrize("name", CHANGED)
def test_revert_gives_back_every_byte(repos: Repos, name: str) -> None:
    assert (repos.reverted / f"{name}.py").read_bytes() == TRAPS[name].data


def test_a_second_run_finds_nothing_to_do(repos: Repos, flash_integrate: Run) -> None:
    again = flash_integrate(repos.after, "--dry-run")
    assert again.stdout == b""
    assert f"{len(CHANGED)} already integrated".encode() in again.stderr


def test_inserted_lines_end_and_begin_as_the_others(repos: Repos) -> None:
    after = {
        name: (repos.after / f"{name}.py").read_bytes()
        for name in ("crlf", "cr", "tabs", "bom", "cookie")
    }
    assert after["crlf"].count(b"\n") == after["crlf"].count(b"\r\n")
    assert b"\n" not in after["cr"]
    assert b"\n  " not in after["tabs"]
    assert after["bom"].count(codecs.BOM_UTF8) == 1
    assert after["bom"].startswith(codecs.BOM_UTF8)
    assert b"caf\xe9" in after["cookie"]
    assert (
        (repos.after / "bom_before_the_first_statement.py")
        .read_bytes()
        .startswith(codecs.BOM_UTF8 + b"if")
    )


@pytest.mark.parametrize("name", ["conditional_imports", "only_conditional_imports"])
def test_the_import_is_never_under_a_condition(repos: Repos, name: str) -> None:
    """It stands at column 0, in a `try` of its own."""
    text = (repos.after / f"{name}.py").read_text()
    assert "\n    from mlx_flash_runtime" in text
    assert ("\n" + text).count(
        "\ntry:\n    from mlx_flash_runtime import enable_flash_attention\nexcept"
    ) == 1


def test_both_guards_run_with_the_patch(repos: Repos) -> None:
    text = (repos.after / "two_guards.py").read_text()
    assert text.index("enable_flash_attention()") < text.index("tiny") < text.index("large")
