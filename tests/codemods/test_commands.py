"""Patched commands of click and typer as processes: the flags are shown, taken, checked, and reach
the runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CASES

MLX_LM = """\
def load(model):
    return model, None

def generate(model, tokenizer, prompt, **options):
    return f"{model} answers {prompt} {options}"
"""
# The program, the command that runs the model, and what it prints.
PROGRAMS = {
    "click_command/command": (["--model", "m"], "m answers hello {}"),
    "click_command/group": (["run"], "model answers hello {}"),
    "click_command/one_line": (["one-line", "hi"], "model answers hi {}"),
    "click_command/own_lines": (["own-lines"], "model answers hello {}"),
    "click_command/nothing": (["nothing"], "model answers hello {}"),
    "click_command/rest": (["rest"], "model answers hello {}"),
    "click_command/aligned": (["aligned", "--prompt", "hi"], "None answers hi {}"),
    "click_command/comma": (["comma", "--model", "m"], "m answers hello {}"),
    "click_command/commented": (["hi"], "model answers hi {}"),
    "typer_command/annotated": (["chat", "hi"], "None answers hi {}"),
    "typer_command/run": (["--prompt", "hi"], "model answers hi {}"),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the package that holds the models; beside it a runtime that can't be
    imported."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "mlx_lm.py").write_text(MLX_LM)
    (folder / "missing").mkdir()
    (folder / "missing" / "mlx_flash_runtime.py").write_text("raise ImportError")
    return folder


def run(name: str, *args: str, packages: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    """Runs a patched program; of `styles.after.py` each command counts as one."""
    folder, _, stem = name.partition("/")
    path = CASES / folder / f"{stem}.after.py"
    path = path if path.exists() else CASES / folder / "styles.after.py"
    command = [sys.executable, str(path), *args]
    if name == "click_command/group":  # it has no guard
        command = [
            sys.executable,
            "-c",
            f"import runpy; runpy.run_path({str(path)!r})['cli']()",
            *args,
        ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_patched_command_takes_the_flags(name: str, packages: Path) -> None:
    args, expected = PROGRAMS[name]
    default = run(name, *args, packages=(packages,))
    assert (default.returncode, default.stdout.strip()) == (0, expected), default.stderr
    assert "flash attention: on" in default.stderr
    blocks = run(name, *args, "--flash-block-size", "64", packages=(packages,))
    assert (blocks.returncode, blocks.stdout) == (0, default.stdout)
    assert "block size 64" in blocks.stderr
    off = run(name, *args, "--disable-flash-attention", packages=(packages,))
    assert (off.returncode, off.stdout, off.stderr) == (0, default.stdout, "")


@pytest.mark.parametrize(
    "name", ["click_command/command", "typer_command/annotated", "typer_command/run"]
)
def test_help_and_a_bad_block_size(name: str, packages: Path) -> None:
    args, expected = PROGRAMS[name]
    bad = run(name, *args, "--flash-block-size", "7", packages=(packages,))
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "7 is not a positive multiple of 8" in bad.stderr
    assert "Traceback" not in bad.stderr
    shown = run(name, *args, "--help", packages=(packages / "missing", packages))
    assert shown.returncode == 0, shown.stderr
    assert "--disable-flash-attention" in shown.stdout
    assert "--no-disable-flash-attention" not in shown.stdout
    assert "--flash-block-size" in shown.stdout
    # Without the runtime the flags are there, and do nothing.
    without = run(
        name, *args, "--flash-block-size", "64", packages=(packages / "missing", packages)
    )
    assert (without.returncode, without.stdout.strip(), without.stderr) == (0, expected, "")


EDITED = """\
import click
from mlx_lm import load


@click.command()
@click.option("--flash-block-size", metavar="N")
@click.option("--model")
@click.option("--disable-flash-attention", is_flag=True)
def chat(disable_flash_attention=False, model="tiny", flash_block_size=None, verbose=False):
    try:
        from mlx_flash_runtime import enable_flash_attention
    except ImportError:
        pass
    else:
        enable_flash_attention(
            not disable_flash_attention,
            block_size=flash_block_size,
        )
    print(load(model))
"""
REVERTED = """\
import click
from mlx_lm import load


@click.command()
@click.option("--model")
def chat(model="tiny", verbose=False):
    print(load(model))
"""


def test_revert_after_the_user_has_edited_the_command(tmp_path: Path) -> None:
    """What was moved and formatted goes all the same; a value that the user has made use of keeps
    the file as it is."""
    (tmp_path / "chat.py").write_text(EDITED)
    command = [sys.executable, "-m", "flash_integrate", str(tmp_path), "--revert"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "chat.py").read_text() == REVERTED
    used = EDITED.replace("print(load(model))", "print(load(model), flash_block_size)")
    (tmp_path / "chat.py").write_text(used)
    result = subprocess.run(command, capture_output=True, text=True)
    line = used.splitlines().index("    print(load(model), flash_block_size)") + 1
    assert (result.returncode, f"chat.py:{line}" in result.stderr) == (2, True)
    assert "flash_block_size is used here" in result.stderr
    assert (tmp_path / "chat.py").read_text() == used
