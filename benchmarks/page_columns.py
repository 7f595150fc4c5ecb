"""The columns of docs/performance.md for what the scripts of this folder measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mlx_flash_runtime.tools.bench.columns import routes_column, spread, times_as_fast
from mlx_flash_runtime.tools.bench.numbers import ratio
from mlx_flash_runtime.tools.bench.tables import Column, Row, number, text

# By the last part of a key, as `forward_mib`.
UNITS = {"us": "µs", "ms": "ms", "s": "s", "mib": "MiB", "mb": "MB"}
# Names that readers know in other words.
_NAMES = {"pytorch": "PyTorch"}
_HEADINGS = {"pytorch": "PyTorch's backend", "torch": "PyTorch's version"}
OVER = "over_"


def columns(name: str, rows: Sequence[Row]) -> list[Column]:
    """Of the result of that name: a column a key of its first row. Quartiles stand with their
    median, as `1.2 ±3%`."""
    if name.startswith("routes_"):
        return _of_routes(rows)
    found = []
    for key, value in rows[0].items():
        if not isinstance(value, dict | list) and not _is_quartile(key, rows[0]):
            found.append(_column(key, value, rows[0]))
            if key == "ours_ms" and "stock_ms" in rows[0] and "over_stock" not in rows[0]:
                found.append(Column("× stock", _over_stock))
    return found


def has_quartiles(rows: Sequence[Row]) -> bool:
    """Whether times are shown with how far their rounds differ."""
    return any(_is_quartile(key, rows[0]) for key in rows[0])


def ours_of(row: Row) -> str:
    """Which of a row's times ratios compare the others with."""
    return "ours" if "ours_ms" in row else "kernel"


def _is_quartile(key: str, row: Row) -> bool:
    name, _, end = key.rpartition("_low_")
    if not name:
        name, _, end = key.rpartition("_high_")
    return bool(name) and f"{name}_{end}" in row


def _column(key: str, value: Any, row: Row) -> Column:
    """Of values like that one."""
    name, _, unit = key.rpartition("_")
    if unit == "ms" and f"{name}_low_ms" in row:
        return Column(_heading(key), partial(_time, name))
    if key.startswith(OVER):
        return _ratio(key)
    if isinstance(value, bool):
        return Column(_heading(key), lambda row: "yes" if row[key] else "no")
    return (text if isinstance(value, str) else number)(key, _heading(key))


def _ratio(key: str) -> Column:
    other = key.removeprefix(OVER)
    heading = f"× {_NAMES.get(other, other)}"
    return Column(heading, lambda row: times_as_fast(row, other, ours_of(row)))


def _over_stock(row: Row) -> str:
    """Of results that have no such ratio."""
    found = ratio(row["stock_ms"], row["ours_ms"])
    return times_as_fast({**row, "over_stock": found}, "stock")


def _heading(key: str) -> str:
    name, _, unit = key.rpartition("_")
    if unit in UNITS and name:
        return f"{_NAMES.get(name, name.replace('_', ' '))}, {UNITS[unit]}"
    return _HEADINGS.get(key, key.replace("_", " "))


def _of_routes(rows: Sequence[Row]) -> list[Column]:
    names = ("plain", "stock", "ours")
    return [
        text("case", "case"),
        routes_column(rows),
        *(Column(f"{name} ms", partial(_time, name)) for name in names),
        _ratio("over_plain"),
        _ratio("over_stock"),
        *(number(f"{name}_peak_mib", f"{name} MiB") for name in names),
        number("memory_ratio", "× less memory", 2),
        Column("error", _error),
    ]


def _error(row: Row) -> str:
    if row["error"] is None:
        return "-"
    return f"{'WRONG: ' if row['wrong'] else ''}{row['error']:.1e}"


def _time(name: str, row: Row) -> str:
    """The median with half the interquartile range."""
    if row.get(f"{name}_failure"):
        return str(row[f"{name}_failure"])
    median = row.get(f"{name}_ms")
    if median is None:
        return "-"
    return f"{median:,.10g} {spread(row[f'{name}_low_ms'], median, row[f'{name}_high_ms'])}"
