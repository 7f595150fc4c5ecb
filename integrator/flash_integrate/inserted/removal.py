"""Finds what the tool inserted, by its syntax: the way back, also after edits around them."""

from __future__ import annotations

import ast
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flash_integrate.errors import CannotRemove
from flash_integrate.inserted.earlier import is_earlier_import
from flash_integrate.inserted.forms import (
    flag_parameters,
    is_call,
    is_flag,
    is_inserted,
    is_option,
)
from flash_integrate.inserted.marker import skip_marker_line
from flash_integrate.inserted.snippets import FLAG_NAMES
from flash_integrate.python.signature import Position, Signature
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import Function, Statement, statements


@dataclass(frozen=True)
class Inserted:
    """What the tool put into a file: whole `lines`, numbered from 1, and parameters in lines that
    are the file's own, each `cut` from one position to another."""

    lines: frozenset[int] = frozenset()
    cuts: tuple[tuple[Position, Position], ...] = ()

    @property
    def numbers(self) -> set[int]:
        """The lines that the file has more than it had."""
        return {
            *self.lines,
            *(number for start, end in self.cuts for number in range(start[0] + 1, end[0] + 1)),
        }


def inserted(source: Source) -> Inserted:
    """Everything that the tool put into a file; nothing if it is not integrated, or is to be left
    alone.

    Raises:
        UnreadableSource: the file can't be parsed.
        CannotRemove: an inserted statement now shares a line with another one.
    """
    found = statements(source.tree, source.text)
    if (
        not any(_shows_integration(item.node) for item in found)
        or skip_marker_line(source.data) is not None
    ):
        return Inserted()
    lines = _inserted_statements(source, found) | _inserted_options(source, found)
    cuts = []
    for start, end in _inserted_parameters(source, found):
        if start[1] == end[1] == 0:
            lines.update(range(start[0], end[0]))
        else:
            cuts.append((start, end))
    return Inserted(frozenset(lines), tuple(cuts))


def _shows_integration(node: ast.stmt) -> bool:
    return is_call(node) or is_flag(node) or is_earlier_import(node)


def without(source: Source, what: Inserted) -> bytes:
    """The file's bytes without what was inserted."""
    return without_lines(source, set(what.lines), what.cuts)


def _inserted_statements(source: Source, found: list[Statement]) -> set[int]:
    lines = source.lines()
    numbers: set[int] = set()
    for group in _groups(found):
        for statement in group:
            if not (statement.starts_its_line and statement.ends_its_line):
                raise CannotRemove(
                    "an inserted statement shares its line with another", line=statement.line
                )
            numbers.update(range(statement.line, _last_line(statement.node) + 1))
        numbers.update(_blank_lines(lines, group))
    return numbers


def _groups(found: list[Statement]) -> list[list[Statement]]:
    """The inserted statements, those that stand one below the other in a suite together."""
    groups: list[list[Statement]] = []
    for statement in (item for item in found if is_inserted(item.node)):
        last = groups[-1][-1] if groups else None
        follows = last is not None and last.suite is statement.suite
        if last is not None and follows and last.index + 1 == statement.index:
            groups[-1].append(statement)
        else:
            groups.append([statement])
    return groups


def _blank_lines(lines: list[bytes], group: list[Statement]) -> set[int]:
    """The blank lines around inserted statements that came with them, as `rewrite` sets them."""
    first, last = group[0], group[-1]
    start, end = first.line, _last_line(last.node)
    above = _blank(lines[start - 2 :: -1]) if first.index and start > 1 else 0
    below = _blank(lines[end:])
    is_top = len(first.steps) == 1
    following = last.suite[last.index + 1 : last.index + 2]
    if following and isinstance(following[0], Function | ast.ClassDef):
        apart = 2 if is_top else 1
        if not first.index:
            starts_function = getattr(first.scope.node, "body", None) is first.suite and not is_top
            return {end + 1} if below and starts_function else set()
        if above >= apart and below >= apart:
            return {*range(start - apart, start), *range(end + 1, end + apart + 1)}
    is_apart = is_top or isinstance(first.suite[first.index - 1], ast.Import | ast.ImportFrom)
    begins_block = is_call(first.node) or is_earlier_import(first.node)
    return {start - 1} if above and is_apart and begins_block else set()


def _blank(lines: list[bytes]) -> int:
    """How many of the first lines are blank."""
    return next((index for index, line in enumerate(lines) if line.strip()), len(lines))


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _inserted_options(source: Source, found: list[Statement]) -> set[int]:
    """The lines of the options above click's commands."""
    lines = source.lines()
    numbers: set[int] = set()
    for option in (
        item for one in found for item in getattr(one.node, "decorator_list", []) if is_option(item)
    ):
        last = option.end_lineno or option.lineno
        before, after = (
            lines[option.lineno - 1][: option.col_offset],
            lines[last - 1][option.end_col_offset or 0 :],
        )
        if before.strip() != b"@" or after.strip():
            raise CannotRemove(
                "an inserted option shares its line with something else", line=option.lineno
            )
        numbers.update(range(option.lineno, last + 1))
    return numbers


def _inserted_parameters(
    source: Source, found: list[Statement]
) -> Iterator[tuple[Position, Position]]:
    """From where to where the two parameters of a command stand, in a function that holds the
    call."""
    lines = source.text_lines()
    for node in (statement.node for statement in found if isinstance(statement.node, Function)):
        if not any(is_call(child) and FLAG_NAMES[0] in _names_in(child) for child in node.body):
            continue
        signature, own = Signature.of(node, lines), flag_parameters(node)
        places = [index for index, element in enumerate(signature.elements) if element.first in own]
        if len(places) == 2 and places[0] + 1 == places[1]:
            yield from signature.removal(*places)
        else:  # one was moved, or taken out by hand
            yield from (cut for place in places for cut in signature.removal(place, place))


def _names_in(node: ast.stmt) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def without_lines(
    source: Source, numbers: set[int], cuts: Iterable[tuple[Position, Position]] = ()
) -> bytes:
    """The file's bytes without the given lines, and without the given parts of others; a last line
    that had no newline leaves none behind."""
    lines = source.lines()
    encoding = source.encoding.removesuffix("-sig")
    for start, end in sorted(cuts, reverse=True):  # from the back: those before keep their places
        head, tail = (lines[line - 1].decode(encoding) for line, _ in (start, end))
        lines[start[0] - 1] = (head[: start[1]] + tail[end[1] :]).encode(encoding)
        lines[start[0] : end[0]] = [b""] * (end[0] - start[0])
    kept = [line for number, line in enumerate(lines, start=1) if number not in numbers]
    if 1 in numbers and lines[0].startswith(BOM_UTF8):  # the mark is the file's, not the line's
        kept.insert(0, BOM_UTF8)
    if kept and len(lines) in numbers and not lines[-1].endswith((b"\r", b"\n")):
        kept[-1] = kept[-1].rstrip(b"\r\n")
    return b"".join(kept)
