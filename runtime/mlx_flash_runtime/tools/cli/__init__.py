"""The command `mlx-flash`: a file a subcommand, each named in `group`, which imports it when it is
used.

`options`, `devices` and `errors` are the options that several of them share and what is wrong with
a command line; `outputs`, `printing` and `progress` where results go, and what is told meanwhile.
What a subcommand does is beside this folder: `bench/`, `memory/`, `doctor/`.
"""

from __future__ import annotations

import sys

from ...environment import loading
from .plain_text import print_in_any_encoding


def main() -> None:
    """Runs the command. Without the packages of the extra `cli`, or an MLX that can be loaded, one
    line says what to install, exit status 2; `mlx-flash doctor` needs no MLX."""
    print_in_any_encoding()
    try:
        from .group import mlx_flash

        mlx_flash(prog_name="mlx-flash")
    except ImportError as error:  # of rich and MLX where a subcommand is loaded
        package = (error.name or "").partition(".")[0]
        failure = loading.failure()
        if package in ("click", "rich"):
            install = "pip install 'mlx-flash-runtime[cli]'"
            message = f"mlx-flash needs {package}, which is not installed: {install}"
        elif failure is not None:
            message = f"error: {failure}; {loading.advice()}"
        else:
            raise
        print(message, file=sys.stderr)
        raise SystemExit(2) from None
