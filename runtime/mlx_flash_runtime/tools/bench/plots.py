"""Results as pictures, with matplotlib; the same ones in files and inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .machine import described
from .plot_axes import COLORS, FAINT, INK, length_axis, line, new_figure, thinned
from .plot_grid import grid_figure
from .tables import Document

_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlx-flash",
}
# In a page, whose type is then neither too small to read nor larger than the text.
_PIXELS_PER_INCH = (50, 120)


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
        (INK, "ink"),
        (FAINT, "faint"),
        *((COLORS[name], name) for name in COLORS),
    ):
        svg = svg.replace(color, f"var(--{name})")
    # By its view box alone it fits any width.
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    least, most = (round(pixels * picture.get_figwidth()) for pixels in _PIXELS_PER_INCH)
    style = f"min-width: {least}px; max-width: {most}px"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="{style}"', 1)


def _workflow(document: Document) -> Figure:
    rows, left_out = thinned(sorted(document.rows, key=lambda row: int(row["length"])))
    picture, (speed, memory, share) = new_figure(3, 11)
    for name, style in (("stock", "o-"), ("ours", "o-"), ("without", "o:")):
        line(speed, rows, f"{name}_tokens_per_s", name, style)
    speed.set_title(f"{rows[0]['workflow']}, {rows[0]['model']}, {rows[0]['dtype']}")
    speed.set_ylabel("tokens/s")
    speed.set_ylim(bottom=0)
    for name in ("stock", "ours"):
        line(memory, rows, f"{name}_peak_mib", name)
    memory.set_ylabel("peak memory, MiB")
    memory.set_ylim(bottom=0)
    shown = [row for row in rows if row["attention_share"] is not None]
    share.plot(
        [row["length"] for row in shown],
        [100 * row["attention_share"] for row in shown],
        "o-",
        ms=4,
        color=INK,
    )
    share.set_ylabel("% of stock's time in attention")
    share.set_ylim(0, 100)
    for axes in (speed, memory, share):
        length_axis(axes, rows, left_out)
    speed.legend()
    memory.legend()
    return picture


def _compare(document: Document) -> Figure:
    picture, (axes,) = new_figure(1, 6.4)
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
    axes.grid(axis="x", color=FAINT, lw=0.5)
    return picture


_FIGURES: dict[str, Callable[[Document], Figure]] = {
    "grid": grid_figure,
    "workflow": _workflow,
    "compare": _compare,
}
