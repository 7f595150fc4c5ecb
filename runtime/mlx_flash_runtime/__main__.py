"""Runs a program that is not patched, such as one of mlx-lm's own commands, with flash attention:
see `USAGE`. The program finds what it would find if Python itself had started it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import (
    BuiltinImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple, NoReturn

from .control import enable_flash_attention
from .environment.log import say

USAGE = """\
usage: python -m mlx_flash_runtime SCRIPT [ARGUMENTS]
       python -m mlx_flash_runtime -m MODULE [ARGUMENTS]
       python -m mlx_flash_runtime -c COMMAND [ARGUMENTS]

Runs a script, a module or a command as python does, with flash attention, and changes no file:

  python -m mlx_flash_runtime train.py --model ./model
  python -m mlx_flash_runtime -m mlx_lm generate --model ./model --prompt "hello"

SCRIPT is a file, a folder or a zip file with a __main__.py, or - for standard input.

MLX_FLASH_REPORT=1 says at the end what ran where; MLX_FLASH_DISABLE=1 leaves MLX's own attention in
place. Processes that the program starts anew do not inherit the patch."""


class Program(NamedTuple):
    """What Python is to run: how to get its code, what `sys.argv` starts with, the first entry of
    `sys.path`, and what its module `__main__` is told of itself."""

    code: Callable[[], CodeType]
    name: str
    folder: str
    attributes: dict[str, Any]


def main() -> None:
    """Runs what the command line names in this process. Without a program to run, one line says
    so, exit status 2."""
    match sys.argv[1:]:
        case ["-h" | "--help", *_]:
            print(USAGE)
        case ["-m", name, *arguments]:
            _run(_module(name), arguments)
        case ["-c", command, *arguments]:
            _run(_text(lambda: command, "-c", "<string>", {}), arguments)
        case ["-", *arguments]:
            attributes = {"__file__": "<stdin>", "__cached__": None}
            _run(_text(sys.stdin.read, "-", "<stdin>", attributes), arguments)
        case [path, *arguments] if not path.startswith("-"):
            _need(os.path.exists(path), f"{path}: no such file")
            _run(_file(path) or _folder(path), arguments)
        case _:
            _end(USAGE.partition("\n\n")[0])


def _run(program: Program, arguments: list[str]) -> None:
    """Runs a program as the module `__main__`, with flash attention. What it raises is shown
    without the frames of this package."""
    sys.argv = [program.name, *arguments]
    if not _is_isolated():
        sys.path[0] = program.folder
    enable_flash_attention()
    # One that stays: threads, handlers at exit and pickles of its classes look it up by name.
    module = ModuleType("__main__")
    module.__dict__.update(program.attributes)
    sys.modules["__main__"] = module
    try:
        exec(program.code(), module.__dict__)
    except Exception as error:
        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_globals is not module.__dict__:
            shown = shown.tb_next
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        raise SystemExit(1) from None


def _module(name: str) -> Program:
    """The program that `python -m` runs: a module, or a package's `__main__`."""
    spec = _found(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = _found(f"{name}.__main__")
    _need(spec is not None, f"no module named {name}")
    assert spec is not None
    return _of_spec(spec, spec.origin or name, os.getcwd())


def _found(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError as error:  # a package that it would be in
        if error.name is not None and name.startswith(f"{error.name}."):
            return None
        raise


def _folder(path: str) -> Program:
    """The program that is the module `__main__` of a folder or a zip file."""
    whole = os.path.abspath(path)
    spec = PathFinder.find_spec("__main__", [whole])
    _need(spec is not None, f"{path}: there is no __main__.py in it")
    assert spec is not None
    return _of_spec(spec, path, whole)


def _file(path: str) -> Program | None:
    """The program that is a file of Python's; None for a folder or a zip file."""
    if PathFinder.find_spec("__main__", [path]) is not None or os.path.isdir(path):
        return None
    file = os.path.abspath(path)
    loader: Any = SourceFileLoader("__main__", file)

    def code() -> CodeType:
        if path.endswith(".pyc"):
            found = SourcelessFileLoader("__main__", file).get_code("__main__")
            assert found is not None
            return found
        return loader.source_to_code(loader.get_data(file), file)  # type: ignore[no-any-return]

    attributes = {"__file__": file, "__loader__": loader, "__cached__": None}
    return Program(code, path, str(Path(path).resolve().parent), attributes)


def _text(read: Callable[[], str], name: str, file: str, attributes: dict[str, Any]) -> Program:
    """The program that is a text."""

    def code() -> CodeType:
        return compile(read(), file, "exec", dont_inherit=True)

    return Program(code, name, "", {"__loader__": BuiltinImporter, **attributes})


def _of_spec(spec: ModuleSpec, name: str, folder: str) -> Program:
    loader: Any = spec.loader
    attributes = {
        "__file__": spec.origin,
        "__spec__": spec,
        "__loader__": loader,
        "__package__": spec.parent,
        "__cached__": spec.cached,
    }
    return Program(lambda: loader.get_code(spec.name), name, folder, attributes)


def _is_isolated() -> bool:
    """Whether Python was told (-I, -P, PYTHONSAFEPATH) to keep the script's folder off its path:
    then the path starts with another entry."""
    # The latter since Python 3.11.
    return bool(sys.flags.isolated or getattr(sys.flags, "safe_path", False))


def _need(there: bool, otherwise: str) -> None:
    if not there:
        _end(f"error: {otherwise}")


def _end(words: str) -> NoReturn:
    say(words)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
