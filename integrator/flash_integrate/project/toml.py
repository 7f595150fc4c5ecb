"""TOML's reader, which Python has from 3.11 on, with one error for whatever a file may do to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_DOTS = 1000
_DEEPEST = 100
_TOO_DEEP = "nested too deeply to be read"


class NotToml(ValueError):
    """A text is not valid TOML, or holds what the reader can't take: says what."""


def read_toml(text: str) -> dict[str, Any]:
    """The document.

    Raises:
        NotToml: there is none.
    """
    # The time that the reader takes for a dotted key grows with the square of its length.
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise NotToml(f"a line with more than {_MOST_DOTS:,} dots")
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise NotToml(_TOO_DEEP) from error
    except ValueError as error:  # also a number of more digits than Python converts
        raise NotToml(str(error)) from error
    _check_depth(document)
    return document


def table_at(document: Any, keys: Iterable[str]) -> dict[str, Any]:
    """The table under those keys, one in the other; an empty one where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _check_depth(document: dict[str, Any]) -> None:
    """Whether whoever copies or compares the document by recursion can do so."""
    todo: list[tuple[object, int]] = [(document, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _DEEPEST:
            raise NotToml(_TOO_DEEP)
        inner = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        todo += [(item, depth + 1) for item in inner]
