"""The figures at the top of docs/performance.md: attention on the eight configurations, single
calls, each workflow at its longest; and the table of workflows in README.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from page_marks import mark, meanings
from page_sections import Results, Rows, machine_of, name_of

from mlx_flash_runtime.tools.bench.columns import routes_column, times_as_fast
from mlx_flash_runtime.tools.bench.machine import described
from mlx_flash_runtime.tools.bench.tables import Column, Row, make_table, number, text

ATTENTION = """\
Attention on the eight configurations that the project's first claims were about (batch 1 and 2, \
length 64 and 128, head
dim 32 and 64, 8 heads); plain is softmax(QKᵀ)V in MLX operations, stock is MLX's own function:"""
WORKFLOWS = """\
Whole workflows, stock MLX against the same with flash attention: of each measurement the longest \
length, of chat the
shortest as well; length and reply in tokens, of several replies the longest. The last column is \
the share of stock's
time in attention, which bounds the gain: 20% of it are at most 1.25×. What MLX plans once for \
each new length comes on
top, and the difference of unsteady rounds (models made on the spot, random weights):"""
IN_SHORT = """\
Whole workflows, stock MLX against the same with flash attention, in tokens a second: of each \
measurement the longest
length with its longest reply, as short as shown. The models are made on the spot, with random \
weights; the shape
`window` is Llama's with a window of 1,024 tokens in three layers of four, `gemma` has head dim \
256:"""
ROUTES = """\
Single calls that the planner takes from MLX's own path; stock is MLX's unfused attention there, \
or its fused kernel with
the mask as an array."""
FUSED_ROUTES = """\
Those called fused in MLX are ones for which it has a fused kernel as they are: what the patch \
costs or gains there."""
# MLX's wheel for Linux alone is slow; Macs have Apple's BLAS, and attend on the GPU.
PLAIN_BLAS = """\
The CPU's ratios say little about Macs: much of each is that MLX's wheel for Linux multiplies \
with a plain BLAS. In
plain attention above it makes {mlx:.0f} GFLOP/s in float32; NumPy's products make {numpy:.0f} on \
that machine."""
SHOWN_ROUTES = (
    "length 8100, D 64, training",
    "window 1024 of 16384, D 128",
    "8 documents of 1024, D 128, training",
    "bool mask, length 8192, D 128",
    "causal, float32, D 64, length 8192",
    "quantized keys, 4 bits, 2048 queries on 32768 keys",
    "fused in MLX, D 128, length 512",
    "fused in MLX, D 128, length 1024",
    "fused in MLX, D 128, length 4096",
)


def figures(results: Results, others: list[Rows]) -> str:
    """The tables and what they were measured on; a line where there is nothing yet."""
    attention, machines, missing = [], [], []
    for machine, documents in results.items():
        if not documents:
            missing.append(name_of(machine))
            continue
        first = next(iter(documents.values()))
        machines.append(f"- {name_of(machine)}: {described(first.machine)}")
        grid = documents.get(f"grid_{machine}")
        if grid:
            attention += _named(machine, f"grid_{machine}", grid.machine, grid.summary)
    parts = ["Medians, all candidates in one process, in turns, behind a check of the result."]
    if attention:
        table = make_table("", ATTENTION_COLUMNS, attention).as_markdown()
        parts += [ATTENTION, table, *_plain_blas(results, others)]
    routes = _routes(others)
    if routes:
        columns = [*CALL_COLUMNS, routes_column(routes), *TIME_COLUMNS]
        fused = any(row["case"].startswith("fused in MLX") for row in routes)
        words = f"{ROUTES}\n{FUSED_ROUTES}" if fused else ROUTES
        parts += [words, make_table("", columns, routes).as_markdown()]
    workflows = [row for rows in _workflows(results) for row in _shown(rows)]
    if workflows:
        parts += [WORKFLOWS, make_table("", WORKFLOW_COLUMNS, workflows).as_markdown()]
    if machines:
        parts.append("\n".join(machines))
    if missing:
        parts.append(f"Grid and workflows are not measured yet on: {', '.join(missing)}.")
    shown = "\n\n".join(parts)
    return "\n\n".join([shown, *meanings(shown, "the section of the machine")]) + "\n"


def workflow_table(results: Results) -> str:
    """The table of README.md: each workflow at the longest length measured."""
    rows = [_shown(rows)[-1] for rows in _workflows(results)]
    if not rows:
        return "No workflow has been measured.\n"
    table = make_table("", SHORT_COLUMNS, rows).as_markdown()
    return "\n\n".join([IN_SHORT, table, *meanings(table, "docs/performance.md")]) + "\n"


