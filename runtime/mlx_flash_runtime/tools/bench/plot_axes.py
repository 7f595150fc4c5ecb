"""What the pictures of all kinds of results share: colours, axes, lines over the length."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .tables import Row

# Distinct in grey and for the colour-blind; in a page each is a variable, so that dark mode may
# have its own.
COLORS = {"plain": "#9a9a9a", "stock": "#3a6ea5", "ours": "#d1702d", "without": "#6b9e78"}
INK, FAINT = "#1f2328", "#c9ced4"
_MOST_POINTS = 64  # of a line: more of them nobody can tell apart, and each takes its time


def new_figure(panels: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    """A picture of so many panels side by side."""
    picture = Figure(figsize=(width, 3.3), layout="constrained")
    axes = picture.subplots(1, panels, squeeze=False)[0]
    return picture, list(axes)


def thinned(rows: list[Row]) -> tuple[list[Row], str]:
    """So many of the rows as a line can show, from the first to the last, and the words that say
    so."""
    if len(rows) <= _MOST_POINTS:
        return rows, ""
    step = (len(rows) - 1) / (_MOST_POINTS - 1)
    kept = [rows[round(step * i)] for i in range(_MOST_POINTS)]
    return kept, f", {len(kept)} of {len(rows):,} shown"


def log_scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with numbers written out; where it spans little, also between the
    powers of ten."""
    axes.set_yscale("log")
    number = FuncFormatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_major_formatter(number)
    narrow = max(values, default=1) < 30 * min(values, default=1)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(number if narrow else NullFormatter())


def line(axes: Axes, rows: list[Row], key: str, name: str, style: str = "o-") -> None:
    """Adds the values of `key` over the length, with their quartiles where the rows have them."""
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
        ecolor=INK,
        elinewidth=0.8,
        label="without attention" if name == "without" else name,
    )


def length_axis(axes: Axes, rows: list[Row], left_out: str) -> None:
    """A logarithmic x axis with the lengths of the rows."""
    lengths = sorted({row["length"] for row in rows})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=8)
    axes.set_xlabel(f"length{left_out}")
    axes.grid(color=FAINT, lw=0.5)
