"""Splices insertions into a module with LibCST: whole lines, in the file's own indentation,
newlines and encoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst

from flash_integrate.errors import UnreadableSource, UnsafeRewrite
from flash_integrate.python.edits import Edit, Insertion, Splice
from flash_integrate.python.limits import check_limits
from flash_integrate.python.source import Source, split_lines
from flash_integrate.python.syntax import Steps


@dataclass(frozen=True)
class _Pending:
    """An insertion with the rest of the way to its anchor."""

    steps: Steps
    insertion: Insertion

    def next(self) -> _Pending:
        return _Pending(self.steps[1:], self.insertion)


def rewrite(source: Source, edits: Iterable[Edit]) -> bytes:
    """The file's bytes with every edit made; the file's own lines are carried over as they are.

    Raises:
        UnreadableSource: LibCST can't parse the file.
        UnsafeRewrite: the file is more than LibCST can take, or it does not print the file's lines
            back one for one.
    """
    check_limits(source)
    edits = list(edits)
    source = _splice(source, [edit for edit in edits if isinstance(edit, Splice)])
    module = _parse(source)
    ways = [
        _Pending(edit.anchor or (("body", 0),), edit)
        for edit in edits
        if isinstance(edit, Insertion)
    ]
    try:
        body = _edit_suite(module, module.body, ways, is_top=True)
        result = module.with_changes(body=body).bytes
        return (
            result
            if _holds(result, source.data)
            else _carry_over(source.data, module.bytes, result)
        )
    except RecursionError as error:  # a sum of three hundred terms is enough
        raise UnsafeRewrite("has an expression that is too deep for LibCST to print") from error


def _splice(source: Source, splices: Sequence[Splice]) -> Source:
    """The file with text inserted into its lines; a new line ends as the one at which it is
    inserted."""
    if not splices:
        return source
    encoding = source.encoding.removesuffix("-sig")
    lines = source.lines()
    for splice in sorted(splices, key=lambda item: item.at, reverse=True):
        number, column = splice.at
        line = lines[number - 1].decode(encoding)
        newline = line[len(line.rstrip("\r\n")) :] or "\n"
        lines[number - 1] = (
            line[:column] + splice.text.replace("\n", newline) + line[column:]
        ).encode(encoding)
    return Source(source.path, b"".join(lines))


def _holds(result: bytes, original: bytes) -> bool:
    """Whether `result` is the lines of `original`, in their order, and others between them."""
    rest = iter(split_lines(result))
    return all(any(line == own for line in rest) for own in split_lines(original))


def _parse(source: Source) -> cst.Module:
    try:
        module = cst.parse_module(source.data)
    except cst.ParserSyntaxError as error:
        raise UnreadableSource(error.message.partition("\n")[0], line=error.raw_line) from error
    except RecursionError as error:
        raise UnreadableSource("nested too deeply to be parsed", line=1) from error
    if "\f" in module.default_indent:  # Python starts to count the spaces anew at each of them
        raise UnreadableSource("its blocks are indented with form feeds; spaces or tabs are read")
    return module


def _carry_over(original: bytes, printed: bytes, result: bytes) -> bytes:
    """`result` with each line that LibCST printed for the file replaced by the line that it stands
    for.

    LibCST 1.9 loses a space in `except (A, B) :`; the lines still correspond one for one.
    """
    own, printed_lines = split_lines(original), split_lines(printed)
    if len(own) != len(printed_lines):
        raise UnsafeRewrite("LibCST does not print this file back line by line")
    pairs = iter(zip(own, printed_lines, strict=True))
    pair = next(pairs, None)
    lines = []
    for line in split_lines(result):
        if pair is not None and line == pair[1]:
            line, pair = pair[0], next(pairs, None)
        lines.append(line)
    return b"".join(lines)


def _edit_suite(
    module: cst.Module,
    suite: Sequence[cst.BaseStatement],
    edits: Sequence[_Pending],
    *,
    is_top: bool = False,
    of_function: bool = False,
) -> list[cst.BaseStatement]:
    """A suite with its edits made. Small statements that share a line count one each, as they do
    for `ast`."""
    result: list[cst.BaseStatement] = []
    added: set[int] = set()
    waiting = deque(sorted(edits, key=lambda edit: edit.steps[0][1]))
    first = 0
    for statement in suite or [cst.SimpleStatementLine([])]:
        count = len(statement.body) if isinstance(statement, cst.SimpleStatementLine) else 1
        mine = []
        while waiting and waiting[0].steps[0][1] < first + max(count, 1):
            mine.append(waiting.popleft())
        here = [edit.insertion for edit in mine if len(edit.steps) == 1]
        deeper = [edit.next() for edit in mine if len(edit.steps) > 1]
        for insertion in here:
            if insertion.before:
                result += _added(module, insertion.code, added)
        if suite:
            result.append(_edit_compound(module, statement, deeper) if deeper else statement)
        for insertion in here:
            if not insertion.before:
                result += _added(module, insertion.code, added)
        first += count
    _keep_apart(result, added, is_top=is_top, of_function=of_function)
    return result


def _added(module: cst.Module, code: str, added: set[int]) -> list[cst.BaseStatement]:
    found = _statements(module, code)
    added.update(map(id, found))
    return found


def _keep_apart(suite: list[Any], added: set[int], *, is_top: bool, of_function: bool) -> None:
    """Blank lines where inserted statements would touch the definition below them: as many above
    as below, by which `removal` knows them; at a function's start one below."""
    for index in range(1, len(suite)):
        definition, start = suite[index], index
        if not isinstance(definition, cst.FunctionDef | cst.ClassDef) or id(definition) in added:
            continue
        while start and id(suite[start - 1]) in added:
            start -= 1
        lines = definition.leading_lines
        touches = not lines or lines[0].comment is not None
        if start == index or not (touches if start else of_function):
            continue
        blank = [cst.EmptyLine(indent=False)] * (2 if is_top else 1)
        suite[index] = definition.with_changes(leading_lines=[*blank, *lines])
        if start:
            suite[start] = suite[start].with_changes(leading_lines=blank)


