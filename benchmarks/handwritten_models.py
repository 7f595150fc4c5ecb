"""Public models with attention written by hand, before and after a rewrite: whether they agree, and
what the rewrite gains.

    git clone https://github.com/ml-explore/mlx-examples checkouts/mlx-examples
    git clone https://github.com/Blaizzy/mlx-audio checkouts/mlx-audio
    python benchmarks/handwritten_models.py checkouts --results benchmarks/results

Each model is built twice with the same random weights, from the files as they are and from copies
that flash-integrate has rewritten; nothing is written into the checkouts. A tiny one gives outputs
and the gradients of all weights, which have to agree; larger ones are timed in one process, in
turns, each call with data of its own: by hand, rewritten on stock MLX, and rewritten with the
runtime. Runs on MLX's default device; a model that this machine can't
build is named, and fails the run only with --all.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from handwritten_cases import CASES, Case, Inputs, use_sizes
from handwritten_modules import modules_of
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from rich.console import Console
from rich.table import Table

from mlx_flash_runtime import enable_flash_attention


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, help="folder that holds the repos")
    parser.add_argument("--results", type=Path, help="folder for the results as JSON")
    parser.add_argument("--all", action="store_true", help="fail where a model can't be built")
    parser.add_argument("--size", type=int, default=4, help="heads of the timed models, of 64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--longest", type=int, default=4096, help="lengths above are left out")
    parser.add_argument(
        "--only", action="append", default=[], help="models whose name has this in it"
    )
    args = parser.parse_args()
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    missing = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if args.only and not any(word in case.name for word in args.only):
                continue
            try:
                pair = modules_of(case, args.checkouts, Path(scratch))
            except (ImportError, FileNotFoundError) as error:
                console.print(f"{case.name}: not here: {error}", style="yellow")
                missing += 1
                continue
            try:
                row = measure(case, pair, args, getattr(mx, args.dtype))
            except RuntimeError as error:  # of MLX, where this machine can't compute it
                console.print(f"{case.name}: {error}", style="red")
                missing += 1
                continue
            rows.append(row)
            console.print(json.dumps(row), highlight=False)
    console.print(table_of(rows))
    if args.results is not None:
        write_results(args.results, rows, args)
    wrong = [row["model"] for row in rows if not row["agrees"]]
    for name in wrong:
        console.print(f"{name}: the two versions differ", style="red")
    return 1 if wrong or (args.all and missing) else 0


# Measuring


def built(case: Case, module: Any, size: int, length: int, dtype: Any) -> nn.Module:
    use_sizes(size, length)
    mx.random.seed(0)
    model = case.build(module, size)
    # Weights that start as zeros, such as positions, would hide what depends on them.
    weights = tree_map(
        lambda array: (mx.random.normal(array.shape) * 0.1) if array.ndim > 1 else array,
        model.parameters(),
    )
    model.update(tree_map(lambda array: array.astype(dtype), weights))
    model.eval()
    mx.eval(model.parameters())
    return model


def result_of(case: Case, model: nn.Module, inputs: Inputs) -> mx.array:
    return case.run(model, inputs)  # type: ignore[no-any-return]


def measure(
    case: Case, pair: tuple[Any, Any], args: argparse.Namespace, dtype: Any
) -> dict[str, Any]:
    """One model's row: the agreement of a tiny one, times and memory of larger ones."""
    output, gradient = agreement(case, pair)
    row: dict[str, Any] = {
        "model": case.name,
        "repo": case.repo,
        "output_error": output,
        "gradient_error": gradient,
        "agrees": output < 1e-4 and gradient < 1e-3,
        "lengths": [],
    }
    for length in case.lengths:
        if length <= args.longest:
            row["lengths"].append(timed(case, pair, args.size, length, args.rounds, dtype))
    return row


