"""Values in a JSON text, and where each stands in it. The text was decoded as a whole before: what
is here does not meet an error in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Value:
    """A decoded JSON value and where its text stands."""

    decoded: Any
    start: int
    end: int


def members(text: str, value: Value) -> dict[str, Value]:
    """The members of an object."""
    found = {}
    position = skip_space(text, value.start + 1)
    while text[position] != "}":
        name = _value(text, position)
        found[name.decoded] = member = _value(text, skip_space(text, name.end) + 1)
        position = _next(text, member)
    return found


def items(text: str, value: Value) -> list[Value]:
    """The items of a list."""
    found = []
    position = skip_space(text, value.start + 1)
    while text[position] != "]":
        found.append(_value(text, position))
        position = _next(text, found[-1])
    return found


def _value(text: str, position: int) -> Value:
    start = skip_space(text, position)
    decoded, end = _DECODER.raw_decode(text, start)
    return Value(decoded, start, end)


def _next(text: str, value: Value) -> int:
    """Where the next value starts, or the bracket that closes."""
    position = skip_space(text, value.end)
    return skip_space(text, position + 1) if text[position] == "," else position


def skip_space(text: str, position: int) -> int:
    """The position of what follows the blanks at a position."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
