"""Runs a program that is not patched, such as one of mlx-lm's own commands, with flash attention:
see `USAGE`."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from .control import enable_flash_attention
from .environment.log import say

USAGE = """\
usage: python -m mlx_flash_runtime SCRIPT [ARGUMENTS]
       python -m mlx_flash_runtime -m MODULE [ARGUMENTS]

Runs a script or a module as python does, with flash attention, and changes no file:

  python -m mlx_flash_runtime train.py --model ./model
  python -m mlx_flash_runtime -m mlx_lm generate --model ./model --prompt "hello"

MLX_FLASH_REPORT=1 says at the end what ran where; MLX_FLASH_DISABLE=1 leaves MLX's own attention in place. Processes
that the program starts anew do not inherit the patch."""


def main() -> None:
    """Runs what the command line names in this process. Without a program to run, one line says
    so, exit status 2."""
    match sys.argv[1:]:
        case ["-h" | "--help", *_]:
            print(USAGE)
        case ["-m", module, *arguments]:
            _need(_is_there(module), f"no module named {module}")
            enable_flash_attention()
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *arguments] if not script.startswith("-"):
            _need(Path(script).exists(), f"{script}: no such file")
            enable_flash_attention()
            sys.argv = [script, *arguments]
            if not _is_isolated():
                sys.path[0] = str(Path(script).resolve().parent)
            runpy.run_path(script, run_name="__main__")
        case _:
            _end(USAGE.partition("\n\n")[0])


def _is_isolated() -> bool:
    """Whether Python was told (-I, -P, PYTHONSAFEPATH) to keep the script's folder off its path:
    then the path starts with another entry."""
    return bool(
        sys.flags.isolated or getattr(sys.flags, "safe_path", False)
    )  # the latter since Python 3.11


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError as error:  # a package that it would be in
        if error.name is not None and module.startswith(f"{error.name}."):
            return False
        raise


def _need(there: bool, otherwise: str) -> None:
    if not there:
        _end(f"error: {otherwise}")


def _end(words: str) -> NoReturn:
    say(words)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
