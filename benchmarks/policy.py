"""What the planner's choices cost and gain over time, from the first call on, ours and stock.

    python benchmarks/policy.py MACHINE [--runs N] [--quick] [--json FILE]

Three cases: calls of one shape, a chat whose turns have different lengths, the first steps of a
training run. Each runs in a process of its own, ours and stock in turns, as what MLX and the
planner prepare for a shape is prepared once in a process. Writes
benchmarks/results/policy_MACHINE.json, and beside it, where there is matplotlib, a plot of
each call, turn and step, policy_MACHINE.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import mlx.core as mx
from rich.progress import track
from store import Result, parser_of, place

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.tools.bench import models
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.timing import turns
from mlx_flash_runtime.tools.bench.variants import attention
from mlx_flash_runtime.tools.bench.workloads import Sizes, adapt, prepare

TITLE = "From the first call on"
DEFINITIONS = (
    "Milliseconds of one call, turn or step by itself, the mean over those of the part; total: the "
    "seconds of all of them. Each kind and case runs in processes of its own, in turns, of which "
    "the medians count. Other processes ran before, for what is compiled once for a machine to be "
    "there; nothing else is warmed up but the import of MLX.",
    "Calls of one shape: a causal prefill of 16 heads on 4 key heads, head dim 128. Chat: turns of "
    "40 different lengths, 16 tokens of reply each. Training: LoRA steps of one length.",
)
VARIANTS = ("stock", "ours")
RUNS = 3
QUICK = 4  # calls, turns or steps, where they need not be many
# Of each case the parts of its times that are shown, from and to, counted from 1.
PARTS = {
    "calls of one shape": ((1, 1), (1, 128), (129, 512)),
    "chat": ((1, 1), (1, 40)),
    "training": ((1, 1), (1, 100), (51, 100)),
}
Series = dict[str, list[float]]  # seconds of each call, turn or step, by variant


def one_shape(count: int, small: bool) -> Iterator[float]:
    """Seconds of each call."""
    length = 128 if small else 1024
    made = make_inputs(Problem(1, 16, 4, length, length, 128, 128, dtype="bfloat16"))
    for _ in range(count):
        start = time.perf_counter()
        mx.eval(
            mx.fast.scaled_dot_product_attention(
                made.q, made.k, made.v, scale=made.scale, mask="causal"
            )
        )
        mx.synchronize()
        yield time.perf_counter() - start


def chat(count: int, small: bool) -> Iterator[float]:
    """Seconds of each turn, prompt and reply."""
    model = models.make("tiny" if small else "1b", "llama", None)
    for turn in range(count):
        # In no order, and none twice.
        length = 100 + 37 * (turn * 17 % count) * (1 if small else 4)
        yield prepare(model, "chat", Sizes(length, 1, 16))()().seconds


def training(count: int, small: bool) -> Iterator[float]:
    """Seconds of each step."""
    model = models.make("tiny" if small else "1b", "llama", None)
    adapt(model, "lora", checkpoint=False)
    step = prepare(model, "lora", Sizes(128 if small else 2000, 1, 0))()
    for _ in range(count):
        yield step().seconds


CASES = {"calls of one shape": one_shape, "chat": chat, "training": training}


def measured(case: str, count: int, runs: int, small: bool) -> Series:
    """The median of each call's, turn's or step's seconds over the runs."""
    found: dict[str, list[list[float]]] = {variant: [] for variant in VARIANTS}
    for variant in VARIANTS:
        in_own_process(case, variant, QUICK, small)  # compiles what the first call compiles
    for variant in turns(VARIANTS, runs):
        found[variant].append(in_own_process(case, variant, count, small))
    return {
        variant: [statistics.median(of_one) for of_one in zip(*series, strict=True)]
        for variant, series in found.items()
    }


def in_own_process(case: str, variant: str, count: int, small: bool) -> list[float]:
    """The seconds of so many calls, turns or steps, from the first of a process on."""
    child = [sys.executable, __file__, "-", "--child", case, variant, str(count)]
    child += ["--quick"] if small else []
    done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def rows_of(case: str, series: Series) -> list[dict[str, Any]]:
    """One row a part of the case."""
    rows = []
    for first, last in PARTS[case]:
        parts = {variant: seconds[first - 1 : last] for variant, seconds in series.items()}
        if not all(parts.values()):
            continue  # of a shorter run
        end = first - 1 + len(parts["ours"])
        row: dict[str, Any] = {"case": case, "part": f"{first} to {end}" if end > first else "1"}
        for variant, seconds in parts.items():
            row[f"{variant}_ms"] = significant(1e3 * statistics.fmean(seconds))
        row["over_stock"] = ratio(row["stock_ms"], row["ours_ms"])
        for variant, seconds in parts.items():
            row[f"{variant}_total_s"] = significant(sum(seconds))
        rows.append(row)
    return rows


def plot(found: dict[str, Series], path: Path) -> None:
    """A column a case: the time of each above, that of all so far below."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(5 * len(found), 7), squeeze=False)
    for (case, series), (above, below) in zip(found.items(), axes.T, strict=True):
        for variant, seconds in series.items():
            numbers = range(1, len(seconds) + 1)
            above.plot(numbers, [1e3 * one for one in seconds], label=variant)
            below.plot(numbers, list(accumulate(seconds)), label=variant)
        above.set(title=case, yscale="log", ylabel="ms")
        below.set(xlabel="call, turn or step", ylabel="s so far")
        above.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help="processes of each kind"
    )
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it works")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    small = args.quick or current_device().backend == "cpu"
    if args.child:
        case, variant, count = args.child
        with attention(variant):
            print(json.dumps(list(CASES[case](int(count), small))))
        return
    command = f"python benchmarks/policy.py {args.machine}"
    if args.runs != RUNS:
        command += f" --runs {args.runs}"
    result = Result(place(args, "policy"), title=TITLE, command=command, definitions=DEFINITIONS)
    found: dict[str, Series] = {}
    for case in track(CASES, description="measuring", transient=True):
        count = QUICK if args.quick else PARTS[case][-1][1]
        found[case] = measured(case, count, 1 if args.quick else args.runs, small)
        for row in rows_of(case, found[case]):
            result.add(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if find_spec("matplotlib"):  # after each case, as the rows
            plot(found, result.path.with_suffix(".svg"))
    print(f"written: {result.path}")


if __name__ == "__main__":
    main()