def _workflows(results: Results) -> Iterator[list[Row]]:
    """The rows of each workflow on each machine."""
    for machine, documents in results.items():
        for name, document in documents.items():
            if document.kind == "workflow":
                yield _named(machine, name, document.machine, document.rows)


def _named(machine: str, name: str, facts: dict[str, Any], rows: Sequence[Row]) -> list[Row]:
    """The rows of the result `name` with their machine's name, and the mark of older code."""
    shown = name_of(machine) + mark(name, facts)
    return [{"machine": shown, **row} for row in rows]


def _routes(others: list[Rows]) -> list[Row]:
    """The single calls that are shown, in that order."""
    found = []
    for measured in others:
        if measured.name.startswith("routes_"):
            by_case = {row["case"]: row for row in measured.rows}
            rows = [by_case[case] for case in SHOWN_ROUTES if case in by_case]
            found += _named(machine_of(measured), measured.name, measured.machine, rows)
    return found


def _plain_blas(results: Results, others: list[Rows]) -> list[str]:
    """The sentence with the median of each speed; none where one of them was not measured."""
    numpy = []
    for measured in others:
        if measured.name == "cpu_kernel":
            speeds = [row["numpy_gflops"] for row in measured.rows]
            numpy += [speed for speed in speeds if speed is not None]
    grid = results["cpu"].get("grid_cpu")
    mlx = []
    for row in grid.rows if grid else []:
        if row["dtype"] == "float32" and row["plain_ms"]:
            operations = 4 * row["batch"] * row["heads"] * row["length"] ** 2 * row["head_dim"]
            mlx.append(1e-6 * operations / row["plain_ms"])
    if not mlx or not numpy:
        return []
    return [PLAIN_BLAS.format(mlx=median(mlx), numpy=median(numpy))]


def _mebibytes(row: Row) -> str:
    sizes = (row[f"{name}_peak_mib"] for name in ("stock", "ours"))
    return " / ".join("-" if size is None else f"{size:,.0f}" for size in sizes)


def _speed(row: Row, name: str) -> str:
    speed = row[f"{name}_tokens_per_s"]
    return str(row[f"{name}_status"]) if speed is None else f"{speed:,.10g}"


def _shown(rows: Sequence[Row]) -> Sequence[Row]:
    """The row of the longest length; of chat, that of the shortest before it. Of several replies
    the longest."""
    longest = max(row["new_tokens"] or 0 for row in rows)
    of_longest = [row for row in rows if (row["new_tokens"] or 0) == longest]
    by_length = sorted(of_longest, key=lambda row: int(row["length"]))
    shortest = by_length[:1] if rows[0]["workflow"] == "chat" and len(by_length) > 1 else []
    return [*shortest, by_length[-1]]


def _of_reply(key: str, row: Row) -> str:
    """What stock and ours have of it, in workflows with replies; results of earlier releases do not
    tell the speed after the first token."""
    numbers = [row.get(f"{name}_{key}") for name in ("stock", "ours")]
    return "-" if None in numbers else " / ".join(f"{number:,.10g}" for number in numbers)


ATTENTION_COLUMNS = [
    text("machine", "machine"),
    text("dtype", "dtype"),
    number("mean_over_plain", "mean × plain", 2),
    number("best_over_plain", "best", 2),
    number("worst_over_plain", "worst", 2),
    number("mean_over_stock", "mean × stock", 2),
    number("worst_over_stock", "worst", 2),
]
OVER_STOCK = Column("× stock", partial(times_as_fast, other="stock"))
CALL_COLUMNS = [text("machine", "machine"), text("case", "call")]
TIME_COLUMNS = [
    number("stock_ms", "stock ms"),
    number("ours_ms", "ours ms"),
    OVER_STOCK,
    Column("MiB, stock / ours", _mebibytes),
]
WORKFLOW = [
    text("machine", "machine"),
    text("workflow", "workflow"),
    text("model", "model"),
    number("length", "length"),
    number("new_tokens", "reply"),
]
SHORT_COLUMNS = [
    *WORKFLOW,
    Column("stock", lambda row: _speed(row, "stock")),
    Column("ours", lambda row: _speed(row, "ours")),
    OVER_STOCK,
    Column("MiB, stock / ours", _mebibytes),
]
WORKFLOW_COLUMNS = [
    *WORKFLOW,
    Column("stock tokens/s", lambda row: _speed(row, "stock")),
    Column("ours", lambda row: _speed(row, "ours")),
    OVER_STOCK,
    Column("first token ms", partial(_of_reply, "first_token_ms")),
    Column("then tokens/s", partial(_of_reply, "later_tokens_per_s")),
    Column("MiB, stock / ours", _mebibytes),
    Column(
        "attention",
        lambda row: "-" if row["attention_share"] is None else f"{row['attention_share']:.0%}",
    ),
]
