"""What the tables of each kind of result show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .grid import CANDIDATES, GAIN, SUMMARY_KEYS, TOO_LARGE, WRONG
from .model_check import MOST_ROUNDING
from .tables import Column, Document, Row, Table, make_table, number, text, varying

GRID_DEFINITIONS = (
    "plain: softmax(QKᵀ)V in MLX operations; stock: mx.fast.scaled_dot_product_attention; ours: "
    "the same call with flash attention enabled, on the routes named: those of the timed calls, "
    "with their shares of them.",
    "Times are medians in milliseconds per call, all candidates in one process, in turns, after a "
    "warm-up, Python's garbage collector off; the ± is half the interquartile range. A timed "
    "region chains as many calls of each candidate as the fastest takes to last 10 ms, 256 at "
    "most.",
    "Speedups divide the times shown in the same row. Mean: arithmetic, over the rows that have "
    "both times.",
    "Stability: 1 minus the interquartile range over the median, of ours; 1 is the same time in "
    "every round.",
    "Tokens/s: queries of all batch entries over the time of ours.",
    "Memory: peak of one call beyond its inputs, plain / stock / ours.",
    "Error: largest difference from float64 attention, relative to the largest element; in "
    "training, of the output and the three gradients. A row is wrong where ours exceeds twice the "
    "error of stock or plain in the same type.",
)


WORKFLOW_DEFINITIONS = (
    "stock: MLX's own attention; ours: flash attention enabled, on the routes named (those of the "
    "attention calls of the timed runs, with their shares of the calls; of a compiled training "
    "step those that it was compiled with); both in one process, in turns, after two runs of "
    "each, Python's garbage collector off; the ± is half the interquartile range.",
    "Tokens/s: tokens trained or evaluated per second; in chat and batch those of the replies "
    "over the whole time, prompts included. Length: tokens of a training row, of an evaluated "
    "text, of a prompt (in batch the longest; the shortest has half; in chat a token fewer in "
    "each run, as no two turns of a chat have one length). × stock divides the tokens/s of the "
    "same row.",
    "First token: median milliseconds until the first token of a reply (in batch: of any).",
    "Memory: peak in MiB, stock / ours, everything included: model, optimizer, cache.",
    "Attention: the share of stock's time that is gone when attention is replaced by adding "
    "numbers of the output's shape, which still need q, k and v; at most: the speedup if "
    "attention took no time at all (Amdahl's law).",
    "By layer: how far the outputs of attention are from those of stock on the same inputs, "
    "relative to the largest, in the layer where they are farthest, for one row of up to 2,048 "
    "tokens; in brackets that of stock with the keys in reverse order, which is the same attention "
    "in other roundings. Logits: the same of the model's output; not comparable where other "
    "roundings alone change it by a tenth or more. A row is wrong where ours is more than ten "
    "times as far as other roundings are.",
    "Data are random tokens; a model that was made for the measurement has random weights.",
)
CHAOTIC = (
    "Where the difference of the logits in brackets is itself of the size of the logits, as with "
    "the random weights of the shape gemma, stock alone turns roundings into other logits: the "
    "comparison of logits says nothing there, in either direction. That the routes are right is "
    "then known from the outputs of attention by layer, or, where a result of an earlier release "
    "has none, from single calls, in `mlx-flash bench grid` and in the tests."
)


def is_chaotic(rows: Sequence[Row]) -> bool:
    """Whether CHAOTIC is to be said of rows of workflows, as their differences look like errors
    otherwise."""
    return any((row.get("rounding") or 0) > MOST_ROUNDING for row in rows)


COMPARE_DEFINITIONS = (
    "Medians over the runs, in turns, after one of each kind that is not timed. Gain: how many "
    "times faster, smaller or more with flash attention than without, as the ratio of the "
    "medians; its 95 % interval is by bootstrap over the rounds (from five on).",
    "Seconds are wall time from start to end (of a server's client, if there is one), loading "
    "included. Peak MiB: the process's resident memory as the operating system counts it; a GPU's "
    "own memory is not in it. Of MLX: what MLX held at a time, on a GPU the GPU's, unless the "
    "script resets that count.",
    "Outputs: times, sizes and speeds (by their units) do not count, nor text and numbers that "
    "differ between runs of the same kind; all other text must be equal and numbers within 0.1 % "
    "or 0.000001 of each other.",
)


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
        number("over_plain", "× plain", 2),
        number("over_stock", "× stock", 2),
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
        return f"{ms:g} {_spread(row[f'{name}_low_ms'], ms, row[f'{name}_high_ms'])}"

    return cell


def _spread(low: float, median: float, high: float) -> str:
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
    first_token = [Column("first token ms", _first_tokens)] if replies else []
    differences = [Column("difference", _logits)]
    if any("layer_difference" in row for row in rows):
        differences = [Column("by layer", _by_layer), Column("logits", _logits)]
    columns = [
        *shape,
        routes_column(rows),
        Column("stock tokens/s", _speed("stock")),
        Column("ours tokens/s", _speed("ours")),
        number("over_stock", "× stock", 2),
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
        return f"{speed:,g} {_spread(low, speed, high)}"

    return cell


def _share(row: Row) -> str:
    share = row["attention_share"]
    return "-" if share is None else f"{share:.0%}"


def _first_tokens(row: Row) -> str:
    times = (row[f"{name}_first_token_ms"] for name in ("stock", "ours"))
    return " / ".join("-" if ms is None else f"{ms:,g}" for ms in times)


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
