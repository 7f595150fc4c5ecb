"""What of a script's output two runs have in common: its speeds, and whether the rest agrees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# A number that differs by more, both relatively and absolutely, is another number.
TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-6

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TOKENS = r"(?:tokens?|toks?)\s*(?:/|-?per-?|\s+per\s+)\s*s(?:ec(?:ond)?)?\b"
_UNIT = r"(?:[num]?s|secs?|seconds?|min|minutes?|h|hours?|[KMGT]i?B|it/s|it/sec|s/it|%\||x)(?!\w)"
# "123.4 tokens/s", "Tokens/sec: 123.4", "generation_tps=123.4"
_SPEED = re.compile(rf"({_NUMBER})\s*{_TOKENS}|(?:{_TOKENS}|\w*_tps)\s*[:=]?\s*({_NUMBER})", re.I)
_TIME_OR_SIZE = re.compile(rf"\d+:\d\d(?::\d\d)?(?:[.,]\d+)?|{_NUMBER}\s*{_UNIT}", re.I)
_COLOR = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
# Cells of a table stand two blanks or a bar apart, which has blanks beside it unless a bar begins
# the row: `mean |out|` is one. A unit ends a column's heading.
_GAP = re.compile(r"\s+\|\s+|\s{2,}")
_BAR = re.compile(r"\s*\|\s*")
_HEADING_UNIT = re.compile(rf"({_TOKENS}|(?<!\w){_UNIT})$", re.I)
# Numbers in columns have as many blanks beside them as digits leave.
_BESIDE = re.compile(r"\s*([#~])\s*")
# What the runtime itself says, perhaps after what a logger puts before it.
_OWN = re.compile(r"\bflash attention: (?:on|off|no|\d+)\b")


def speeds(output: str) -> dict[str, list[float]]:
    """Tokens per second by line. A line is known by its words, with `#` in the place of its numbers
    and without symbols; a row of a table that has no words, by its whole numbers (`512 8`)."""
    found: dict[str, list[float]] = {}
    for line in _lines(output):
        for match in _SPEED.finditer(line):
            found.setdefault(_name_of(line), []).append(_value(match[1] or match[2]))
    return found


def _name_of(line: str) -> str:
    if _has_words(line):
        return " ".join(re.sub(r"[^\w\s.,:;/%#()=-]", "", re.sub(_NUMBER, "#", line)).split())
    others = _TIME_OR_SIZE.sub(" ", _SPEED.sub(" ", line))
    return " ".join(number for number in re.findall(_NUMBER, others) if number.isdecimal())


def _has_words(line: str) -> bool:
    """Whether a line says more than numbers and units: `generation_tps: 5` does, `8  5 tok/s` does
    not."""
    units_gone = re.sub(_TOKENS, " ", _TIME_OR_SIZE.sub(" ", line), flags=re.I)
    return re.search(r"[^\W\d_]", re.sub(_NUMBER, " ", units_gone)) is not None


@dataclass(frozen=True)
class Agreement:
    """`agree` is None where nothing could be compared. `largest` is the largest relative
    difference of a number; `left_out` how many lines were not compared, and `numbers_left_out` how
    many numbers in the others; `first` the first pair of lines that differ."""

    agree: bool | None
    largest: float
    compared: int
    left_out: int
    numbers_left_out: int = 0
    first: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.agree is None:
            return "the outputs vary from run to run by themselves: nothing to compare"
        if not self.agree:
            assert self.first is not None
            ours, stock = self.first
            return (
                f"the outputs differ ({self._extent()}); first with flash attention, then without:"
                f"\n  {ours}\n  {stock}"
            )
        if self.largest == 0:
            return f"the outputs agree to the letter ({self._extent()})"
        return (
            f"the outputs agree: same text, numbers within {self.largest:.1e} of each other "
            f"({self._extent()})"
        )

    def _extent(self) -> str:
        """How much was compared, and how much was not."""
        lines = f"{self.compared} line{'s' if self.compared != 1 else ''} compared"
        if not self.left_out and not self.numbers_left_out:
            return lines
        return (
            f"{lines}; left out, as they vary from run to run: {self.left_out} lines, "
            f"{self.numbers_left_out} numbers"
        )


@dataclass(frozen=True)
class _Line:
    shown: str
    text: str  # with # for its numbers, ~ for times, sizes and speeds, no blanks beside them
    numbers: tuple[float, ...]


def compare(ours: Sequence[str], stock: Sequence[str]) -> Agreement:
    """Holds the outputs of the runs with flash attention against those without.

    Numbers that are times, sizes or speeds, as their units say, do not count; nor does what
    differs among runs of the same kind: a line whose text does, a number that does. All other text
    must be equal, and all other numbers within the tolerances of each other.
    """
    ours_runs = [_read(output) for output in ours]
    stock_runs = [_read(output) for output in stock]
    a, b = ours_runs[0], stock_runs[0]
    if _vary_in_length(ours_runs) or _vary_in_length(stock_runs):
        return Agreement(None, 0.0, 0, max(len(a), len(b)))
    if len(a) != len(b):
        return Agreement(False, 0.0, min(len(a), len(b)), 0, 0, _first_difference(a, b))
    largest, compared, left_out, numbers_left_out = 0.0, 0, 0, 0
    for number, (ours_line, stock_line) in enumerate(zip(a, b, strict=True)):
        # The same line of every run of each kind.
        ours_lines = [run[number] for run in ours_runs]
        stock_lines = [run[number] for run in stock_runs]
        if _vary_in_text(ours_lines) or _vary_in_text(stock_lines):
            left_out += 1
            continue
        varying = _varying(ours_lines) | _varying(stock_lines)
        distance = _distance(ours_line, stock_line, varying)
        if distance is None or distance > TOLERANCE:
            pair = (ours_line.shown, stock_line.shown)
            return Agreement(False, 0.0, compared, left_out, numbers_left_out, pair)
        if varying and len(varying) == len(ours_line.numbers):
            left_out += 1
            continue
        largest, compared = max(largest, distance), compared + 1
        numbers_left_out += len(varying)
    if not compared and left_out:
        return Agreement(None, 0.0, 0, left_out)
    return Agreement(True, largest, compared, left_out, numbers_left_out)


def _vary_in_length(runs: Sequence[Sequence[_Line]]) -> bool:
    return len({len(lines) for lines in runs}) > 1


def _vary_in_text(lines: Sequence[_Line]) -> bool:
    return len({line.text for line in lines}) > 1


def _first_difference(a: Sequence[_Line], b: Sequence[_Line]) -> tuple[str, str]:
    """The first lines whose text differs; empty ones where one output has no more lines."""
    for ours, stock in zip(a, b):  # noqa: B905  # of different lengths
        if ours.text != stock.text:
            return ours.shown, stock.shown
    return "", ""


def _distance(a: _Line, b: _Line, without: set[int]) -> float | None:
    """The largest relative difference of two lines' numbers; None where the text between them
    differs."""
    if a.text != b.text:
        return None
    largest = 0.0
    for position, (ours, stock) in enumerate(zip(a.numbers, b.numbers, strict=True)):
        if position not in without:
            largest = max(largest, _relative(ours, stock))
    return largest


def _varying(lines: Sequence[_Line]) -> set[int]:
    """The positions of the numbers that differ among lines of one text."""
    first = lines[0].numbers
    found = set()
    for line in lines[1:]:
        for position, (a, b) in enumerate(zip(first, line.numbers, strict=True)):
            if _relative(a, b) > TOLERANCE:
                found.add(position)
    return found


def _lines(output: str) -> Iterator[str]:
    """The lines as they were seen: without colours, of a progress bar what it showed last. In
    tables each number that has its unit in the column's heading gets it in its cell."""
    heading: list[str] = []
    for raw in output.split("\n"):
        line = _COLOR.sub("", raw).rstrip().rpartition("\r")[2]
        if not line:
            continue
        cells = _cells(line.strip())
        if len(cells) > 1 and not re.search(r"\d", line) and any(map(_HEADING_UNIT.search, cells)):
            heading = cells
        elif len(cells) == len(heading):
            line = "  ".join(map(_with_unit, cells, heading))
        yield line


def _cells(row: str) -> list[str]:
    return _BAR.split(row.strip("| ")) if row.startswith("|") else _GAP.split(row)


def _with_unit(cell: str, heading: str) -> str:
    unit = _HEADING_UNIT.search(heading)
    return f"{cell} {unit[1]}" if unit else cell


def _read(output: str) -> list[_Line]:
    lines = []
    for line in _lines(output):
        if not _OWN.search(line):
            masked = _TIME_OR_SIZE.sub("~", _SPEED.sub("~", line))
            numbers = tuple(map(_value, re.findall(_NUMBER, masked)))
            text = _BESIDE.sub(r"\1", re.sub(_NUMBER, "#", masked))
            lines.append(_Line(line, text, numbers))
    return lines


def _relative(a: float, b: float) -> float:
    return 0.0 if abs(a - b) <= ABSOLUTE_TOLERANCE else abs(a - b) / max(abs(a), abs(b))


def _value(number: str) -> float:
    return float(number.replace(",", ""))
