"""Edits of a source text at places of its syntax tree, whole lines where statements go."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from dataclasses import dataclass, field

# What a comment says of code: numbers, and names that are no words of a sentence.
_CODE = re.compile(r"-?\d[\w.+-]*|[A-Za-z]\w*(?:\.\w+)+|[A-Za-z]+_\w+")
_SCORES = re.compile(r"\b(scores|weights|softmax|normali[sz]\w*)\b", re.IGNORECASE)
_FILL = re.compile(r"\b(negative|infinity)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Edit:
    """Characters from `start` to `end` of the text become `text`."""

    start: int
    end: int
    text: str


@dataclass
class Text:
    """A source with its syntax tree; `text` has `\\n` alone at the ends of its lines, and `width`
    is how many columns the file's formatter gives a line."""

    text: str
    tree: ast.Module
    width: int
    _starts: list[int] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = _split(self.text)
        start = 0
        for line in self._lines:
            self._starts.append(start)
            start += len(line)

    def offset(self, line: int, column: int) -> int:
        """Where a line and a column stand, as `ast` counts them: columns in bytes of UTF-8."""
        text = self._lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="replace"))
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0),
        )

    def of(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node, on one line where it is broken inside brackets."""
        start, end = self.span(node)
        text = self.text[start:end]
        if "\n" not in text:
            return text
        return ast.unparse(node) if "#" in text else _joined(text)

    def with_brackets(self, node: ast.expr) -> tuple[int, int]:
        """The span of an expression and of the brackets that stand around nothing but it."""
        start, end = self.span(node)
        while True:
            left = len(self.text[:start].rstrip())
            right = end + len(self.text[end:]) - len(self.text[end:].lstrip())
            if self.text[left - 1 : left] != "(" or self.text[right : right + 1] != ")":
                return start, end
            before = self.text[: left - 1].rstrip(" ")
            if re.search(r"[\w\])]$", before) and not re.search(
                r"\b(return|in|and|or|not|is|if|else|yield|await|assert)$", before
            ):
                return start, end  # the brackets of a call
            start, end = left - 1, right + 1

    def indent(self, statement: ast.stmt) -> str:
        line = self._lines[statement.lineno - 1]
        return line[: len(line) - len(line.lstrip())]

    def has_lines_alone(self, statement: ast.stmt) -> bool:
        """Whether nothing but comments shares the lines of a statement."""
        start, end = self.span(statement)
        before = self._lines[statement.lineno - 1][: start - self._starts[statement.lineno - 1]]
        last = statement.end_lineno or statement.lineno
        line_end = self._starts[last - 1] + len(self._lines[last - 1])
        after = self.text[end:line_end].strip()
        return not before.strip() and (not after or after.startswith("#"))

    def removal(self, statement: ast.stmt) -> Edit:
        """Takes the lines of a statement out."""
        last = statement.end_lineno or statement.lineno
        end = self._starts[last - 1] + len(self._lines[last - 1])
        return Edit(self._starts[statement.lineno - 1], end, "")

    def line_start(self, line: int) -> int:
        return self._starts[line - 1]

    def rest_of_line(self, statement: ast.stmt) -> str:
        """What follows a statement on its last line: a comment, if anything."""
        return self.text[self.span(statement)[1] : self.line_end(statement)].strip()

    def line_end(self, statement: ast.stmt) -> int:
        """Where a statement's last line ends, before its newline."""
        last = (statement.end_lineno or statement.lineno) - 1
        return self._starts[last] + len(self._lines[last].rstrip("\n"))

    def comments_above(self, statement: ast.stmt) -> list[tuple[str, Edit]]:
        """The comments right above a statement, each with the edit that takes it out."""
        found = []
        number = statement.lineno - 1
        while self._line(number).startswith("#"):
            start, end = self._starts[number - 1], self._starts[number]
            found.append((self._line(number), Edit(start, end, "")))
            number -= 1
        return found

    def fits(self, statement: ast.stmt, start: int, end: int, text: str) -> bool:
        """Whether the lines of a statement, the comment behind it with them, have the file's width
        once `text` stands in the place of the characters from `start` to `end`."""
        first = self._starts[statement.lineno - 1]
        after = self.text[end : self.line_end(statement)].rstrip()
        lines = f"{self.text[first:start]}{text}{after}".split("\n")
        return all(len(line) <= self.width for line in lines)

    def tidied(self, edits: list[Edit], alone: set[int]) -> list[Edit]:
        """The edits, and with whole lines the blank ones that are one too many, and the comments
        that speak of nothing any more; `alone` are lines of which the comments above go too."""
        removed: set[int] = set()
        for edit in edits:
            if not edit.text and self._is_whole_lines(edit):
                first = bisect_right(self._starts, edit.start)
                last = bisect_right(self._starts, edit.end - 1)
                removed.update(range(first, last + 1))
        more: set[int] = set()
        for first, last in _runs(sorted(removed)):
            more |= self._needless_around(first, last, bool(alone & set(range(first, last + 1))))
        lines = [
            Edit(self._starts[n - 1], self._starts[n - 1] + len(self._lines[n - 1]), "")
            for n in more
        ]
        return [*edits, *lines]

    def _is_whole_lines(self, edit: Edit) -> bool:
        return edit.start in self._starts and (
            edit.end in self._starts or edit.end == len(self.text)
        )

    def _needless_around(self, first: int, last: int, alone: bool) -> set[int]:
        above = first - 1
        found: set[int] = set()
        if alone:
            while self._line(above).startswith("#"):
                found.add(above)
                above -= 1
        below_is_blank = last < len(self._lines) and not self._line(last + 1)
        opens = self._line(above).endswith(":") or not self._line(above)
        if below_is_blank and (opens or self._line(above).startswith("#")):
            found.add(last + 1)
        return found

    def _line(self, number: int) -> str:
        return self._lines[number - 1].strip() if 1 <= number <= len(self._lines) else "end"


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Numbers that follow each other, as pairs of the first and the last."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _split(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def is_outdated(comment: str, before: str, after: str) -> bool:
    """Whether a comment on a line that masked scores, and now makes a mask, speaks of what is gone:
    of the scores, or of a number or name that the new line does not have."""
    gone = set(_CODE.findall(before)) - set(_CODE.findall(after))
    speaks_of_gone = speaks_of_scores(comment) or bool(_FILL.search(comment))
    return speaks_of_gone or not gone.isdisjoint(_CODE.findall(comment))


def speaks_of_scores(comment: str) -> bool:
    """Whether a comment speaks of scores, of weights, or of the softmax between them."""
    return bool(_SCORES.search(comment))


def joined(text: str) -> str | None:
    """Lines of an expression put on one, None where a comment or a trailing comma keeps them."""
    return None if "#" in text or re.search(r",\s*\n\s*[)\]}]", text) else _joined(text)


def _joined(text: str) -> str:
    """Lines of an expression put on one, as black would write it."""
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r"([(\[{]) ", r"\1", text)
    text = re.sub(r",? ([)\]}])", r"\1", text)
    return re.sub(r" \.(?=\w)", ".", text)


def apply(text: str, edits: list[Edit]) -> str:
    """The text with edits made that do not overlap; of two in the same place the wider one
    counts."""
    kept: list[Edit] = []
    for edit in sorted(set(edits), key=lambda item: (item.start, -item.end)):
        if kept and edit.start < kept[-1].end:
            continue
        kept.append(edit)
    for edit in reversed(kept):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
