"""The claims that the project started from, held against the results of each machine."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from page_marks import MARK, mark
from page_sections import Results, name_of

from mlx_flash_runtime.tools.bench.columns import unsteady
from mlx_flash_runtime.tools.bench.definitions import UNSTEADY, UNSTEADY_MEANS
from mlx_flash_runtime.tools.bench.tables import Document, Row

INTRODUCTION = """\
## The claims this project started from

They came without their scripts, and their own table contradicts itself (65,702 against 71,974 \
tokens/s is not 1.32×,
and six of its eight rows, not seven, reach 1.15×). Attention is counted from plain, as they did; \
workflows from stock
MLX, which is what a script runs on otherwise. A range is over the lengths, replies and models \
measured, which the tables
below name, with the share of the time that attention has at each; after a + stand the tokens of a \
reply.
"""
MISSING = "not measured"
SIDES = ("stock", "ours")

Judge = Callable[[dict[str, Document]], str]


def section(results: Results) -> str:
    """One row a claim, one column a machine."""
    names = []
    for machine, documents in results.items():
        outdated = any(mark(name, document.machine) for name, document in documents.items())
        names.append(name_of(machine) + (f" {MARK}" if outdated else ""))
    lines = ["| claim | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for claim, judge in CLAIMS:
        verdicts = [judge(documents) for documents in results.values()]
        lines.append(f"| {' | '.join([claim, *verdicts])} |")
    table = "\n".join(lines)
    means = f"\n{textwrap.fill(UNSTEADY_MEANS, 120)}\n" if UNSTEADY in table else ""
    return f"{INTRODUCTION}\n{table}\n{means}"


def grid_claim(key: str, least: float, form: str = "{:.2f}×") -> Judge:
    """Whether a number of the grid's summary is at least `least`, for each dtype."""

    def judge(documents: dict[str, Document]) -> str:
        grids = {name.rpartition("_")[0]: document for name, document in documents.items()}
        said = []
        for row in grids["grid"].summary if "grid" in grids else []:
            number = row[key]
            if number is not None:
                said.append(f"{row['dtype']} {form.format(number)}: {yes(number >= least)}")
        return "; ".join(said) or MISSING

    return judge


def workflow_claim(workflow: str, least: float) -> Judge:
    """Whether the workflow is at least so many times as fast as with stock, at which lengths and
    on which models."""

    def judge(documents: dict[str, Document]) -> str:
        rows = []
        for document in documents.values():
            if document.kind == "workflow":
                own = [row for row in document.rows if row["workflow"] == workflow]
                rows += [row for row in own if row["over_stock"] is not None]
        if not rows:
            return MISSING
        rows.sort(key=lambda row: float(row["over_stock"]))
        ends = [f"{row['over_stock']:.2f}×{unsteady(row, SIDES)}" for row in (rows[0], rows[-1])]
        span = ends[0] if len(rows) == 1 else " to ".join(ends)
        where = [_where(row) for row in rows if row["over_stock"] >= least]
        if len(where) == len(rows):
            return f"{span}: yes"
        return f"{span}: " + (f"at {', '.join(where)}" if where else "no")

    return judge


def _where(row: Row) -> str:
    """Model, length and reply, with the mark of rounds that differ much."""
    reply = f" + {row['new_tokens']:,}" if row["new_tokens"] else ""
    return f"{row['model']} {row['length']:,}{reply}{unsteady(row, SIDES)}"


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


CLAIMS: list[tuple[str, Judge]] = [
    ("attention 1.24× as fast as plain, mean of the 8", grid_claim("mean_over_plain", 1.24)),
    ("1.51× at best", grid_claim("best_over_plain", 1.51)),
    ("at least 1.15× on 7 of the 8", grid_claim("gaining", 7, "{} of 8")),
    ("440,359 tokens/s at the peak", grid_claim("peak_tokens_per_s", 440_359, "{:,}")),
    (
        '"99.9 % efficiency": median stability from run to run',
        grid_claim("median_stability", 0.999, "{:.1%}"),
    ),
    ("LoRA 15-35 % faster", workflow_claim("lora", 1.15)),
    ("full fine-tuning 20-30 %", workflow_claim("full", 1.20)),
    ("QLoRA 10-25 %", workflow_claim("qlora", 1.10)),
    ("chat 15-35 %", workflow_claim("chat", 1.15)),
    ("batches 25-50 %", workflow_claim("batch", 1.25)),
    ("evaluation 20-40 %", workflow_claim("evaluate", 1.20)),
]
