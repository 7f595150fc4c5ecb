"""What of a script's output two runs have in common: its speeds, and whether the rest agrees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Relative; a number that differs by more is another number.
TOLERANCE = 1e-3

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TOKENS = r"(?:tokens?|toks?)\s*(?:/|-?per-?|\s+per\s+)\s*s(?:ec(?:ond)?)?\b"
# "123.4 tokens/s", "Tokens/sec: 123.4", "generation_tps=123.4"
_SPEED = re.compile(rf"({_NUMBER})\s*{_TOKENS}|(?:{_TOKENS}|\w*_tps)\s*[:=]?\s*({_NUMBER})", re.I)
_TIME_OR_SIZE = re.compile(
    rf"\d+:\d\d(?::\d\d)?(?:[.,]\d+)?|{_NUMBER}\s*(?:[num]?s|secs?|seconds?|min|minutes?|h|hours?|[KMGT]i?B|it/s"
    rf"|it/sec|s/it|%\||x)(?!\w)",
    re.I,
)


@dataclass(frozen=True)
class Speed:
    """A line of the output that tells tokens per second: the line with `#` for its numbers, and the values."""

    line: str
    values: tuple[float, ...]


def speeds(output: str) -> dict[str, list[float]]:
    """Tokens per second by line, which is written with `#` in the place of its numbers."""
    found: dict[str, list[float]] = {}
    for line in _lines(output):
        for match in _SPEED.finditer(line):
            name = re.sub(_NUMBER, "#", line).strip()
            found.setdefault(name, []).append(_value(match[1] or match[2]))
    return found


@dataclass(frozen=True)
class Agreement:
    """`agree` is None where nothing could be compared. `largest` is the largest relative difference of a number,
    `left_out` how many lines were not compared, `first` the first pair of lines that differ."""

    agree: bool | None
    largest: float
    compared: int
    left_out: int
    first: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.agree is None:
            return "the outputs vary from run to run by themselves: nothing to compare"
        lines = f"{self.compared} line{'s' if self.compared != 1 else ''} compared, {self.left_out} left out"
        if not self.agree:
            assert self.first is not None
            pair = "\n".join(f"  {line}" for line in self.first)
            return f"the outputs differ ({lines}); first with flash attention, then without:\n{pair}"
        if self.largest == 0:
            return f"the outputs agree to the letter ({lines})"
        return f"the outputs agree: same text, numbers within {self.largest:.1e} of each other ({lines})"


def compare(ours: Sequence[str], stock: Sequence[str]) -> Agreement:
    """Holds the outputs of the runs with flash attention against those without.

    Numbers that are times, sizes or speeds, as their units say, do not count; nor do lines that differ among runs of
    the same kind. All other text must be equal, and all other numbers within TOLERANCE of each other.
    """
    ours_runs, stock_runs = ([_masked(output) for output in outputs] for outputs in (ours, stock))
    first_ours, first_stock = ours_runs[0], stock_runs[0]
    varying = _varying(ours_runs) | _varying(stock_runs)
    if len({len(lines) for lines in ours_runs}) > 1 or len({len(lines) for lines in stock_runs}) > 1:
        return Agreement(None, 0.0, 0, max(len(first_ours), len(first_stock)))
    if len(first_ours) != len(first_stock):
        odd = next((p for p in zip(first_ours, first_stock) if _distance(*p) is None), ("", ""))  # noqa: B905
        return Agreement(False, 0.0, min(len(first_ours), len(first_stock)), 0, odd)
    largest, compared = 0.0, 0
    for index, pair in enumerate(zip(first_ours, first_stock, strict=True)):
        if index in varying:
            continue
        distance = _distance(*pair)
        if distance is None or distance > TOLERANCE:
            return Agreement(False, 0.0, compared, len(varying), pair)
        largest, compared = max(largest, distance), compared + 1
    if not compared and varying:
        return Agreement(None, 0.0, 0, len(varying))
    return Agreement(True, largest, compared, len(varying))


def _lines(output: str) -> list[str]:
    # A progress bar rewrites its line: what stands there last counts.
    lines = (line.rstrip().rpartition("\r")[2] for line in output.split("\n"))
    return [line for line in lines if line]


def _masked(output: str) -> list[str]:
    lines = (line for line in _lines(output) if not line.startswith("flash attention:"))
    return [_TIME_OR_SIZE.sub("~", _SPEED.sub("~", line)) for line in lines]


def _varying(runs: Sequence[Sequence[str]]) -> set[int]:
    varying = set()
    for other in runs[1:]:
        for index, pair in enumerate(zip(runs[0], other)):  # noqa: B905  # unequal lengths are seen to by the caller
            distance = _distance(*pair)
            if distance is None or distance > TOLERANCE:
                varying.add(index)
    return varying


def _distance(left: str, right: str) -> float | None:
    """The largest relative difference of the numbers in two lines; None where the text between them differs."""
    if re.sub(_NUMBER, "#", left) != re.sub(_NUMBER, "#", right):
        return None
    pairs = zip(re.findall(_NUMBER, left), re.findall(_NUMBER, right), strict=True)
    return max((_relative(_value(a), _value(b)) for a, b in pairs), default=0.0)


def _relative(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


def _value(number: str) -> float:
    return float(number.replace(",", ""))
