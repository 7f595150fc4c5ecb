"""Results as pictures, with matplotlib; the same ones in files and inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .grid import CANDIDATES, WRONG
from .machine import described
from .tables import Document, Row

# Distinct in grey and for the colour-blind; in a page each is a variable, so that dark mode may
# have its own.
COLORS = {"plain": "#9a9a9a", "stock": "#3a6ea5", "ours": "#d1702d", "without": "#6b9e78"}
_INK, _FAINT = "#1f2328", "#c9ced4"
_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlx-flash",
}
_MOST_BARS = 32
_PIXELS_PER_INCH = (
    50,
    120,
)  # in a page, whose type is then neither too small to read nor larger than the text
_LINE_LENGTHS = 3  # from so many lengths on, a line is worth drawing
_MOST_POINTS = 64  # of a line: more of them nobody can tell apart, and each takes its time
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def figure(document: Document) -> Figure:
    """The picture of a result, of whatever kind."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # typed in matplotlib's stubs by every key there is
        return _FIGURES[document.kind](document)


def save(document: Document, path: Path) -> None:
    """Writes the picture of a result as .png or .svg, with the machine that it was measured on."""
    picture = figure(document)
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        picture.supxlabel(described(document.machine), fontsize=6.5, x=0.01, ha="left")
        picture.savefig(
            path,
            dpi=160,
            facecolor="white",
            metadata={"Date": None} if path.suffix == ".svg" else None,
        )


def inline_svg(picture: Figure, label: str) -> str:
    """The picture as an `<svg>` element that takes its colours and its type from the page around
    it."""
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        picture.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", svg)
    for color, name in (
        (_INK, "ink"),
        (_FAINT, "faint"),
        *((COLORS[name], name) for name in COLORS),
    ):
        svg = svg.replace(color, f"var(--{name})")
    # By its view box alone it fits any width.
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    least, most = (round(pixels * picture.get_figwidth()) for pixels in _PIXELS_PER_INCH)
    style = f"min-width: {least}px; max-width: {most}px"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="{style}"', 1)