def _edit_compound(module: cst.Module, node: Any, edits: Sequence[_Pending]) -> Any:
    """A compound statement (or its handler, case, `else`) with the edits in its suites made."""
    changes: dict[str, Any] = {}
    for field in {edit.steps[0][0] for edit in edits}:
        mine = [edit for edit in edits if edit.steps[0][0] == field]
        if field in ("handlers", "cases"):
            children = list(getattr(node, field))
            for index in {edit.steps[0][1] for edit in mine}:
                own = [edit.next() for edit in mine if edit.steps[0][1] == index]
                children[index] = _edit_compound(module, children[index], own)
            changes[field] = children
        elif field == "body":
            is_function = isinstance(node, cst.FunctionDef)
            inner = _edit_suite(module, node.body.body, mine, of_function=is_function)
            changes["body"] = node.body.with_changes(body=inner)
        elif (
            isinstance(node.orelse, cst.If) and field == "orelse"
        ):  # `elif`: for `ast` an If in the else's suite
            changes["orelse"] = _edit_compound(module, node.orelse, [edit.next() for edit in mine])
        else:
            clause = getattr(node, field)
            own = [
                _Pending((("body", edit.steps[0][1]), *edit.steps[1:]), edit.insertion)
                for edit in mine
            ]
            changes[field] = _edit_compound(module, clause, own)
    return node.with_changes(**changes)


def _statements(module: cst.Module, code: str) -> list[cst.BaseStatement]:
    """Parses code that is written with four spaces and `\\n` into statements of the module's own
    style."""
    indented = code.lstrip("\n").replace("    ", module.default_indent)
    parsed: list[cst.BaseStatement] = list(
        cst.parse_module(indented, config=module.config_for_parsing).body
    )
    if code.startswith("\n"):
        first: Any = parsed[0]
        parsed[0] = first.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
    return parsed
