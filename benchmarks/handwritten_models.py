"""Public models with attention written by hand, before and after a rewrite: whether they agree, and
what the rewrite gains.

    git clone https://github.com/ml-explore/mlx-examples checkouts/mlx-examples
    git clone https://github.com/Blaizzy/mlx-audio checkouts/mlx-audio
    python benchmarks/handwritten_models.py MACHINE [--checkouts FOLDER] [--json FILE]

Each model is built twice with the same random weights, from the files as they are and from copies
that flash-integrate has rewritten; nothing is written into the checkouts. A tiny one gives outputs
and the gradients of all weights, which have to agree; larger ones are timed in one process, in
turns: by hand, rewritten on stock MLX, and rewritten with the runtime. Writes
benchmarks/results/handwritten_models_MACHINE.json; exits with 1 where the two versions differ. A
model that this machine can't build is named, and fails the run only with --all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from handwritten_cases import CASES, Case, Inputs, use_sizes
from handwritten_modules import modules_of
from in_turns import in_turns, refusals
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from store import Result, parser_of, place

from mlx_flash_runtime import flash_attention_enabled
from mlx_flash_runtime.patching import state
from mlx_flash_runtime.tools.bench.numbers import ratio, significant

TITLE = "Attention by hand, rewritten"
DEFINITIONS = (
    "Models of public repos with random weights, two layers, forward: as they are (by hand), "
    "rewritten by flash-integrate on stock MLX, and rewritten with the runtime; medians in turns "
    "in one process. MiB: the peak of a call beyond the weights. Gain: over by hand; error: "
    "from the same weights by hand in float32, in parts of the largest value.",
    "Output and gradient (that of all weights): how far a tiny one in float32 is, rewritten, from "
    "the one by hand, in parts of the largest value.",
)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--checkouts", type=Path, default=Path("checkouts"), help="folder that holds the repos"
    )
    parser.add_argument("--all", action="store_true", help="fail where a model can't be built")
    parser.add_argument("--size", type=int, default=4, help="heads of the timed models, of 64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--longest", type=int, default=4096, help="lengths above are left out")
    parser.add_argument(
        "--only", action="append", default=[], help="models whose name has this in it"
    )
    args = parser.parse_args()
    sizes = f"--size {args.size} --dtype {args.dtype} --longest {args.longest}"
    result = Result(
        place(args, "handwritten_models"),
        title=TITLE,
        command=f"python benchmarks/handwritten_models.py {args.machine} {sizes}",
        definitions=DEFINITIONS,
    )
    missing = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if args.only and not any(word in case.name for word in args.only):
                continue
            try:
                pair = modules_of(case, args.checkouts, Path(scratch))
            except (ImportError, FileNotFoundError) as error:
                print(f"{case.name}: not here: {error}", file=sys.stderr)
                missing += 1
                continue
            try:
                for row in rows_of(case, pair, args):
                    result.add(row)
                    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            except RuntimeError as error:  # of MLX, where this machine can't compute it
                print(f"{case.name}: {error}", file=sys.stderr)
                missing += 1
            mx.clear_cache()
    print(f"written: {result.path}")
    wrong = sorted({row["model"] for row in result.rows if not row["agrees"]})
    for name in wrong:
        print(f"{name}: the two versions differ", file=sys.stderr)
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


def rows_of(
    case: Case, pair: tuple[Any, Any], args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A row a length: the agreement of a tiny model, times and memory of larger ones."""
    output, gradient = agreement(case, pair)
    for length in case.lengths:
        if length <= args.longest:
            yield {
                "model": case.name,
                "length": length,
                "output": significant(output, 2),
                "gradient": significant(gradient, 2),
                "agrees": output < 1e-4 and gradient < 1e-3,
                **timed(case, pair, args.size, length, args.rounds, getattr(mx, args.dtype)),
            }


def agreement(case: Case, pair: tuple[Any, Any]) -> tuple[float, float]:
    """The largest difference of outputs, and of the gradients of all weights, in parts of their
    size; in float32 on the CPU, as GPUs multiply that in fewer bits."""
    device = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        return _agreement(case, pair)
    finally:
        mx.set_default_device(device)


def _agreement(case: Case, pair: tuple[Any, Any]) -> tuple[float, float]:
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
    """The largest difference, in parts of the largest of the first."""
    one, other = one.astype(mx.float32), other.astype(mx.float32)
    size = max(mx.abs(one).max().item(), 1e-6)
    return float(mx.abs(one - other).max().item() / size)


def timed(
    case: Case, pair: tuple[Any, Any], size: int, length: int, rounds: int, dtype: Any
) -> dict[str, Any]:
    """Median milliseconds and peak memory, forward, in turns: by hand, rewritten on stock MLX, and
    rewritten with the runtime's patch."""
    before, after = (built(case, module, size, length, dtype) for module in pair)
    models = {
        "by_hand": (before, False),
        "rewritten": (after, False),
        "with_runtime": (after, True),
    }
    inputs = tuple(cast(array, dtype) for array in case.inputs(1, length))
    mx.eval(inputs)
    ways = {
        name: partial(seconds, case, model, inputs, patched)
        for name, (model, patched) in models.items()
    }
    # All along: to put the patch in reads all modules and has it get to know the layers anew, which
    # takes as long as such a call.
    with flash_attention_enabled():
        tried = in_turns(ways, rounds)
    row: dict[str, Any] = {f"{name}_error": None for name in ways}
    for name, way in tried.items():
        row |= {f"{name}_ms": way.milliseconds, f"{name}_mib": way.extra_mib}
    for name in ("rewritten", "with_runtime"):
        row[f"{name}_gain"] = ratio(row["by_hand_ms"], row[f"{name}_ms"])
    failed = refusals(tried)
    if failed == "-":
        results = {}
        for name, (model, patched) in models.items():
            with flash_attention_enabled(patched):
                results[name] = result_of(case, model, inputs)
                mx.eval(results[name])
        exact = wide(case, before, inputs)
        for name, result in results.items():
            row[f"{name}_error"] = significant(distance(exact, result), 2)
    return row | {"failed": failed}


def seconds(case: Case, model: nn.Module, inputs: Inputs, patched: bool) -> float:
    """Of one forward call, the second of two, where the patch is in place: on MLX's own attention
    unless `patched`."""
    with nullcontext() if patched else state.paused():
        mx.eval(result_of(case, model, inputs))
        start = time.perf_counter()
        mx.eval(result_of(case, model, inputs))
        mx.synchronize()
        return time.perf_counter() - start


def wide(case: Case, model: nn.Module, inputs: Inputs) -> mx.array:
    """What a model by hand gives with the same weights in float32."""
    with flash_attention_enabled(False):
        model.update(tree_map(lambda array: cast(array, mx.float32), model.parameters()))
        return result_of(case, model, tuple(cast(array, mx.float32) for array in inputs))


def cast(array: mx.array, dtype: Any) -> mx.array:
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


if __name__ == "__main__":
    sys.exit(main())
