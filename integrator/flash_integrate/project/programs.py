"""Files of a project that others of it start as programs: `[sys.executable, "-m", "bot.worker"]`.
What the one that starts them has chosen, by flags, counts in them too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.project.scan import Scan
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.syntax import dotted, walk

_PYTHON = "sys.executable"
_STARTERS = {"asyncio", "subprocess"}


def started_programs(workspace: Workspace) -> set[PurePosixPath]:
    """The files of the project that others, tests aside, have Python run."""
    scans = workspace.project.scans
    starting = [path for path in scans if not is_test(path) and _may_start(scans[path])]
    return {file for path in starting for file in _started_by(workspace, path)}


def _may_start(scan: Scan) -> bool:
    return any(item.module.partition(".")[0] in _STARTERS for item in scan.imports)


def _started_by(workspace: Workspace, path: PurePosixPath) -> Iterator[PurePosixPath]:
    try:
        facts = workspace.facts(path)
        if _PYTHON.encode() not in facts.source.data:
            return
        lists = facts.module.of_kind(ast.List)
    except FileError:  # reported when the file's own turn comes
        return
    for node in lists:
        if node.elts and dotted(node.elts[0]) == _PYTHON:
            yield from _program(workspace, path, node.elts[1:])


def _program(
    workspace: Workspace, path: PurePosixPath, words: list[ast.expr]
) -> Iterator[PurePosixPath]:
    """The file that a command runs: behind `-m`, or the one that it names by its path."""
    texts = [part.value for word in words for part in walk(word) if isinstance(part, ast.Constant)]
    named = [text for text in texts if isinstance(text, str)]
    if "-m" in named[:-1]:
        file = workspace.names.module_file(path, 0, named[named.index("-m") + 1])
        is_package = file is not None and file.name == "__init__.py"
        if file is not None:
            yield file.with_name("__main__.py") if is_package else file
        return
    for script in (text for text in named if text.endswith(".py")):
        beside = path.parent / script
        scans = workspace.project.scans
        ends = [file for file in scans if f"/{file}".endswith(f"/{script}")]
        if beside in scans or len(ends) == 1:
            yield beside if beside in scans else ends[0]
