"""`python -m mlx_flash_runtime`: programs that are not patched, run with flash attention."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = """\
import sys
import mlx.core as mx
import beside

print(__name__, sys.argv[1:], sys.argv[0] == __file__)
x = mx.ones((1, 1, 4, 8))
mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0))
beside.leave()
"""
BESIDE = "def leave():\n    raise SystemExit('enough')\n"


@pytest.fixture
def program(environment: dict[str, str], tmp_path: Path) -> Program:
    """Runs Python with some arguments, in a folder of its own."""

    def run(*arguments: object, **own: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command,
            env={**environment, **own},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_a_script_runs_as_by_python(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "beside.py").write_text(BESIDE)
    plain = program(folder / "script.py", "--flag", "-m", "x")
    ours = program(
        "-m", "mlx_flash_runtime", folder / "script.py", "--flag", "-m", "x", MLX_FLASH_REPORT="1"
    )
    assert ours.stdout == plain.stdout == "__main__ ['--flag', '-m', 'x'] True\n"
    assert ours.returncode == plain.returncode == 1
    assert plain.stderr == "enough\n"
    assert "1 attention layer, 1 call" in ours.stderr
    assert "enough" in ours.stderr.splitlines()


def test_commands_of_mlx_lm(program: Program, models: Path) -> None:
    generate = (
        "mlx_lm",
        "generate",
        "--model",
        models / "gemma",
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        8,
    )
    plain = program("-m", *generate)
    ours = program("-m", "mlx_flash_runtime", "-m", *generate, MLX_FLASH_REPORT="1")
    assert plain.returncode == ours.returncode == 0, ours.stderr
    text, *_ = ours.stdout.split("Prompt:")  # what follows says how fast it was
    assert text == plain.stdout.split("Prompt:")[0]
    assert "cpu_kernel" in ours.stderr


def test_comparing_a_program_that_is_not_patched(program: Program, models: Path) -> None:
    command = (sys.executable, "-m", "mlx_flash_runtime", "-m", "mlx_lm", "perplexity", "--help")
    done = program("-m", "mlx_flash_runtime.tools.cli", "compare", "--runs", 1, "--", *command)
    assert done.returncode == 0, done.stderr
    assert "the outputs agree" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, ""),
        ([], 2, "usage: python -m mlx_flash_runtime SCRIPT [ARGUMENTS]"),
        (["--fast", "x.py"], 2, "usage: python -m mlx_flash_runtime SCRIPT [ARGUMENTS]"),
        (["-m"], 2, "usage: python -m mlx_flash_runtime SCRIPT [ARGUMENTS]"),
        (["nope.py"], 2, "error: nope.py: no such file"),
        (["-m", "no_such.module"], 2, "error: no module named no_such.module"),
        (["-m", "no_such"], 2, "error: no module named no_such"),
    ],
)
def test_what_cannot_be_run(
    program: Program, arguments: list[str], status: int, words: str
) -> None:
    done = program("-m", "mlx_flash_runtime", *arguments)
    assert done.returncode == status
    assert done.stderr.partition("\n")[0] == words
    assert done.stdout.startswith("usage:" if status == 0 else "")
    assert "Traceback" not in done.stderr
