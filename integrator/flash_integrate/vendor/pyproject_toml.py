"""Adds the runtime to a pyproject.toml beside MLX, and takes it out again; every other byte stays
as it is.

Where a new entry could go is looked for in the text, and TOML's reader then says whether it is the
right place: the result must be the same document with the one entry more. (tomlkit, which edits
such files, dropped commas and comments in a third of the layouts in the tests.)
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flash_integrate.errors import CannotRemove, UnreadableSource
from flash_integrate.project.toml import read_toml
from flash_integrate.vendor.origin import Origin
from flash_integrate.vendor.requirement import (
    PACKAGE,
    CannotAdd,
    is_mlx,
    is_own,
    name_of,
    requirement_beside,
)
from flash_integrate.vendor.requirements_txt import insert_line, remove_lines

Keys = tuple[str, ...]
"""The way to a table or an array: `("project", "dependencies")`."""
Document = dict[str, Any]

POETRY: Keys = ("tool", "poetry", "dependencies")
_POETRY_CONDITIONS = ("markers", "platform", "python")
_POETRY_SOURCES = {"version", "git", "subdirectory", "path"}
_MOST_PLACES = 100
"""So many places of one string are tried: the file is read again for each."""
_HATCH_ALLOWS: Keys = ("tool", "hatch", "metadata", "allow-direct-references")


def pyproject_lists_mlx(data: bytes) -> bool:
    """Whether a pyproject.toml asks for MLX: among its dependencies, in an extra, a group or for
    Poetry.

    Raises:
        UnreadableSource: the file is not valid TOML.
    """
    return bool(_homes(_parse(data)))


def add_to_pyproject(data: bytes, origin: Origin) -> bytes:
    """The file with the runtime, from `origin`, beside each MLX requirement; as it is if it lists
    the runtime already.

    Raises:
        UnreadableSource: the file is not valid TOML.
        CannotAdd: it lists no MLX, or in a form that this function can't edit.
    """
    homes = _homes(_parse(data))
    if not homes:
        raise CannotAdd("lists no MLX package")
    for keys in homes:
        add = _add_to_poetry if keys == POETRY else _add_to_array
        data = add(data, keys, origin)
    return data


def remove_from_pyproject(data: bytes) -> bytes:
    """The file without what `add_to_pyproject` writes. A requirement with a version is the user's
    own.

    Raises:
        UnreadableSource: the file is not valid TOML.
        CannotRemove: the entry stands in a form that this function can't edit.
    """
    for keys in _homes(_parse(data)):
        remove = _remove_from_poetry if keys == POETRY else _remove_from_array
        data = remove(data, keys)
    return data


def _parse(data: bytes) -> Document:
    try:
        return read_toml(data.decode())
    except ValueError as error:  # not UTF-8, or not TOML
        raise UnreadableSource(f"not valid TOML: {error}") from error


def _at(document: Document, keys: Keys) -> Any:
    """What stands at the end of the keys, None if nothing does."""
    value: Any = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _homes(document: Document) -> list[Keys]:
    """The arrays, or Poetry's table, that list MLX: the project's dependencies before its extras
    before its groups."""
    choices: list[list[Keys]] = [[("project", "dependencies")], [POETRY]]
    for table in (("project", "optional-dependencies"), ("dependency-groups",)):
        choices.append([(*table, name) for name in _at(document, table) or {}])
    for choice in choices:
        homes = [keys for keys in choice if any(map(is_mlx, _names(_at(document, keys))))]
        if homes:
            return homes
    return []


def _names(requirements: Any) -> list[str | None]:
    return [name_of(item) for item in _strings(requirements)]


def _strings(requirements: Any) -> list[str]:
    return [item for item in requirements or () if isinstance(item, str)]


def _first_right(
    results: Iterator[bytes], document: Document, without: Callable[[Document], None]
) -> bytes | None:
    """The first of the results that is `document` once `without` has taken an entry out of it. An
    entry put into the middle of a value makes it no TOML at all."""
    for result in results:
        try:
            parsed = _parse(result)
            without(parsed)
        except (UnreadableSource, ValueError, KeyError):
            continue
        if parsed == document:
            return result
    return None


# Arrays


@dataclass(frozen=True)
class _Place:
    """Where a string stands in a text, its quotes included, and which quotes they are."""

    start: int
    end: int
    quote: str


def _places(text: str, value: str) -> Iterator[_Place]:
    """Where the text has a value as a string of TOML, the last place first."""
    spelled = {"'": f"'{value}'", '"': json.dumps(value, ensure_ascii=False)}
    found = [
        _Place(match.start(), match.end(), quote)
        for quote, literal in spelled.items()
        for match in re.finditer(re.escape(literal), text)
    ]
    found.sort(key=lambda place: place.start, reverse=True)
    return iter(found[:_MOST_PLACES])


def _add_to_array(data: bytes, keys: Keys, origin: Origin) -> bytes:
    document = _parse(data)
    values = _strings(_at(document, keys))
    if PACKAGE in map(name_of, values):
        return data
    mlx = [item for item in values if is_mlx(name_of(item))]
    new = requirement_beside(mlx, origin.requirement)
    if keys[0] == "project" and "@" in new and _refuses_addresses(document):
        raise CannotAdd(
            f"is built by hatchling, which takes an address only with {'.'.join(_HATCH_ALLOWS)}: "
            f"set that to true, or install {new!r} where the scripts run"
        )
    text = data.decode()
    results = (_beside_place(text, place, new) for place in _places(text, mlx[-1]))
    result = _first_right(results, document, lambda parsed: _at(parsed, keys).remove(new))
    if result is None:
        raise _cannot_add(keys, new)
    return result


def _beside_place(text: str, place: _Place, new: str) -> bytes:
    """The text with an entry behind the one at a place: on a line of its own if that has one."""
    quoted = f"'{new}'" if place.quote == "'" and "'" not in new else json.dumps(new)
    line_start = text.rfind("\n", 0, place.start) + 1
    indent = text[line_start : place.start]
    if not _is_alone(text, place):
        return f"{text[: place.end]}, {quoted}{text[place.end :]}".encode()
    number = text.count("\n", 0, place.start) + 1
    # A last item without a comma is not to be touched: the new line goes above it.
    has_comma = bool(re.match(r"[ \t]*,", text[place.end :]))
    return insert_line(text.encode(), number if has_comma else number - 1, f"{indent}{quoted},")


def _is_alone(text: str, place: _Place) -> bool:
    """Whether a string, with a comma and a comment behind it, has a line to itself."""
    before = text[text.rfind("\n", 0, place.start) + 1 : place.start]
    after = text[place.end :].partition("\n")[0]
    return not before.strip() and re.fullmatch(r"\s*,?\s*(#.*)?", after) is not None


def _remove_from_array(data: bytes, keys: Keys) -> bytes:
    document, text = _parse(data), data.decode()
    own = next((item for item in _strings(_at(document, keys)) if is_own(item)), None)
    if own is None:
        return data
    expected = copy.deepcopy(document)
    _at(expected, keys).remove(own)
    results = (result for place in _places(text, own) for result in _without_place(text, place))
    result = _first_right(results, expected, lambda parsed: None)
    if result is None:
        raise _cannot_remove(keys)
    return result


def _without_place(text: str, place: _Place) -> Iterator[bytes]:
    """The text without the string at a place, and without one of the commas around it."""
    head, tail = text[: place.start], text[place.end :]
    if _is_alone(text, place) and re.match(r"[ \t]*,", tail):
        yield remove_lines(text.encode(), {text.count("\n", 0, place.start) + 1})
    before, after = head.rstrip(), tail.lstrip()
    if before.endswith(","):
        yield (before[:-1].rstrip() + tail).encode()
    if after.startswith(","):
        yield (head + after[1:].lstrip()).encode()
    yield (head + tail).encode()


def _refuses_addresses(document: Document) -> bool:
    """Whether the project's build backend takes no dependency by its address."""
    backend = str(_at(document, ("build-system", "build-backend")))
    return backend.startswith("hatchling") and _at(document, _HATCH_ALLOWS) is not True


