"""What the tables of each kind of result show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .definitions import UNSTEADY
from .grid import CANDIDATES, GAIN, SUMMARY_KEYS, TOO_LARGE, WRONG
from .model_check import MOST_ROUNDING
from .tables import Column, Document, Row, Table, make_table, number, text, varying

_STEADY = 0.9


def tables_of(document: Document) -> list[Table]:
    """The tables of a result, of whatever kind."""
    return _TABLES[document.kind](document)


_GRID_NAMES = {
    "batch": number("batch", "batch"),
    "length": number("length", "length"),
    "head_dim": number("head_dim", "head dim"),
    "heads": number("heads", "heads"),
    "kv_heads": number("kv_heads", "key heads"),
    "dtype": text("dtype", "dtype"),
    "mask": text("mask", "mask"),
    "phase": text("phase", "phase"),
    "rounds": number("rounds", "rounds"),
}


def _grid(document: Document) -> list[Table]:
    rows = document.rows
    shape, constant = varying(_GRID_NAMES, rows)
    times = [Column(f"{name} ms", _time(name)) for name in CANDIDATES]
    columns = [
        *shape,
        routes_column(rows),
        *times,
        _ratio("plain"),
        _ratio("stock"),
        number("ours_tokens_per_s", "tokens/s"),
        Column("MiB", _sizes(CANDIDATES)),
        Column("error", _error),
        number("ours_stability", "stability", 3),
    ]
    table = make_table(constant, columns, rows, _wrong(rows), len(shape))
    return [table, _grid_summary(document.summary)]


def routes_column(rows: Sequence[Row]) -> Column:
    """The routes of the timed calls. Results of earlier releases know those of the first calls
    alone, and say so."""
    if not any("routes" in row for row in rows):
        return text("route", "route of the first calls")

    def cell(row: Row) -> str:
        if "routes" in row:
            return row["routes"] or "-"
        return f"{row['route']} (first calls)"

    return Column("routes", cell, words=True)


def _wrong(rows: list[Row]) -> list[int]:
    return [i for i, row in enumerate(rows) if row["ours_status"] == WRONG]


def _time(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        ms = row[f"{name}_ms"]
        if ms is None:
            return TOO_LARGE if row[f"{name}_status"] == TOO_LARGE else "-"
        return f"{ms:g} {spread(row[f'{name}_low_ms'], ms, row[f'{name}_high_ms'])}"

    return cell


def _ratio(other: str) -> Column:
    return Column(f"× {other}", lambda row: times_as_fast(row, other))


def times_as_fast(row: Row, other: str, ours: str = "ours") -> str:
    """How many times as fast ours is as the other, with a mark where either's rounds differ."""
    found = row.get(f"over_{other}")
    return "-" if found is None else f"{found:,.2f}{unsteady(row, (other, ours))}"


def unsteady(row: Row, names: Sequence[str]) -> str:
    """` ~` where the rounds of one of those differ so much that their ratio is a rough one: the
    middle half of them spans more than a tenth of their median."""
    stabilities = (_stability(row, name) for name in names)
    return f" {UNSTEADY}" if any(x is not None and x < _STEADY for x in stabilities) else ""


def _stability(row: Row, name: str) -> float | None:
    """1 minus the interquartile range over the median; None where the rounds were not kept."""
    median, low, high = (row.get(f"{name}_{key}ms") for key in ("", "low_", "high_"))
    if median is None or low is None or high is None:
        return row.get(f"{name}_stability")
    return float(1 - (high - low) / median)


def spread(low: float, median: float, high: float) -> str:
    """Half the interquartile range, in percent of the median."""
    return f"±{100 * (high - low) / 2 / median:.0f}%"


def _sizes(names: Sequence[str]) -> Callable[[Row], str]:
    """The peak memory of each, as `1.5 / 12 / 3`."""
    return lambda row: " / ".join(_size(row[f"{name}_peak_mib"]) for name in names)


def _size(mebibytes: float | None) -> str:
    if mebibytes is None:
        return "-"
    return f"{mebibytes:,.3g}" if mebibytes < 1000 else f"{mebibytes:,.0f}"


def _error(row: Row) -> str:
    if row["ours_status"] == WRONG:
        return f"WRONG: {row['ours_error']}"
    return "-" if row["ours_error"] is None else f"{row['ours_error']:.1e}"


