"""The parameter list of a function as it is written: where parameters can be added, and how they
come out again."""

from __future__ import annotations

import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from flash_integrate.python.syntax import Function

Position = tuple[int, int]
"""A line, counted from 1, and a column in characters."""

_SKIPPED = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}


@dataclass
class Element:
    """A parameter with its annotation and default, or a bare `*` or `/`; `comma` is the end of the
    comma behind it."""

    first: str
    start: Position
    end: Position
    comma: Position | None = None


@dataclass
class Signature:
    """What stands between the parentheses, which are at `opening` (its end) and `closing` (its
    start)."""

    lines: Sequence[str] = field(repr=False)
    opening: Position = (0, 0)
    closing: Position = (0, 0)
    elements: list[Element] = field(default_factory=list)

    @classmethod
    def of(cls, node: Function, lines: Sequence[str]) -> Signature:
        """The signature of a function of a file with these lines, which have their endings."""
        found = cls(lines)
        rest = (
            lines[number].rstrip("\r\n") + "\n" for number in range(node.lineno - 1, len(lines))
        )
        depth = 0
        brackets = 0  # those of type parameters, before the parentheses
        is_new = True
        for token in tokenize.generate_tokens(lambda: next(rest, "")):
            start = (token.start[0] + node.lineno - 1, token.start[1])
            end = (token.end[0] + node.lineno - 1, token.end[1])
            if token.type in _SKIPPED:
                continue
            if depth == 0:
                brackets += {"[": 1, "]": -1}.get(token.string, 0)
                if token.string == "(" and not brackets:
                    depth, found.opening = 1, end
                continue
            if depth == 1 and token.string == ")":
                found.closing = start
                break
            if depth == 1 and token.string == ",":
                found.elements[-1].comma = end
                is_new = True
                continue
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
            if is_new:
                found.elements.append(Element(token.string, start, end))
                is_new = False
            found.elements[-1].end = end
        return found

    def addition(self, parameters: Sequence[str], width: int) -> list[tuple[Position, str]]:
        """Where `parameters` go, and the text to insert there: on lines of their own in a
        signature that is written so, else behind the last one, on its line where the signature has
        no other and that fits `width`. One that outgrows its line is taken apart. A `**` parameter
        stays the last, and a comment beside its parameter."""
        last = self.elements[-1] if self.elements else None
        if last is not None and last.first == "**":
            if self._starts_its_line(last.start):
                return [((last.start[0], 0), self._own_lines(parameters, last.start))]
            return [(last.start, "".join(f"{parameter}, " for parameter in parameters))]
        if last is not None and last.comma and self._starts_its_line(self.closing):
            return [((self.closing[0], 0), self._own_lines(parameters, last.start))]
        at = self.opening if last is None else last.comma or last.end
        end = "," if last is not None and last.comma else ""
        inline = ("" if last is None else " " if last.comma else ", ") + ", ".join(parameters) + end
        fits = len(self._line(at).rstrip("\r\n")) + len(inline) <= width and "\n" not in inline
        if fits and at[0] == self.opening[0]:
            return [(at, inline)]
        if last is None and self.closing == self.opening:
            return [(at, self._spread(parameters, width))]
        if self._is_one_plain_line():
            return self._taken_apart(["*", *parameters], width)
        first = self.elements[0].start if self.elements else self.opening
        has_lines = self._starts_its_line(first)
        margin = self._indent(first) if has_lines else " " * self.opening[1]
        broken = [parameter.replace("\n", "\n" + margin) for parameter in parameters]
        lead = "" if last is None or last.comma else ","
        text = "".join(f"\n{margin}{item}," for item in broken)[: None if end else -1]
        if lead and self._is_commented(at):
            return [(at, lead), (self._end_of_line(at), text)]
        return [(at, lead + text)]

    def removal(self, first: int, last: int) -> list[tuple[Position, Position]]:
        """From where to where the elements `first` to `last` are cut out, with the commas that
        came with them."""
        if last + 1 == len(self.elements) and self._is_star(first - 1):
            first -= 1
            if self._can_be_joined(first):
                return self._joined(first)
        start, end = self.elements[first], self.elements[last]
        is_all = not first and last + 1 == len(self.elements)
        if is_all and self._starts_its_line(self.closing) and self._ends_its_line(self.opening):
            return [(self.opening, self.closing)]
        if (
            end.comma
            and self._starts_its_line(start.start)
            and not self._line(end.comma)[end.comma[1] :].strip()
        ):
            return [((start.start[0], 0), (end.comma[0] + 1, 0))]
        if last + 1 < len(self.elements):
            return [(start.start, self.elements[last + 1].start)]
        before = self.elements[first - 1] if first else None
        if end.comma:
            return [((before.comma or before.end) if before else self.opening, end.comma)]
        if before is not None and before.comma and self._is_commented(before.comma):
            return [(before.end, before.comma), (self._end_of_line(before.comma), end.end)]
        return [(before.end if before else self.opening, end.end)]

    def _is_one_plain_line(self) -> bool:
        """Whether it stands on one line as black writes it, with nothing but names before `*`."""
        if self.opening[0] != self.closing[0] or any(item.first == "*" for item in self.elements):
            return False
        line = self._line(self.opening)
        written = [line[item.start[1] : item.end[1]] for item in self.elements]
        return line[self.opening[1] : self.closing[1]] == ", ".join(written)

    def _taken_apart(self, added: Sequence[str], width: int) -> list[tuple[Position, str]]:
        """A signature of one line, with the parentheses on lines of their own, and as black would
        write what is between them.

        What is added starts with a `*`, which a signature of several lines never gets: by that the
        way back knows that this one was on one line.
        """
        outer = self._indent(self.opening)
        inner = outer + "    "
        own = self._line(self.opening)[self.opening[1] : self.closing[1]]
        start = (self.opening, f"\n{inner}")
        joined = ", ".join(added)
        if "\n" not in joined and len(f"{inner}{own}, {joined}") <= width:
            return [start, (self.closing, f", {joined}\n{outer}")]
        # The space behind a comma becomes the last one of the next line's indent.
        apart = [(item.comma, f"\n{inner}"[:-1]) for item in self.elements if item.comma]
        lines = "".join(f",\n{item}" for item in added).replace("\n", f"\n{inner}")
        return [start, *apart, (self.closing, f"{lines},\n{outer}")]

    def _is_star(self, index: int) -> bool:
        """Whether an element that follows others is a bare `*`."""
        star = self.elements[index] if index > 0 else None
        return star is not None and self._text(star.start, star.end) == "*"

    def _can_be_joined(self, count: int) -> bool:
        """Whether nothing but space, no comment, stands around the first elements."""
        own, last = self.elements[: count + 1], self.elements[-1]
        gaps = [(self.opening, own[0].start), (last.comma or last.end, self.closing)]
        gaps += [(before.comma or before.end, after.start) for before, after in pairwise(own)]
        return not any(self._text(start, end).strip() for start, end in gaps)

    def _joined(self, count: int) -> list[tuple[Position, Position]]:
        """What is cut out to have the first elements on one line, and no others."""
        own = self.elements[:count]
        cuts = [(self.opening, own[0].start), (own[-1].end, self.closing)]
        for before, after in pairwise(own):
            if before.comma and before.comma[0] != after.start[0]:
                cuts.append((before.comma, (after.start[0], after.start[1] - 1)))
        return cuts

    def _text(self, start: Position, end: Position) -> str:
        lines = [*self.lines[start[0] - 1 : end[0]]]
        lines[-1] = lines[-1][: end[1]]
        lines[0] = lines[0][start[1] :]
        return "".join(lines)

    def _spread(self, parameters: Sequence[str], width: int) -> str:
        """What is put between empty parentheses that have to be taken apart, as black would write
        it."""
        outer = self._indent(self.opening)
        inner = outer + "    "
        joined = ", ".join(parameters)
        if "\n" in joined or len(inner + joined) > width:
            joined = (
                "".join(f"\n{item}," for item in parameters).lstrip().replace("\n", f"\n{inner}")
            )
        return f"\n{inner}{joined}\n{outer}"

    def _own_lines(self, parameters: Sequence[str], beside: Position) -> str:
        margin = self._indent(beside)
        return "".join(
            f"{margin}{item},\n"
            for item in (text.replace("\n", "\n" + margin) for text in parameters)
        )

    def _is_commented(self, at: Position) -> bool:
        return self._line(at)[at[1] :].lstrip().startswith("#")

    def _end_of_line(self, at: Position) -> Position:
        return at[0], len(self._line(at).rstrip("\r\n"))

    def _line(self, at: Position) -> str:
        return self.lines[at[0] - 1]

    def _indent(self, at: Position) -> str:
        line = self._line(at)
        return line[: len(line) - len(line.lstrip())]

    def _ends_its_line(self, at: Position) -> bool:
        return not self._line(at)[at[1] :].strip()

    def _starts_its_line(self, at: Position) -> bool:
        return not self._line(at)[: at[1]].strip()
