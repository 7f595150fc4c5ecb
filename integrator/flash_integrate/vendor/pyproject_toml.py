"""Adds the runtime to a pyproject.toml beside MLX, and takes it out again; every other byte stays
as it is.

The arrays and tables are found by a small scanner rather than by a parser that prints the file
again. Whatever it finds is checked: the result must be the same document with the one entry more.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flash_integrate.errors import CannotRemove, UnreadableSource
from flash_integrate.project.toml import read_toml
from flash_integrate.python.source import split_lines
from flash_integrate.vendor.requirement import (
    PACKAGE,
    CannotAdd,
    is_mlx,
    name_of,
    requirement_beside,
)
from flash_integrate.vendor.requirements_txt import insert_line, remove_lines

Keys = tuple[str, ...]
"""The way to a table or an array: `("project", "dependencies")`."""

POETRY: Keys = ("tool", "poetry", "dependencies")
_POETRY_CONDITIONS = ("markers", "platform", "python")
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')|(?P<comment>\#[^\n]*)|(?P<comma>,)|(?P<end>\])|\{[^{}]*\}|\s+"""
)


@dataclass(frozen=True)
class _Item:
    """A string in an array: where it stands in the text, quotes included, and where the comma
    after it does."""

    value: str
    start: int
    end: int
    comma: int | None


def pyproject_lists_mlx(data: bytes) -> bool:
    """Whether a pyproject.toml asks for MLX: among its dependencies, in an extra, a group or for
    Poetry.

    Raises:
        UnreadableSource: the file is not valid TOML.
    """
    return bool(_homes(_parse(data)))


def add_to_pyproject(data: bytes) -> bytes:
    """The file with the runtime beside each MLX requirement; as it is if it lists the runtime
    already.

    Raises:
        UnreadableSource: the file is not valid TOML.
        CannotAdd: it lists no MLX, or in a form that this function can't edit.
    """
    homes = _homes(_parse(data))
    if not homes:
        raise CannotAdd("lists no MLX package")
    for keys in homes:
        data = _add_to_poetry(data) if keys == POETRY else _add_to_array(data, keys)
    return data


def remove_from_pyproject(data: bytes) -> bytes:
    """The file without what `add_to_pyproject` writes. A requirement with a version is the user's
    own.

    Raises:
        UnreadableSource: the file is not valid TOML.
        CannotRemove: the entry stands in a form that this function can't edit.
    """
    for keys in _homes(_parse(data)):
        data = _remove_from_poetry(data) if keys == POETRY else _remove_from_array(data, keys)
    return data


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return read_toml(data.decode())
    except ValueError as error:  # not UTF-8, or not TOML
        raise UnreadableSource(f"not valid TOML: {error}") from error


def _at(document: dict[str, Any], keys: Keys) -> Any:
    """What stands at the end of the keys, None if nothing does."""
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _homes(document: dict[str, Any]) -> list[Keys]:
    """The arrays, or Poetry's table, that list MLX: the project's dependencies before its extras
    before its groups."""
    choices: list[list[Keys]] = [[("project", "dependencies")], [POETRY]]
    for table in (("project", "optional-dependencies"), ("dependency-groups",)):
        choices.append([(*table, name) for name in _at(document, table) or {}])
    for choice in choices:
        if homes := [
            keys for keys in choice if any(is_mlx(name) for name in _names(_at(document, keys)))
        ]:
            return homes
    return []


def _names(requirements: Any) -> list[str | None]:
    return [name_of(item) for item in requirements or () if isinstance(item, str)]


# Arrays


def _add_to_array(data: bytes, keys: Keys) -> bytes:
    document, text = _parse(data), data.decode()
    values = _at(document, keys)
    if PACKAGE in _names(values):
        return data
    items = list(_items(text, keys))
    mlx = [item for item in items if is_mlx(name_of(item.value))]
    if not mlx:
        raise _cannot_add(keys)
    anchor, index = mlx[-1], values.index(mlx[-1].value)
    new = _quoted(requirement_beside(item.value for item in mlx), text[anchor.start])
    if not _alone(text, anchor):
        result, index = f"{text[: anchor.end]}, {new}{text[anchor.end :]}".encode(), index + 1
    else:
        # A last item without a comma is not to be touched: the new line goes above it.
        below = anchor.comma is not None
        indent = text[text.rfind("\n", 0, anchor.start) + 1 : anchor.start]
        number = _line_number(text, anchor) - (0 if below else 1)
        result, index = insert_line(data, number, f"{indent}{new},"), index + below
    expected = copy.deepcopy(document)
    _at(expected, keys).insert(index, _unquoted(new))
    if not _is(result, expected):
        raise _cannot_add(keys)
    return result


def _remove_from_array(data: bytes, keys: Keys) -> bytes:
    document, text = _parse(data), data.decode()
    items = list(_items(text, keys))
    own = requirement_beside(item.value for item in items if is_mlx(name_of(item.value)))
    position = next((position for position, item in enumerate(items) if item.value == own), None)
    if position is None:
        return data
    item = items[position]
    if _alone(text, item) and item.comma is not None:
        result = remove_lines(data, {_line_number(text, item)})
    elif position:
        result = (text[: items[position - 1].end] + text[item.end :]).encode()
    else:
        result = (
            text[: item.start] + text[items[1].start if len(items) > 1 else item.end :]
        ).encode()
    expected = copy.deepcopy(document)
    _at(expected, keys).remove(own)
    if not _is(result, expected):
        raise CannotRemove(f"{PACKAGE} stands in {'.'.join(keys)} in a form that can't be edited")
    return result