# Poetry's table


def _add_to_poetry(data: bytes, keys: Keys, origin: Origin) -> bytes:
    document = _parse(data)
    table = _at(document, keys)
    if PACKAGE in _names(table):
        return data
    key = next(key for key in reversed(table) if is_mlx(name_of(key)))
    if isinstance(table[key], dict) and table[key].get("optional"):
        raise CannotAdd(
            f"has {key} as an optional dependency: add {PACKAGE} and name it in the same extra"
        )
    line = f"{PACKAGE} = {_inline(_beside(table[key], origin))}"
    results = (insert_line(data, number, line) for number in _lines_of_key(data, key))
    result = _first_right(results, document, lambda parsed: _at(parsed, keys).pop(PACKAGE))
    if result is None:
        raise _cannot_add(keys, PACKAGE)
    return result


def _remove_from_poetry(data: bytes, keys: Keys) -> bytes:
    document = _parse(data)
    value = _at(document, keys).get(PACKAGE)
    given = value if isinstance(value, dict) else {"version": value}
    allowed = _POETRY_SOURCES | set(_POETRY_CONDITIONS)
    if value is None or given.get("version", "*") != "*" or given.keys() - allowed:
        return data
    expected = copy.deepcopy(document)
    del _at(expected, keys)[PACKAGE]
    results = (remove_lines(data, {number}) for number in _lines_of_key(data, PACKAGE))
    result = _first_right(results, expected, lambda parsed: None)
    if result is None:
        raise _cannot_remove(keys)
    return result


def _lines_of_key(data: bytes, key: str) -> Iterator[int]:
    """The numbers of the lines that set a key, in whatever table."""
    pattern = re.compile(rf"[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=")
    lines = enumerate(data.decode().split("\n"), start=1)
    found = [number for number, line in lines if pattern.match(line)]
    return iter(found[:_MOST_PLACES])


def _beside(mlx: Any, origin: Origin) -> str | dict[str, str]:
    """The runtime's value beside that of an MLX package: any version or where it comes from, under
    the same conditions."""
    given = mlx if isinstance(mlx, dict) else {}
    conditions = {key: given[key] for key in _POETRY_CONDITIONS if key in given}
    if not origin.poetry and not conditions:
        return "*"
    return {**(origin.poetry or {"version": "*"}), **conditions}


def _inline(value: str | dict[str, str]) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    items = (f"{key} = {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    return f"{{ {', '.join(items)} }}"


def _cannot_add(keys: Keys, new: str) -> CannotAdd:
    return CannotAdd(f"has its {'.'.join(keys)} in a form that can't be edited: add {new!r} there")


def _cannot_remove(keys: Keys) -> CannotRemove:
    return CannotRemove(f"{PACKAGE} stands in {'.'.join(keys)} in a form that can't be edited")
