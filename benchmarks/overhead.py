"""What the patch adds to one attention call: the planner's lookup and the counting of the layer.

    python benchmarks/overhead.py MACHINE [--json FILE]

Takes about twenty seconds and writes benchmarks/results/overhead_MACHINE.json.

The calls are those of one small layer, made the way mlx-lm makes them (a module's method calls a
helper, which calls MLX), and only built, not computed: MLX is lazy. Every case patched and
unpatched in turns, in microseconds of processor time per call, the least of many repeats: what is
more is another program's doing. `wrapper` is what any Python function in MLX's place would cost;
`next token` is the planner's part of the first layer's call for a decoded token, on one more key,
and `new plan` that for a prompt of a length that was not seen before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from store import Result, parser_of, place

from mlx_flash_runtime.kernels.cpu.build import build
from mlx_flash_runtime.patching import patch
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.routes_taken import counting, in_words

CALLS, REPEATS = 1000, 60
# MLX's own function, and the plans that this machine takes by default.
ROUTES = ("unfused", "auto")
Attention = Callable[..., mx.array]

TITLE = "What the patch adds to a call"
DEFINITION = (
    "Microseconds of processor time to make a call in Python (MLX computes later), the least of "
    "many repeats: on MLX's own function, on a Python function in its place that does nothing, "
    "and patched: with the route unfused, which is MLX's own function again, and with auto, "
    "which takes the route that the case then names, as in a program that asks for none; the CPU "
    "kernel's own call is shorter than MLX's. Next token, new plan: the "
    "planner's part where it sees one more key than before, or a prompt of a new length."
)


def helper(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: Any,
) -> mx.array:
    """As `mlx_lm.models.base.scaled_dot_product_attention`."""
    return mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=scale, mask=mask, sinks=sinks
    )


class Layer(nn.Module):
    """Attention with as many local names as a real layer has."""

    def __call__(
        self, x: mx.array, keys: mx.array, mask: Any = None, sinks: Any = None, cache: Any = None
    ) -> mx.array:
        queries, values = x, keys
        output = helper(queries, keys, values, cache=cache, scale=0.125, mask=mask, sinks=sinks)
        return output


def wrapper_of(stock: Attention) -> Attention:
    """A function in MLX's place that does nothing."""

    def wrapper(
        q: Any, k: Any, v: Any, *, scale: Any, mask: Any = None, sinks: Any = None
    ) -> mx.array:
        return stock(q, k, v, scale=scale, mask=mask, sinks=sinks)

    return wrapper


def cases() -> dict[str, tuple[Any, ...]]:
    """Arguments of `Layer` by name."""
    # The type of a model: GPUs have fused kernels for 16 bits.
    dtype = "float32" if current_device().backend == "cpu" else "bfloat16"
    decode = make_inputs(Problem(1, 8, 4, 1, 100, 64, 64, dtype=dtype))
    prefill = make_inputs(Problem(1, 8, 4, 40, 40, 64, 64, dtype=dtype))
    q, k, prompt, keys = decode.q, decode.k, prefill.q, prefill.k
    return {
        "decode": (q, k),
        "causal": (prompt, keys, "causal"),
        "window": (prompt, keys, window_mask(40, 8)),
        "mask": (prompt, keys, mx.ones((40, 40), mx.bool_)),
        "sinks": (q, k, None, mx.zeros((8,), q.dtype)),
    }


def microseconds(layer: Layer, arguments: tuple[Any, ...]) -> float:
    """Per call."""
    start = time.process_time()
    for _ in range(CALLS):
        layer(*arguments)
    return (time.process_time() - start) / CALLS * 1e6


def new_plan_microseconds(planner: Planner, lengths: Any, prompts: bool) -> float:
    """Per call of a shape that the planner has not seen: a prompt, or one query on that many
    keys."""
    queries, keys = mx.zeros((1, 8, 2**20, 64)), mx.zeros((1, 4, 2**20, 64))
    seen = []
    for _ in range(100):
        length = next(lengths)
        seen.append((queries[:, :, : length if prompts else 1], keys[:, :, :length]))
    start = time.process_time()
    for q, k in seen:
        planner.lookup(q, k, k, None, None)
    return (time.process_time() - start) / len(seen) * 1e6


def main() -> None:
    args = parser_of(__doc__).parse_args()
    command = f"python benchmarks/overhead.py {args.machine}"
    result = Result(place(args, "overhead"), title=TITLE, command=command, definitions=[DEFINITION])
    if current_device().backend == "cpu":
        build()
    for route in ROUTES:
        for row in measured(route):
            result.add(row)
            words = (f"{key.removesuffix('_us')} {value}" for key, value in row.items())
            print("  ".join(words), flush=True)
    print(f"written: {result.path}")


def measured(route: str) -> list[dict[str, Any]]:
    """The rows of one route."""
    layer = Layer()
    patched = patch.scaled_dot_product_attention
    # In a list and a dictionary: the patch replaces names that modules have for it.
    stock = [mx.fast.scaled_dot_product_attention]
    functions = {"mlx": stock[0], "wrapper": wrapper_of(stock[0]), "patched": patched}
    planner = Planner(Settings(enabled=True, route=None if route == "auto" else route))
    patch.install(planner)
    rows: list[dict[str, Any]] = []
    for case, arguments in cases().items():
        with counting() as taken:
            least = least_microseconds(functions, layer, arguments)
        name = case if route == "unfused" else f"{case}: {in_words(taken)}"
        times = {f"{name}_us": round(us, 2) for name, us in least.items()}
        added = round(least["patched"] - least["mlx"], 2)
        rows.append({"route": route, "case": name, **times, "added_us": added})
    mx.fast.scaled_dot_product_attention = patched
    lengths = count(1000)
    for case, prompts in (("next token", False), ("new plan", True)):
        repeats = [new_plan_microseconds(planner, lengths, prompts) for _ in range(REPEATS)]
        rows.append({"route": route, "case": case, "added_us": round(min(repeats), 2)})
    patch.uninstall()
    return rows


def least_microseconds(
    functions: dict[str, Attention], layer: Layer, arguments: tuple[Any, ...]
) -> dict[str, float]:
    """Of each function in MLX's place, in turns."""
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(REPEATS):
        for name, function in functions.items():
            # Past the patch, which would take the place of MLX's own again.
            vars(mx.fast)["scaled_dot_product_attention"] = function
            least[name] = min(least[name], microseconds(layer, arguments))
    return least


if __name__ == "__main__":
    main()