def _grid_summary(summary: list[Row]) -> Table:
    names = {key: _GRID_NAMES[key] for key in SUMMARY_KEYS}
    shape, _ = varying(names, summary)
    shape = shape or [names["dtype"]]
    columns = [
        *shape,
        number("mean_over_plain", "mean × plain", 2),
        number("best_over_plain", "best", 2),
        number("worst_over_plain", "worst", 2),
        Column(f"at {GAIN}× or better", lambda row: f"{row['gaining']} of {row['configurations']}"),
        number("mean_over_stock", "mean × stock", 2),
        number("worst_over_stock", "worst × stock", 2),
        number("peak_tokens_per_s", "most tokens/s"),
        Column("stability, median (worst)", _stabilities),
    ]
    return make_table("summary", columns, summary, keys=len(shape))


def _stabilities(row: Row) -> str:
    if row["median_stability"] is None:
        return "-"
    return f"{row['median_stability']:.3f} ({row['worst_stability']:.3f})"


_WORKFLOW_NAMES = {
    "workflow": text("workflow", "workflow"),
    "model": text("model", "model"),
    "dtype": text("dtype", "dtype"),
    "length": number("length", "length"),
    "batch": number("batch", "batch"),
    "new_tokens": number("new_tokens", "new tokens"),
    "checkpoint": text("checkpoint", "checkpoint"),
    "rounds": number("rounds", "rounds"),
}


def _workflow(document: Document) -> list[Table]:
    rows = document.rows
    shape, constant = varying(_WORKFLOW_NAMES, rows)
    shape = shape or [_WORKFLOW_NAMES["length"]]
    replies = any(row["stock_first_token_ms"] for row in rows)
    first_token = [Column("first token ms", _pair("first_token_ms"))] if replies else []
    if any(row.get("stock_later_tokens_per_s") for row in rows):
        first_token.append(Column("then tokens/s", _pair("later_tokens_per_s")))
    differences = [Column("difference", _logits)]
    if any("layer_difference" in row for row in rows):
        differences = [Column("by layer", _by_layer), Column("logits", _logits)]
    columns = [
        *shape,
        routes_column(rows),
        Column("stock tokens/s", _speed("stock")),
        Column("ours tokens/s", _speed("ours")),
        _ratio("stock"),
        *first_token,
        Column("MiB", _sizes(("stock", "ours"))),
        Column("attention", _share),
        number("bound", "at most ×", 2),
        *differences,
    ]
    return [make_table(constant, columns, rows, _wrong(rows), len(shape))]


def _speed(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        speed = row[f"{name}_tokens_per_s"]
        if speed is None:
            return str(row[f"{name}_status"])
        low, high = row[f"{name}_low_tokens_per_s"], row[f"{name}_high_tokens_per_s"]
        return f"{speed:,g} {spread(low, speed, high)}"

    return cell


def _share(row: Row) -> str:
    share = row["attention_share"]
    return "-" if share is None else f"{share:.0%}"


def _pair(key: str) -> Callable[[Row], str]:
    """The number of stock and that of ours, as `12 / 3`."""

    def cell(row: Row) -> str:
        numbers = (row.get(f"{name}_{key}") for name in ("stock", "ours"))
        return " / ".join("-" if number is None else f"{number:,g}" for number in numbers)

    return cell


def _by_layer(row: Row) -> str:
    if row.get("layer_difference") is None:
        return "-"
    wrong = "WRONG: " if row["ours_status"] == WRONG else ""
    return f"{wrong}{row['layer_difference']:.1e} ({row['layer_rounding']:.1e})"


def _logits(row: Row) -> str:
    if row["difference"] is None:
        return "-"
    if row["rounding"] > MOST_ROUNDING:
        return f"not comparable ({row['rounding']:.1e})"
    wrong = "WRONG: " if row["ours_status"] == WRONG else ""
    return f"{wrong}{row['difference']:.1e} ({row['rounding']:.1e})"


_WITH = {"ours": "with", "stock": "without"}


def _compare(document: Document) -> list[Table]:
    columns = [
        text("quantity", "median"),
        number("ours", "with"),
        number("stock", "without"),
        number("gain", "gain ×", 2),
        Column("95 % interval", _interval),
    ]
    run_columns = [
        number("run", "run"),
        Column("flash attention", lambda row: _WITH[row["mode"]], words=True),
        number("seconds", "seconds"),
        number("peak_mib", "peak MiB"),
        number("mlx_peak_mib", "of MLX"),
        text("routes", "routes"),
    ]
    return [
        make_table("", columns, document.summary),
        make_table("runs", run_columns, document.rows, keys=2),
    ]


def _interval(row: Row) -> str:
    return "-" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"


_TABLES: dict[str, Callable[[Document], list[Table]]] = {
    "grid": _grid,
    "workflow": _workflow,
    "compare": _compare,
}