def agreement(case: Case, pair: tuple[Any, Any]) -> tuple[float, float]:
    """The largest difference of outputs, and of the gradients of all weights, in parts of their
    size; in float32."""
    found = []
    for module in pair:
        model = built(case, module, 2, 16, mx.float32)
        mx.random.seed(1)
        inputs = case.inputs(2, 16)

        names, weights = zip(*tree_flatten(model.parameters()), strict=True)

        # Not nn.value_and_grad: some of these models do not initialise nn.Module.
        def loss(
            weights: Any, model: Any = model, names: Any = names, given: Any = inputs
        ) -> mx.array:
            model.update(tree_unflatten(list(zip(names, weights, strict=True))))
            out = result_of(case, model, given).astype(mx.float32)
            return (out * mx.sin(mx.arange(out.size).reshape(out.shape))).sum()

        gradients = mx.grad(loss)(list(weights))
        model.update(tree_unflatten(list(zip(names, weights, strict=True))))
        found.append([result_of(case, model, inputs), *gradients])
        mx.eval(found[-1])
    off = [distance(one, other) for one, other in zip(*found, strict=True)]
    largest = max(mx.abs(array).max().item() for array in found[0][1:])
    gradient = max(
        mx.abs(one - other).max().item() for one, other in zip(*(f[1:] for f in found), strict=True)
    )
    return off[0], gradient / max(largest, 1e-6)


def distance(one: mx.array, other: mx.array) -> float:
    size = max(mx.abs(one).max().item(), 1e-6)
    return float(mx.abs(one - other).max().item() / size)


def timed(
    case: Case, pair: tuple[Any, Any], size: int, length: int, rounds: int, dtype: Any
) -> dict[str, Any]:
    """Median milliseconds and peak memory, forward, in turns: by hand, rewritten on stock MLX, and
    rewritten with the runtime's patch."""
    before, after = (built(case, module, size, length, dtype) for module in pair)
    ways = {"by_hand": (before, False), "rewritten": (after, False), "with_runtime": (after, True)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    for turn in range(rounds + 2):
        mx.random.seed(turn)
        inputs = tuple(cast(array, dtype) for array in case.inputs(1, length))
        mx.eval(inputs)
        for name in sorted(ways, reverse=bool(turn % 2)):
            model, patched = ways[name]
            enable_flash_attention(patched)
            mx.clear_cache()
            mx.reset_peak_memory()
            held = mx.get_active_memory()
            start = time.perf_counter()
            try:
                mx.eval(result_of(case, model, inputs))
            except RuntimeError as error:
                raise RuntimeError(f"{name}, length {length}: {error}") from error
            took = 1e3 * (time.perf_counter() - start)
            if turn >= 2:  # the first ones warm up
                times[name].append(took)
                peaks[name] = max(peaks[name], mx.get_peak_memory() - held)
    enable_flash_attention(False)
    row: dict[str, Any] = {"length": length}
    for name, own in times.items():
        ratios = sorted(one / other for one, other in zip(times["by_hand"], own, strict=True))
        row[name] = {
            "ms": statistics.median(own),
            "speedup": statistics.median(ratios),
            "speedup_range": [ratios[0], ratios[-1]],
            "mib": peaks[name] / 2**20,
        }
    return row


def cast(array: mx.array, dtype: Any) -> mx.array:
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


# Showing


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    headings = ("model", "outputs", "gradients", "length", "ms by hand", "rewritten", "× by hand",
                "with runtime", "× by hand", "MiB")  # fmt: skip
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        for item in row["lengths"]:
            hand, after, patched = item["by_hand"], item["rewritten"], item["with_runtime"]
            table.add_row(
                row["model"],
                f"{row['output_error']:.0e}",
                f"{row['gradient_error']:.0e}",
                str(item["length"]),
                f"{hand['ms']:.2f}",
                f"{after['ms']:.2f}",
                f"{after['speedup']:.2f}",
                f"{patched['ms']:.2f}",
                f"{patched['speedup']:.2f}",
                f"{hand['mib']:.0f} / {after['mib']:.0f} / {patched['mib']:.0f}",
            )
    return table


def write_results(folder: Path, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    device = "gpu" if mx.default_device() == mx.gpu else "cpu"
    info = mx.device_info() if hasattr(mx, "device_info") else {}
    document = {
        "machine": {
            "device": device,
            "name": str(info.get("device_name", platform.machine())),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "mlx": mx.__version__,
            "python": platform.python_version(),
        },
        "dtype": args.dtype,
        "heads": args.size,
        "rounds": args.rounds,
        "models": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"handwritten_models_{device}_{args.dtype}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