def _items(text: str, keys: Keys) -> Iterator[_Item]:
    """The strings of the array that stands in a table of its own; none if it is not found, or
    holds other things."""
    header = re.search(rf"^[ \t]*\[{_spaced(keys[:-1])}\][ \t]*(?:#.*)?\r?$", text, re.MULTILINE)
    key = re.compile(rf"^[ \t]*{_spaced(keys[-1:])}=[ \t]*\[", re.MULTILINE)
    opening = key.search(text, header.end()) if header else None
    position, item = (opening.end() if opening else len(text)), None
    while (token := _TOKEN.match(text, position)) is not None:
        position = token.end()
        if token["string"] is not None:
            item = _Item(_unquoted(token["string"]), token.start(), token.end(), None)
        if item is not None and (token["comma"] or token["end"]):
            yield _Item(item.value, item.start, item.end, token.start() if token["comma"] else None)
            item = None
        if token["end"]:
            return


def _spaced(keys: Keys) -> str:
    """A pattern for dotted keys, bare or quoted, with the spaces that TOML allows."""
    return r"\.".join(rf"[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*" for key in keys)


def _alone(text: str, item: _Item) -> bool:
    """Whether an item, its comma included, has a line to itself; a comment may follow it."""
    line_start = text.rfind("\n", 0, item.start) + 1
    line_end = text.find("\n", item.end)
    after = text[item.end : line_end if line_end >= 0 else len(text)]
    comma_is_here = item.comma is None or item.comma < item.end + len(after)
    return (
        not text[line_start : item.start].strip()
        and comma_is_here
        and bool(re.match(r"\s*,?\s*(?:#|$)", after))
    )


def _line_number(text: str, item: _Item) -> int:
    return text.count("\n", 0, item.start) + 1


def _quoted(value: str, quote: str) -> str:
    if quote == "'" and "'" not in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)


def _unquoted(literal: str) -> str:
    return str(read_toml(f"value = {literal}")["value"])


# Poetry's table


def _add_to_poetry(data: bytes) -> bytes:
    document = _parse(data)
    table = _at(document, POETRY)
    if PACKAGE in _names(table):
        return data
    number, key = _last_mlx_line(data)
    if isinstance(table.get(key), dict) and table[key].get("optional"):
        raise CannotAdd(
            f"has {key} as an optional dependency: add {PACKAGE} and name it in the same extra"
        )
    value = _beside(table.get(key))
    line = f"{PACKAGE} = {_inline(value)}"
    expected = copy.deepcopy(document)
    _at(expected, POETRY)[PACKAGE] = value
    result = insert_line(data, number, line) if number else data
    if not _is(result, expected):
        raise _cannot_add(POETRY)
    return result


def _remove_from_poetry(data: bytes) -> bytes:
    document = _parse(data)
    table = _at(document, POETRY)
    _, key = _last_mlx_line(data)
    if PACKAGE not in table or table[PACKAGE] != _beside(table.get(key)):
        return data
    own = f"{PACKAGE} = {_inline(table[PACKAGE])}".encode()
    numbers = {
        number for number, line in enumerate(split_lines(data), start=1) if line.strip() == own
    }
    expected = copy.deepcopy(document)
    del _at(expected, POETRY)[PACKAGE]
    result = remove_lines(data, numbers)
    if not _is(result, expected):
        raise CannotRemove(f"{PACKAGE} stands in {'.'.join(POETRY)} in a form that can't be edited")
    return result


def _last_mlx_line(data: bytes) -> tuple[int, str]:
    """The number of the line in Poetry's table that sets the last MLX package, and its key; 0 if
    there is none."""
    header, key = (
        re.compile(rf"\s*\[{_spaced(POETRY)}\]"),
        re.compile(r"\s*[\"']?([\w.-]+)[\"']?\s*="),
    )
    inside, found = False, (0, "")
    for number, line in enumerate(split_lines(data), start=1):
        text = line.decode()
        if text.lstrip().startswith("["):
            inside = bool(header.match(text))
        elif inside and (match := key.match(text)) and is_mlx(name_of(match.group(1))):
            found = number, match.group(1)
    return found


def _beside(mlx: Any) -> str | dict[str, str]:
    """The runtime's value beside that of an MLX package: any version, under the same conditions."""
    conditions = (
        {key: mlx[key] for key in _POETRY_CONDITIONS if key in mlx} if isinstance(mlx, dict) else {}
    )
    return {"version": "*", **conditions} if conditions else "*"


def _inline(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    return (
        "{ "
        + ", ".join(
            f"{key} = {json.dumps(item, ensure_ascii=False)}" for key, item in value.items()
        )
        + " }"
    )


def _cannot_add(keys: Keys) -> CannotAdd:
    return CannotAdd(
        f"has its {'.'.join(keys)} in a form that can't be edited: add {PACKAGE} there"
    )


def _is(data: bytes, expected: dict[str, Any]) -> bool:
    """Whether the bytes are the expected document; a line put into the middle of a value makes
    them no TOML at all."""
    try:
        return _parse(data) == expected
    except UnreadableSource:
        return False
