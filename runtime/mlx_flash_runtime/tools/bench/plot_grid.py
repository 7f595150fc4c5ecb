"""The picture of a grid: bars of its first rows, and the longest series over its lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .grid import CANDIDATES, WRONG
from .plot_axes import COLORS, INK, length_axis, line, log_scale, new_figure, thinned
from .tables import Document, Row

_MOST_BARS = 32
_LINE_LENGTHS = 3  # from so many lengths on, a line is worth drawing
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def grid_figure(document: Document) -> Figure:
    """Times and speedups as bars; with enough lengths, time and memory over them as lines."""
    fitting = [row for row in document.rows if any(row[f"{name}_ms"] for name in CANDIDATES)]
    rows = fitting[:_MOST_BARS]
    if not rows:
        return _nothing()
    series, left_out = thinned(_longest_series(document.rows))
    width = 1.6 + 0.75 * len(rows)
    if len(series) < _LINE_LENGTHS:
        picture, axes = new_figure(1, max(6.4, width))
        _bars(axes[0], rows, _first_of(rows, fitting))
        return picture
    picture = Figure(figsize=(max(9.6, width), 6.4), layout="constrained")
    layout = picture.subplot_mosaic([["bars", "bars"], ["time", "memory"]])
    _bars(layout["bars"], rows, _first_of(rows, fitting))
    _over_length(layout["time"], series, "ms", "time of one call, ms", left_out)
    layout["time"].set_title(_name(series[0], ("length",)))
    _over_length(layout["memory"], series, "peak_mib", "peak memory, MiB", left_out)
    _add_scores(layout["memory"], series)
    return picture


def _nothing() -> Figure:
    picture = Figure(figsize=(6.4, 0.6))
    picture.text(0.02, 0.4, "no configuration fitted into memory")
    return picture


def _first_of(rows: list[Row], fitting: list[Row]) -> str:
    """The words for a title that does not show all rows."""
    return f"; the first {len(rows)} of {len(fitting):,}" if len(rows) < len(fitting) else ""


def _bars(axes: Axes, rows: list[Row], left_out: str) -> None:
    """A group of bars for each row, with its speedup above."""
    for offset, name in enumerate(CANDIDATES):
        _bars_of(axes, rows, name, 0.27 * (offset - 1))
    for x, row in enumerate(rows):
        if row["ours_status"] == WRONG:
            axes.text(x, row["ours_ms"] or 0, "wrong", ha="center", va="bottom", color="#b00020")
        elif row["over_plain"]:
            top = max(_values([row], "high_ms"))
            axes.text(x, top, f"{row['over_plain']:.2f}×", ha="center", va="bottom", fontsize=8)
    times = _values(rows, "ms")
    if max(times) > 20 * min(times):
        log_scale(axes, times)
    else:
        axes.margins(y=0.12)
    varying = _varying(rows) or ["length"]
    axes.set_xticks(range(len(rows)), [_label(row, varying) for row in rows], fontsize=8)
    axes.set_ylabel("ms per call")
    axes.set_title(f"{_name(rows[0], varying)}\nquartiles, and speedup over plain{left_out}")
    axes.legend(ncols=3, loc="upper left")


def _bars_of(axes: Axes, rows: list[Row], name: str, offset: float) -> None:
    """The bars of one candidate, with their quartiles, `offset` beside the middle of each group."""
    places, heights, below, above = [], [], [], []
    for x, row in enumerate(rows):
        ms = row[f"{name}_ms"]
        if ms:
            places.append(x + offset)
            heights.append(ms)
            below.append(ms - row[f"{name}_low_ms"])
            above.append(row[f"{name}_high_ms"] - ms)
    axes.bar(
        places,
        heights,
        0.25,
        yerr=[below, above],
        color=COLORS[name],
        error_kw={"ecolor": INK, "elinewidth": 0.8},
        label=name,
    )


def _values(rows: list[Row], key: str) -> list[float]:
    """The numbers of that kind of all candidates, as far as there are any."""
    values = []
    for row in rows:
        numbers = (row[f"{name}_{key}"] for name in CANDIDATES)
        values += [number for number in numbers if number]
    return values


def _varying(rows: list[Row]) -> list[str]:
    """What of a shape is not the same in all rows."""
    first = rows[0]
    return [key for key in _SHORT if any(str(row[key]) != str(first[key]) for row in rows)]


def _label(row: Row, keys: Sequence[str]) -> str:
    return "\n".join(f"{_SHORT[key]}{row[key]}" for key in keys)


_SHORT = {
    "batch": "B ",
    "length": "L ",
    "head_dim": "D ",
    "heads": "H ",
    "kv_heads": "KV ",
    "dtype": "",
    "mask": "",
    "phase": "",
}


def _name(row: Row, without: Sequence[str]) -> str:
    words = {
        "dtype": "{}",
        "phase": "{}",
        "mask": "no mask" if row["mask"] == "none" else "mask {}",
        "heads": "{} heads",
        "batch": "batch {}",
        "head_dim": "head dim {}",
    }
    return ", ".join(word.format(row[key]) for key, word in words.items() if key not in without)


def _longest_series(rows: list[Row]) -> list[Row]:
    """The rows that differ in their length alone, of the configuration that has the most of
    them."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        others = tuple(row[key] for key in _SHORT if key != "length")
        groups.setdefault(others, []).append(row)

    def lengths(group: list[Row]) -> int:
        return len({row["length"] for row in group})

    longest = max(groups.values(), key=lengths, default=[])
    return sorted(longest, key=lambda row: int(row["length"]))


def _add_scores(axes: Axes, rows: list[Row]) -> None:
    """Adds the memory that the scores alone would take."""
    lengths, scores = [row["length"] for row in rows], [_scores(row) for row in rows]
    axes.plot(lengths, scores, ":", color=INK, lw=1, label="L × S scores")
    axes.legend()


def _scores(row: Row) -> float:
    """MiB of the scores of a row."""
    queries = 1 if row["phase"] == "decode" else row["length"]
    scores = row["batch"] * row["heads"] * queries * row["length"]
    return float(scores * _ITEM_BYTES[row["dtype"]] / 2**20)


def _over_length(axes: Axes, rows: list[Row], key: str, label: str, left_out: str) -> None:
    for name in CANDIDATES:
        line(axes, rows, f"{name}_{key}", name)
    log_scale(axes, _values(rows, key))
    length_axis(axes, rows, left_out)
    axes.set_ylabel(label)
    axes.legend()
