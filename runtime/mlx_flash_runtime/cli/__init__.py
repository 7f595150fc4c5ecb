"""The command `mlx-flash`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command; without the packages of the extra `cli`, one line says what to install, exit status 2."""
    try:
        from .group import mlx_flash

        mlx_flash(prog_name="mlx-flash")
    except ModuleNotFoundError as error:  # of rich where a subcommand is loaded
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(
            f"mlx-flash needs {package}, which is not installed: pip install 'mlx-flash-runtime[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
