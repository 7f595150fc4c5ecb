"""Files of a project that others of it start as programs: `[sys.executable, "-m", "bot.worker"]`.
What the one that starts them has chosen, by flags, counts in them too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.scan import Scan
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.syntax import dotted, walk

_PYTHON = "sys.executable"
_TAKE_A_VALUE = {"-W", "-X"}
_MAKE_PATHS = {"__file__", "Path", "os", "pathlib", "str"}
_STARTERS = {"asyncio", "subprocess"}


def started_programs(workspace: Workspace) -> set[PurePosixPath]:
    """The files of the project that others, tests aside, have Python run."""
    scans = workspace.project.scans
    starting = [path for path in scans if not is_test(path) and _may_start(scans[path])]
    return {file for path in starting for file in _started_by(workspace, path)}


def _may_start(scan: Scan) -> bool:
    return any(item.module.partition(".")[0] in _STARTERS for item in scan.imports)


def unknown_programs(facts: FileFacts) -> list[int]:
    """The lines on which a file has Python run a program that it does not name: one that is chosen
    when it runs, `[sys.executable, sys.argv[1]]`."""
    return [node.lineno for node, program in _commands(facts) if _is_chosen(facts, program)]


def _started_by(workspace: Workspace, path: PurePosixPath) -> Iterator[PurePosixPath]:
    try:
        facts = workspace.facts(path)
        commands = list(_commands(facts))
    except FileError:  # reported when the file's own turn comes
        return
    for _, program in commands:
        yield from _files(facts, program)


@dataclass(frozen=True)
class _Program:
    """What a command has Python run: a script, or with `-m` a module."""

    word: ast.expr
    is_module: bool


def _commands(facts: FileFacts) -> Iterator[tuple[ast.List, _Program]]:
    """The commands in a file that have Python run a program."""
    if _PYTHON.encode() not in facts.source.data:
        return
    for node in facts.module.of_kind(ast.List):
        if node.elts and dotted(node.elts[0]) == _PYTHON:
            program = _program(node.elts[1:])
            if program is not None:
                yield node, program


def _program(words: list[ast.expr]) -> _Program | None:
    """The program among the words that follow Python's name: there is none for `-c`, whose text is
    the program."""
    rest = iter(words)
    for word in rest:
        option = word.value if isinstance(word, ast.Constant) else None
        if option == "-m":
            module = next(rest, None)
            return None if module is None else _Program(module, is_module=True)
        if option in _TAKE_A_VALUE:
            next(rest, None)
        elif not str(option).startswith("-"):
            return _Program(word, is_module=False)
        elif option == "-c":
            return None
    return None


def _files(facts: FileFacts, program: _Program) -> Iterator[PurePosixPath]:
    """The file of the project that a program is."""
    texts = _texts(facts, program.word)
    workspace, path = facts.workspace, facts.name
    if program.is_module:
        named = texts[0] if texts else ""
        file = workspace.names.module_file(path, 0, named, or_itself=True) if named else None
        if file is not None:
            yield file.with_name("__main__.py") if file.name == "__init__.py" else file
        return
    for script in (text for text in texts if text.endswith(".py")):
        beside = path.parent / script
        scans = workspace.project.scans
        ends = [file for file in scans if f"/{file}".endswith(f"/{script}")]
        if beside in scans or len(ends) == 1:
            yield beside if beside in scans else ends[0]


def _is_chosen(facts: FileFacts, program: _Program) -> bool:
    """Whether nothing in the file says which program that is."""
    if isinstance(program.word, ast.Constant) or _is_own(program.word):
        return False
    texts = _texts(facts, program.word)
    return not (texts if program.is_module else any(text.endswith(".py") for text in texts))


def _is_own(word: ast.expr) -> bool:
    """Whether a word is the path of the file itself, `str(Path(__file__).resolve())`."""
    names = {part.id for part in walk(word) if isinstance(part, ast.Name)}
    return "__file__" in names and names <= _MAKE_PATHS


def _texts(facts: FileFacts, word: ast.expr) -> list[str]:
    """The texts in a word of a command, and in what the file gives the names in it."""
    names = {name for part in walk(word) if (name := dotted(part)) is not None}
    values = [value for name, value in facts.module.all_assignments if name in names]
    parts = [part for value in (word, *values) for part in walk(value)]
    texts = [part.value for part in parts if isinstance(part, ast.Constant)]
    return [text for text in texts if isinstance(text, str)]
