"""A small patched program, run as a process of its own on a machine where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENABLE = "from mlx_flash_runtime import enable_flash_attention\nenable_flash_attention()\n"
ATTEND = """\
import mlx.core as mx
x = mx.ones((1, 1, 4, 8))
mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0))
"""
DONE = "print('done')\n"
PROGRAM = ENABLE + ATTEND + DONE
# Bytes: a file without an end, read as a whole, ends the process rather than the machine.
MOST_MEMORY = 2 * 2**30


def environment(**variables: str | Path) -> dict[str, str]:
    """The environment of a program: what this process has, no settings of the runtime but those
    given, no build."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MLX_FLASH_")}
    return {
        **mine,
        "MLX_FLASH_BUILD": "0",
        **{name: str(value) for name, value in variables.items()},
    }


def run(
    program: str, folder: Path, *options: str, shell: str = 'exec "$@"', **variables: str | Path
) -> subprocess.CompletedProcess[str]:
    """Runs `program` in `folder` with these options of Python and variables; `shell` is the line
    that starts it, with its redirections. A program that hangs or takes all memory fails."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    command = [sys.executable, *options, str(path)]
    limit = f"ulimit -d {MOST_MEMORY // 1024}\n"
    return subprocess.run(
        ["bash", "-c", limit + shell, "bash", *command],
        env=environment(**variables),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
