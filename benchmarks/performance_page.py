"""Makes docs/performance.md of the results under benchmarks/results; with --check, says whether it is up to date.

python benchmarks/performance_page.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from suite import MACHINES, commands

from mlx_flash_runtime.bench.machine import described
from mlx_flash_runtime.bench.show import tables_of
from mlx_flash_runtime.bench.tables import Document, NotAResult, load

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
NAMES = {"cpu": "CPU", "h200": "NVIDIA H200", "metal": "Mac (Metal)"}
MISSING = "not measured"

Results = dict[str, Document]

INTRODUCTION = """\
# What flash attention gains, and where

<!-- Made by `python benchmarks/performance_page.py` of benchmarks/results; a test holds the two together. -->

Every number here is one of a file under `benchmarks/results`, made by the command above its table, all candidates in
one process, in turns. *Plain* is softmax(QKᵀ)V in MLX operations, *stock* MLX's own function
`mx.fast.scaled_dot_product_attention`, *ours* the same call with flash attention enabled. `mlx-flash bench` and
`mlx-flash compare` do the same on your machine and with your scripts; `mlx-flash report` makes a page with plots of
what they wrote.
"""

CLAIMS_INTRODUCTION = """\
## The claims this project started from

They came without their scripts, and their own table contradicts itself (65,702 against 71,974 tokens/s is not 1.32×,
and six of its eight rows, not seven, reach 1.15×). Attention is counted from plain, as they did; workflows from stock
MLX, which is what a script runs on otherwise. A range is over the lengths and models measured.
"""

METAL = """\
## Not measured here: Metal

Nobody who works on this has a Mac. Whoever has one fills in its column with

```
python benchmarks/suite.py metal && python benchmarks/performance_page.py
```
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    args = parser.parse_args()
    text = page()
    if args.check:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


def page() -> str:
    """The whole page."""
    results = {machine: read(machine) for machine in MACHINES}
    parts = [INTRODUCTION, CLAIMS_INTRODUCTION, claims(results)]
    parts += [section(machine, results[machine]) for machine in MACHINES if machine != "metal" or results[machine]]
    if not results["metal"]:
        parts.append(METAL)
    return "\n".join(parts)


def read(machine: str) -> Results:
    """The results that there are, by name. A file of another form counts as none."""
    found = {}
    for name, (path, _) in commands(machine).items():
        try:
            found[name] = load(path)
        except NotAResult:
            continue
    return found


def claims(results: dict[str, Results]) -> str:
    """One row a claim, one column a machine."""
    lines = ["| claim | " + " | ".join(NAMES.values()) + " |", "|---" * (1 + len(NAMES)) + "|"]
    for text, judge in CLAIMS:
        lines.append(f"| {text} | " + " | ".join(judge(results[machine]) for machine in NAMES) + " |")
    return "\n".join(lines) + "\n"


def grid_claim(key: str, least: float, form: str = "{:.2f}×") -> Callable[[Results], str]:
    """Whether a number of the grid's summary is at least `least`, for each dtype."""

    def judge(results: Results) -> str:
        if "grid" not in results:
            return MISSING
        rows = [row for row in results["grid"].summary if row[key] is not None]
        return "; ".join(f"{row['dtype']} {form.format(row[key])}: {yes(row[key] >= least)}" for row in rows)

    return judge


def workflow_claim(name: str, least: float) -> Callable[[Results], str]:
    """Whether the workflow is at least so many times as fast as with stock, at which lengths and on which models."""

    def judge(results: Results) -> str:
        found = {key: each for key, each in results.items() if each.kind == "workflow" and key.split("_")[1] == name}
        rows = [row for document in found.values() for row in document.rows if row["over_stock"] is not None]
        if not rows:
            return MISSING
        gains = [row["over_stock"] for row in rows]
        where = [f"{row['model']} {row['length']:,}" for row in rows if row["over_stock"] >= least]
        span = f"{min(gains):.2f}×" if len(gains) == 1 else f"{min(gains):.2f}× to {max(gains):.2f}×"
        if len(where) == len(rows):
            return f"{span}: yes"
        return f"{span}: " + (f"at {', '.join(where)}" if where else "no")

    return judge


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


CLAIMS: list[tuple[str, Callable[[Results], str]]] = [
    ("attention 1.24× as fast as plain, mean of the 8", grid_claim("mean_over_plain", 1.24)),
    ("1.51× at best", grid_claim("best_over_plain", 1.51)),
    ("at least 1.15× on 7 of the 8", grid_claim("gaining", 7, "{} of 8")),
    ("440,359 tokens/s at the peak", grid_claim("peak_tokens_per_s", 440_359, "{:,}")),
    ('"99.9 % efficiency": median stability from run to run', grid_claim("median_stability", 0.999, "{:.1%}")),
    ("LoRA 15-35 % faster", workflow_claim("lora", 1.15)),
    ("full fine-tuning 20-30 %", workflow_claim("full", 1.20)),
    ("QLoRA 10-25 %", workflow_claim("qlora", 1.10)),
    ("chat 15-35 %", workflow_claim("chat", 1.15)),
    ("batches 25-50 %", workflow_claim("batch", 1.25)),
    ("evaluation 20-40 %", workflow_claim("evaluate", 1.20)),
]


def section(machine: str, results: Results) -> str:
    """The tables of one machine, the words in them, and what is missing."""
    parts = [f"## {NAMES[machine]}"]
    if results:
        parts.append(described(next(iter(results.values())).machine) + ".")
    definitions: dict[str, None] = {}
    for document in results.values():
        parts.append(f"### {document.title}\n\n`{document.command}`")
        for table in tables_of(document):
            parts.append((f"{table.title}:\n\n" if table.title else "") + table.as_markdown())
        definitions |= dict.fromkeys(document.definitions)
    if definitions:
        parts.append("\n".join(f"- {definition}" for definition in definitions))
    missing = [name for name in commands(machine) if name not in results]
    if missing:
        wanted = "\n".join(commands(machine)[name][1] for name in missing)
        parts.append(f"Not measured yet (`python benchmarks/suite.py {machine}` runs them all):\n\n```\n{wanted}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