def _new(panels: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    picture = Figure(figsize=(width, 3.3), layout="constrained")
    axes = picture.subplots(1, panels, squeeze=False)[0]
    return picture, list(axes)


def _grid(document: Document) -> Figure:
    fitting = [row for row in document.rows if any(row[f"{name}_ms"] for name in CANDIDATES)]
    rows = fitting[:_MOST_BARS]
    series, left_out = _thinned(_longest_series(document.rows))
    if not rows:
        return _nothing()
    if len(series) < _LINE_LENGTHS:
        picture, axes = _new(1, max(6.4, 1.6 + 0.75 * len(rows)))
        _bars(axes[0], rows, _first_of(rows, fitting))
        return picture
    picture = Figure(figsize=(max(9.6, 1.6 + 0.75 * len(rows)), 6.4), layout="constrained")
    layout = picture.subplot_mosaic([["bars", "bars"], ["time", "memory"]])
    _bars(layout["bars"], rows, _first_of(rows, fitting))
    _over_length(layout["time"], series, "ms", "time of one call, ms", left_out)
    _over_length(layout["memory"], series, "peak_mib", "peak memory, MiB", left_out)
    scores = [_scores(row) for row in series]
    layout["memory"].plot(
        [row["length"] for row in series], scores, ":", color=_INK, lw=1, label="L × S scores"
    )
    layout["memory"].legend()
    layout["time"].set_title(_name(series[0], ("length",)))
    return picture


def _nothing() -> Figure:
    picture = Figure(figsize=(6.4, 0.6))
    picture.text(0.02, 0.4, "no configuration fitted into memory")
    return picture


def _first_of(rows: list[Row], fitting: list[Row]) -> str:
    """The words for a title that does not show all rows."""
    return f"; the first {len(rows)} of {len(fitting):,}" if len(rows) < len(fitting) else ""


def _thinned(rows: list[Row]) -> tuple[list[Row], str]:
    """So many of the rows as a line can show, from the first to the last, and the words that say
    so."""
    if len(rows) <= _MOST_POINTS:
        return rows, ""
    step = (len(rows) - 1) / (_MOST_POINTS - 1)
    kept = [rows[round(step * i)] for i in range(_MOST_POINTS)]
    return kept, f", {len(kept)} of {len(rows):,} shown"


def _bars(axes: Axes, rows: list[Row], left_out: str) -> None:
    varying = [key for key in _SHORT if len({str(row[key]) for row in rows}) > 1] or ["length"]
    for offset, name in enumerate(CANDIDATES):
        shown = [(x, row) for x, row in enumerate(rows) if row[f"{name}_ms"]]
        heights = [row[f"{name}_ms"] for _, row in shown]
        below = [row[f"{name}_ms"] - row[f"{name}_low_ms"] for _, row in shown]
        above = [row[f"{name}_high_ms"] - row[f"{name}_ms"] for _, row in shown]
        axes.bar(
            [x + 0.27 * (offset - 1) for x, _ in shown],
            heights,
            0.25,
            yerr=[below, above],
            color=COLORS[name],
            error_kw={"ecolor": _INK, "elinewidth": 0.8},
            label=name,
        )
    for x, row in enumerate(rows):
        if row["ours_status"] == WRONG:
            axes.text(x, row["ours_ms"] or 0, "wrong", ha="center", va="bottom", color="#b00020")
        elif row["over_plain"]:
            top = max(row[f"{name}_high_ms"] for name in ("plain", "ours"))
            axes.text(x, top, f"{row['over_plain']:.2f}×", ha="center", va="bottom", fontsize=8)
    times = [row[f"{name}_ms"] for row in rows for name in CANDIDATES if row[f"{name}_ms"]]
    if max(times) > 20 * min(times):
        _log_scale(axes, times)
    else:
        axes.margins(y=0.12)
    labels = ["\n".join(f"{_SHORT[key]}{row[key]}" for key in varying) for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylabel("ms per call")
    axes.set_title(_name(rows[0], varying) + "; quartiles, and speedup over plain" + left_out)
    axes.legend(ncols=3, loc="upper left")


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
        groups.setdefault(tuple(row[key] for key in _SHORT if key != "length"), []).append(row)
    longest = max(
        groups.values(), key=lambda group: len({row["length"] for row in group}), default=[]
    )
    return sorted(longest, key=lambda row: int(row["length"]))


def _scores(row: Row) -> float:
    queries = 1 if row["phase"] == "decode" else row["length"]
    return float(
        row["batch"] * row["heads"] * queries * row["length"] * _ITEM_BYTES[row["dtype"]] / 2**20
    )


def _over_length(axes: Axes, rows: list[Row], key: str, label: str, left_out: str) -> None:
    for name in CANDIDATES:
        _line(axes, rows, f"{name}_{key}", name)
    _log_scale(
        axes, [row[f"{name}_{key}"] for row in rows for name in CANDIDATES if row[f"{name}_{key}"]]
    )
    _length_axis(axes, rows, left_out)
    axes.set_ylabel(label)
    axes.legend()


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with numbers written out; where it spans little, also between the
    powers of ten."""
    axes.set_yscale("log")
    number = FuncFormatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_major_formatter(number)
    narrow = max(values, default=1) < 30 * min(values, default=1)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(number if narrow else NullFormatter())


def _line(axes: Axes, rows: list[Row], key: str, name: str, style: str = "o-") -> None:
    shown = [row for row in rows if row[key]]
    lengths = [row["length"] for row in shown]
    values = [row[key] for row in shown]
    low, high = key.replace(name + "_", name + "_low_"), key.replace(name + "_", name + "_high_")
    errors = None
    if shown and low in shown[0]:
        errors = [[row[key] - row[low] for row in shown], [row[high] - row[key] for row in shown]]
    axes.errorbar(
        lengths,
        values,
        errors,
        fmt=style,
        ms=4,
        lw=1.5,
        color=COLORS[name],
        ecolor=_INK,
        elinewidth=0.8,
        label="without attention" if name == "without" else name,
    )


def _length_axis(axes: Axes, rows: list[Row], left_out: str) -> None:
    lengths = sorted({row["length"] for row in rows})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=8)
    axes.set_xlabel(f"length{left_out}")
    axes.grid(color=_FAINT, lw=0.5)


def _workflow(document: Document) -> Figure:
    rows, left_out = _thinned(sorted(document.rows, key=lambda row: int(row["length"])))
    picture, (speed, memory, share) = _new(3, 11)
    for name, style in (("stock", "o-"), ("ours", "o-"), ("without", "o:")):
        _line(speed, rows, f"{name}_tokens_per_s", name, style)
    speed.set_title(f"{rows[0]['workflow']}, {rows[0]['model']}, {rows[0]['dtype']}")
    speed.set_ylabel("tokens/s")
    speed.set_ylim(bottom=0)
    for name in ("stock", "ours"):
        _line(memory, rows, f"{name}_peak_mib", name)
    memory.set_ylabel("peak memory, MiB")
    memory.set_ylim(bottom=0)
    shown = [row for row in rows if row["attention_share"] is not None]
    share.plot(
        [row["length"] for row in shown],
        [100 * row["attention_share"] for row in shown],
        "o-",
        ms=4,
        color=_INK,
    )
    share.set_ylabel("% of stock's time in attention")
    share.set_ylim(0, 100)
    for axes in (speed, memory, share):
        _length_axis(axes, rows, left_out)
    speed.legend()
    memory.legend()
    return picture


def _compare(document: Document) -> Figure:
    picture, (axes,) = _new(1, 6.4)
    picture.set_figheight(1.9)
    for y, (mode, label) in enumerate((("stock", "without"), ("ours", "with"))):
        seconds = [row["seconds"] for row in document.rows if row["mode"] == mode]
        axes.plot(
            seconds, [y] * len(seconds), "o", ms=6, alpha=0.7, color=COLORS[mode], label=label
        )
        median = document.summary[0][mode]
        axes.plot([median, median], [y - 0.25, y + 0.25], color=COLORS[mode], lw=2)
    axes.set_yticks([0, 1], ["without", "with"])
    axes.set_ylim(-0.6, 1.6)
    axes.set_xlim(0, 1.05 * max(row["seconds"] for row in document.rows))
    axes.set_xlabel("seconds of each run; the bar is the median")
    axes.grid(axis="x", color=_FAINT, lw=0.5)
    return picture


_FIGURES: dict[str, Callable[[Document], Figure]] = {
    "grid": _grid,
    "workflow": _workflow,
    "compare": _compare,
}
