"""Generated argparse programs do after the rewrite what they did before it, and obey the two flags
if they got them.

`ARGPARSE_PROGRAMS=5000 pytest tests/integrator/test_argparse_programs.py` looks further than the
hundred programs of every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from argparse_places import (
    PLACES,
    Line,
    Parts,
    after_a_config_parser,
    after_one_of_its_name,
    beside_one_of_its_name,
    called_from_two_places,
    passed_on_at_once,
    under_a_walrus,
    under_if_and_else,
)
from argparse_programs import Layout, Program, programs
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from flash_integrate.cli.command_line import main
from forked import Runner

EXAMPLES = int(os.environ.get("ARGPARSE_PROGRAMS", "100"))
FLAGS = ["--disable-flash-attention", "--flash-block-size", "64"]
MLX_LM = """\
import sys


def load(model):
    print("loads", file=sys.stderr)
"""
RUNTIME = """\
import sys


def enable_flash_attention(enabled=True, block_size=None):
    print("enabled", enabled, block_size, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for the packages that a program imports, with the runtime and
    without it."""
    folder = tmp_path_factory.mktemp("programs")
    for name, runtime in [("with", RUNTIME), ("without", "raise ImportError\n")]:
        (folder / name).mkdir()
        (folder / name / "mlx_lm.py").write_text(MLX_LM)
        (folder / name / "mlx_flash_runtime.py").write_text(runtime)
    return folder


@given(program=programs())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="ARGPARSE_PROGRAMS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_patched_program_does_what_it_did(program: Program, runner: Runner, folder: Path) -> None:
    patched = integrated(folder, program.text)
    original = folder / "original.py"
    original.write_bytes(program.text.encode())
    has_flags = b"--flash-block-size" in patched.read_bytes()
    for argv in [[], *program.argvs]:
        before = runner.run(original, argv, folder / "without")
        if not argv:  # the runtime is missing whatever the arguments are
            without = runner.run(patched, argv, folder / "without")
            assert (without.code, without.stdout) == (before.code, before.stdout), without.stderr
        enabled = runner.run(patched, argv, folder / "with")
        assert (enabled.code, enabled.stdout) == (before.code, before.stdout), enabled.stderr
        if before.code == 0:
            assert_enabled_before_loading(enabled.stderr, "enabled True None")
            if has_flags:
                steered = runner.run(patched, [*FLAGS, *argv], folder / "with")
                assert (steered.code, steered.stdout) == (before.code, before.stdout), (
                    steered.stderr
                )
                assert_enabled_before_loading(steered.stderr, "enabled False 64")
    shown = runner.run(patched, ["--help"], folder / "without")
    assert shown.code == 0
    assert (
        "--disable-flash-attention" in shown.stdout and "--flash-block-size N" in shown.stdout
    ) == has_flags


FALL_BACK = {
    after_a_config_parser,
    after_one_of_its_name,
    beside_one_of_its_name,
    called_from_two_places,
    passed_on_at_once,
    under_a_walrus,
    under_if_and_else,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_program_gets_the_flags(place: Callable[[Parts], list[Line]], folder: Path) -> None:
    """In every place but those with several parsers, and those where the namespace has no name, or
    holds no choice of the user's."""
    build = ["parser = argparse.ArgumentParser()", 'parser.add_argument("--model")']
    parts = Parts(build, ["args = parser.parse_args()"], ["load(args.model)"])
    lines = [
        (0, "import argparse, asyncio, contextlib, sys"),
        (0, "from mlx_lm import load"),
        *place(parts),
    ]
    text = integrated(folder, Layout().render(lines)).read_text()
    assert ("--flash-block-size" in text) == (place not in FALL_BACK)


def integrated(folder: Path, text: str) -> Path:
    """Writes a program and runs the tool on it."""
    path = folder / "patched.py"
    path.write_bytes(text.encode())
    result = CliRunner().invoke(main, [str(path), "--force"])
    assert result.exit_code == 0, result.output
    assert b"enable_flash_attention" in path.read_bytes(), result.output
    return path


def assert_enabled_before_loading(stderr: str, expected: str) -> None:
    """Whether every call of the runtime was given the same, and the first came before the model
    was there."""
    events = [line for line in stderr.splitlines() if line.startswith(("enabled", "loads"))]
    assert events[0] == expected
    assert set(events) == {expected, "loads"}
