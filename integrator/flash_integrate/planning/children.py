"""The commands and programs on a library of models that a file, or a shell script, has another
process run, where the file's own call does not reach."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_integrate.attention.libraries import by_hand_in, holds_models, use_of, use_of_module
from flash_integrate.notebook.program import Program
from flash_integrate.notes import Uncovered
from flash_integrate.project.scan import scan_imports
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.syntax import dotted

_COMMAND = r"(\w+(?:\.\w+)+|\w+ \w+)"
# `!mlx_lm.generate ...`, `!python -m mlx_lm lora ...`
_SHELL_LINE = re.compile(rf"\s*!+\s*(?:python[\d.]*\s+-m\s+)?{_COMMAND}")
# `... -m mlx_lm lora ...` anywhere, or where a command begins `mlx_lm.lora --data ...`
_BEFORE = r"(?:(?:exec|nohup|time|uv run|poetry run|\w+=\S*)\s+)*"
_RUN = re.compile(
    rf"(?:(?:^|\s)-m\s+|(?:^|[;&|\n])\s*{_BEFORE}(?=\w+\.\w+\s+-)){_COMMAND}",
)
# Lines of a shell script that are a comment, or only shown.
_NOT_RUN = re.compile(r"^\s*(?:#|echo\b|printf\b).*$", re.MULTILINE)
_BY_A_SHELL = "a shell runs it in a process of its own"
_LEFT_OPEN = "?"
"""Stands in the text of a command for what is known only when the program runs."""
_TAKE_A_TEXT = {
    "os.popen",
    "os.system",
    *(f"subprocess.{name}" for name in ("Popen", "call", "check_call", "check_output", "run")),
}


def uncovered_shell_lines(facts: FileFacts) -> Iterator[Uncovered]:
    """The lines of a notebook that have a shell run a model by a command of its library."""
    for line, text in facts.source.written() if isinstance(facts.source, Program) else ():
        found = _SHELL_LINE.match(text)
        if found is not None and _runs_a_model(facts.workspace, facts.name, found[1]):
            yield _command(found[1], line, _BY_A_SHELL)


def uncovered_in_shell_script(
    workspace: Workspace, name: PurePosixPath, data: bytes
) -> Iterator[Uncovered]:
    """The lines of a shell script that run a model by a command of its library."""
    text = data.decode(errors="replace").replace("\r\n", "\n")
    # One line each, of the same length: where they begin tells the line.
    lines = _NOT_RUN.sub(lambda found: " " * len(found[0]), text.replace("\\\n", "  "))
    for found in _RUN.finditer(lines):
        if _runs_a_model(workspace, name, found[1]):
            yield _command(found[1], text.count("\n", 0, found.start(1)) + 1, _BY_A_SHELL)


def uncovered_children(facts: FileFacts) -> Iterator[Uncovered]:
    """The commands of libraries that a file has run, `[sys.executable, "-m", "mlx_lm", "lora"]`,
    `["mlx_lm.lora", "--train"]` or as a text for a shell, and the programs on them that it gives
    Python as a text, `[sys.executable, "-c", text]`."""
    found = [(command, line) for line, text in _commands(facts) for command in _RUN.findall(text)]
    for command, line in dict.fromkeys(found):
        if _runs_a_model(facts.workspace, facts.name, command):
            yield _command(command, line, "it runs in a process of its own")
    for line, text in _programs(facts):
        if any(_generates(facts, text)):
            reason = "it runs in a process of its own; enable_flash_attention() in it has it there"
            yield Uncovered(reason, line, "the program given with -c")


def _commands(facts: FileFacts) -> Iterator[tuple[int, str]]:
    """The line and the text of what may be a command: the words of each list, and what is given
    to a function that starts one."""
    for node in facts.module.of_kind(ast.List):
        yield node.lineno, " ".join(map(_written, node.elts))
    yield from _programs(facts)
    for call in facts.module.of_kind(ast.Call):
        if call.args and dotted(call.func) in _TAKE_A_TEXT:
            yield from ((call.lineno, text) for text in _texts(facts, call.args[0]))


def _programs(facts: FileFacts) -> Iterator[tuple[int, str]]:
    """The line and the text of what stands behind `-c`: a program for Python, or a shell."""
    for node in facts.module.of_kind(ast.List):
        written = [_written(word) for word in node.elts[:-1]]
        if "-c" in written:
            program = node.elts[written.index("-c") + 1]
            yield from ((node.lineno, text) for text in _texts(facts, program))


def _texts(facts: FileFacts, node: ast.expr) -> list[str]:
    """The texts that an expression is, or that the file gives its name."""
    name = dotted(node)
    values = [node] if name is None else []
    values += [value for given, value in facts.module.all_assignments if given == name]
    return [_written(value) for value in values if isinstance(value, ast.Constant | ast.JoinedStr)]


def _written(node: ast.expr) -> str:
    """An expression as the text of a command, with `?` for all that is no text."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_written, node.values))
    return _LEFT_OPEN


def _command(command: str, line: int, where: str) -> Uncovered:
    way = f"python -m mlx_flash_runtime -m {command} ... has flash attention there"
    return Uncovered(f"{where}; {way}", line, f"the command {command}")


def _runs_a_model(workspace: Workspace, name: PurePosixPath, command: str) -> bool:
    """Whether a command in a file, `mlx_lm.lora` or `mlx_lm lora`, is of a library, not of the
    project, and runs models whose attention a patch reaches."""
    module = command.replace(" ", ".")
    return _is_library(workspace, name, module) and use_of_module(module) is not None


def _generates(facts: FileFacts, program: str) -> Iterator[bool]:
    """Of each name that the text of a program imports from a library, whether it runs models."""
    for item in scan_imports(program.encode()):
        if _is_library(facts.workspace, facts.name, item.module):
            yield from (use_of(f"{item.module}.{name}") is not None for name in item.names)


def _is_library(workspace: Workspace, name: PurePosixPath, module: str) -> bool:
    """Whether a module is of a package of models that is not the project's, and whose attention a
    patch reaches."""
    package = module.partition(".")[0]
    if not holds_models(module) or by_hand_in(package) is not None:
        return False
    module_file = workspace.names.module_file
    return all(module_file(name, 0, imported) is None for imported in (package, module))
