"""Where the planner leaves MLX's own path: time and peak memory of plain attention, stock and ours, in one process.

    python benchmarks/routes.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Writes benchmarks/results/routes_MACHINE.json. A candidate that fails, for want of memory or because MLX has no such
thing, has the error in the place of its numbers. Exits with 1 if a case is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from store import write

from mlx_flash_runtime import enable_flash_attention, report, state
from mlx_flash_runtime.bench import plain as by_hand
from mlx_flash_runtime.bench.grid import routes_between
from mlx_flash_runtime.bench.machine import is_out_of_memory
from mlx_flash_runtime.bench.numbers import ratio, significant
from mlx_flash_runtime.bench.timing import calibrated, chained, interleaved, peak_memory
from mlx_flash_runtime.masks import packed_mask, prefix_mask, window_mask
from mlx_flash_runtime.problem import Device

TITLE = "Where the planner leaves MLX's own path"
DEFINITIONS = (
    "plain: softmax(QKᵀ)V in MLX operations; stock: MLX's own attention; ours: flash attention enabled, on the routes "
    "named. One process, in turns, after a warm-up; medians per call, the ± is half the interquartile range; a timed "
    "region chains as many calls as it takes to last 10 ms.",
    "Stock gets a mask as an array that exists already; ours makes it anew for every call, as a model does for every "
    "forward pass. Training: the gradients of all inputs. bfloat16, batch 1, 16 heads on 4 key heads, causal, unless "
    "the name says otherwise.",
    "Memory: peak of one call beyond its inputs. Error: largest difference of ours from stock, relative to the largest "
    "element; a case is wrong where it exceeds four roundings to its type, or four times that of plain.",
)
# The smallest difference between 1 and the next number; on CUDA, MLX multiplies float32 as TF32 unless told otherwise.
EPSILON = {mx.float32: 2.0**-23, mx.bfloat16: 2.0**-7}
if Device.current().backend == "cuda" and Device.current().tf32:
    EPSILON[mx.float32] = 2.0**-10
REGION, LIMIT = 0.01, 4.0  # seconds of a timed region, at least, and of a case, about

# Calls, each after the one before; the results of the last.
Run = Callable[[int], Any]


@dataclass
class Case:
    """What is measured: `attend` on `arrays`; `mask` makes the mask anew, as a model does for every forward pass, and
    `stock_mask` is the array that MLX gets."""

    name: str
    attend: Callable[..., mx.array]
    arrays: list[mx.array]
    plain: Callable[..., mx.array] | None = None
    training: bool = False
    stock_arguments: dict[str, Any] = field(default_factory=dict)
    arguments: Callable[[], dict[str, Any]] = dict

    def run(self, function: Callable[..., mx.array], arguments: Callable[[], dict[str, Any]]) -> Run:
        """Calls of the function, or gradients of all arrays."""
        first, *others = self.arrays

        def call(x: mx.array) -> Sequence[mx.array]:
            own = arguments()
            if not self.training:
                return [function(x, *others, **own)]

            def loss(*arrays: mx.array) -> mx.array:
                return function(*arrays, **own).astype(mx.float32).square().sum()

            return mx.grad(loss, argnums=list(range(len(self.arrays))))(x, *others)

        return lambda calls: chained(call, first, calls)


def attention(q: mx.array, k: mx.array, v: mx.array, **arguments: Any) -> mx.array:
    """MLX's function, whichever is in its place."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, **arguments)


def plain(q: mx.array, k: mx.array, v: mx.array, mask: Any = None) -> mx.array:
    """softmax(Q K^T + mask) V in MLX operations, as it is written by hand."""
    if isinstance(mask, str):
        mask = mx.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2]) >= mx.arange(k.shape[2])
    return by_hand.plain(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)


def qkv(
    length: int, dim: int, heads: int = 16, key_heads: int = 4, batch: int = 1, dtype: mx.Dtype = mx.bfloat16
) -> list[mx.array]:
    shapes = [(batch, heads, length, dim), *[(batch, key_heads, length, dim)] * 2]
    arrays = [mx.random.normal(shape, key=mx.random.key(i)).astype(dtype) for i, shape in enumerate(shapes)]
    mx.eval(arrays)
    return arrays


def masked(
    name: str, arrays: list[mx.array], make: Callable[[], Any], training: bool = False, array: bool = True
) -> Case:
    """Stock with the mask as an array, ours with the same array where it is made by someone who knows what it says."""
    stock = make() & True if array else make()  # the same elements, of unknown origin
    if array:
        mx.eval(stock)
    return Case(name, attention, arrays, plain, training, {"mask": stock}, lambda: {"mask": make()})


def cases() -> Iterator[Callable[[], Case]]:
    """Each made only when its turn comes."""
    for length in (100, 1000, 8100):
        yield lambda n=length: masked(f"length {n}, D 64, training", qkv(n, 64, 16, 8), lambda: "causal", True, False)
    for length in (1024, 4096):
        yield lambda n=length: masked(f"head dim 36, length {n}", qkv(n, 36), lambda: "causal", array=False)
    for training in (False, True):
        kind = ", training" if training else ""
        yield lambda t=training, kind=kind: masked(
            f"window 1024 of 16384, D 128{kind}", qkv(16384, 128, 16, 16), lambda: window_mask(16384, 1024), t
        )
        yield lambda t=training, kind=kind: masked(
            f"window 512 of 4096, D 64{kind}", qkv(4096, 64), lambda: window_mask(4096, 512), t
        )
        yield lambda t=training, kind=kind: masked(
            f"8 documents of 1024, D 128{kind}", qkv(8192, 128), lambda: packed_mask([1024] * 8), t
        )
        yield lambda t=training, kind=kind: masked(
            f"prefix 1024 of 8192, D 128{kind}", qkv(8192, 128), lambda: prefix_mask(8192, 1024), t
        )
        yield lambda t=training, kind=kind: unknown(f"bool mask, length 8192, D 128{kind}", qkv(8192, 128), t)
        yield lambda t=training, kind=kind: masked(
            f"causal, D 256, length 8192{kind}", qkv(8192, 256, 8, 4), lambda: "causal", t, False
        )
        yield lambda t=training, kind=kind: masked(
            f"causal, D 256, length 2048{kind}", qkv(2048, 256, 8, 4), lambda: "causal", t, False
        )
        yield lambda t=training, kind=kind: masked(
            f"causal, float32, D 64, length 8192{kind}",
            qkv(8192, 64, 16, 8, dtype=mx.float32),
            lambda: "causal",
            t,
            False,
        )
        yield lambda t=training, kind=kind: latent(f"MLA, 16 heads, length 4096{kind}", 4096, t)
    for length in (512, 1024, 4096):
        yield lambda n=length: masked(f"fused in MLX, D 128, length {n}", qkv(n, 128), lambda: "causal", array=False)
        yield lambda n=length: masked(
            f"fused in MLX, D 128, length {n}, training", qkv(n, 128), lambda: "causal", True, False
        )
    yield lambda: sinks("sinks that are trained, length 2048")
    for bits in (4, 8):
        yield lambda bits=bits: quantized(f"quantized keys, {bits} bits, 2048 queries on 32768 keys", bits)


def unknown(name: str, arrays: list[mx.array], training: bool) -> Case:
    """A bool mask that nobody knows the structure of: left padding of four rows."""
    length = arrays[0].shape[2]
    mask = mx.tril(mx.ones((length, length), mx.bool_)) & (mx.arange(length) >= 3)
    mx.eval(mask)
    return Case(name, attention, arrays, plain, training, {"mask": mask}, lambda: {"mask": mask})


def sinks(name: str) -> Case:
    arrays = [*qkv(2048, 64, 64, 8), mx.random.normal((64,)).astype(mx.bfloat16)]
    return Case(name, lambda q, k, v, s, **rest: attention(q, k, v, sinks=s, mask="causal"), arrays, training=True)


def latent(name: str, length: int, training: bool) -> Case:
    """The attention layer of DeepSeek V3, with fewer heads."""
    from mlx_lm.models import base, deepseek_v3

    layer = deepseek_v3.DeepseekV3Attention(
        deepseek_v3.ModelArgs(hidden_size=1024, num_attention_heads=16, num_key_value_heads=16, q_lora_rank=256)
    )
    layer.set_dtype(mx.bfloat16)
    x = mx.random.normal((1, length, 1024)).astype(mx.bfloat16)
    mx.eval(x, layer.parameters())

    def attend(x: mx.array) -> mx.array:
        return layer(x, mask=base.create_attention_mask(x, return_array=True))

    return Case(name, attend, [x], training=training)


def quantized(name: str, bits: int) -> Case:
    from mlx_lm.models import base

    q, _, _ = qkv(2048, 128)
    _, k, v = qkv(32768, 128)
    packed = [mx.quantize(x, group_size=64, bits=bits) for x in (k, v)]
    mx.eval(packed)

    def attend(q: mx.array) -> mx.array:
        return base.quantized_scaled_dot_product_attention(
            q + 0, *packed, scale=128**-0.5, mask="causal", group_size=64, bits=bits
        )

    return Case(name, attend, [q])


def measured(case: Case, rounds: int) -> dict[str, Any]:
    """One row: of each candidate milliseconds (median and quartiles) and MiB, or its error; the routes that ours took,
    and how far it is from stock."""
    row: dict[str, Any] = {"case": case.name, "route": None, "error": None, "wrong": False}
    runs: dict[str, Run] = {"stock": stock(case.run(case.attend, lambda: case.stock_arguments))}
    if case.plain is not None:
        runs["plain"] = stock(case.run(case.plain, lambda: case.stock_arguments))
    runs["ours"] = case.run(case.attend, case.arguments)
    for name in ("plain", "stock", "ours"):
        row |= {f"{name}_{key}": None for key in ("ms", "low_ms", "high_ms", "peak_mib", "failure")}
    results: dict[str, Sequence[mx.array]] = {}
    for name, run in list(runs.items()):
        try:
            before = report()
            results[name] = run(1)
            mx.eval(results[name])
            if name == "ours":
                row["route"] = routes_between(before, report())
            row[f"{name}_peak_mib"] = significant(peak_memory(partial(run, 1)) / 2**20)
        except (RuntimeError, ValueError) as error:
            row[f"{name}_failure"] = "out of memory" if is_out_of_memory(error) else str(error)[:120]
            del runs[name]
    row |= checked(results, EPSILON[case.arrays[0].dtype])
    results.clear()
    calls, rounds = calibrated(
        {name: partial(run, 1) for name, run in runs.items()}, region=REGION, limit=LIMIT, rounds=rounds
    )
    timed = {name: partial(run, calls) for name, run in runs.items()}
    if calls > 1:
        interleaved(timed, 1)
    for name, timing in interleaved(timed, rounds, calls).items():
        numbers = (significant(1e3 * value) for value in (timing.median, *timing.quartiles))
        row |= dict(zip((f"{name}_ms", f"{name}_low_ms", f"{name}_high_ms"), numbers, strict=True))
    for name in ("plain", "stock"):
        row[f"over_{name}"] = ratio(row[f"{name}_ms"], row["ours_ms"])
    row["memory_ratio"] = ratio(row["stock_peak_mib"], row["ours_peak_mib"])
    return row


def stock(run: Run) -> Run:
    """`run` on MLX's own attention."""

    def paused(calls: int) -> Any:
        with state.paused():
            return run(calls)

    return paused


def checked(results: dict[str, Sequence[mx.array]], epsilon: float) -> dict[str, Any]:
    """The error of ours, and whether it is too large; neither where there is nothing to hold it against."""
    if not {"ours", "stock"} <= set(results):
        return {}
    error = difference(results["ours"], results["stock"])
    rounding = max(difference(results["plain"], results["stock"]) if "plain" in results else 0.0, epsilon)
    return {"error": significant(error, 2), "wrong": not error <= 4 * rounding}


def difference(ours: Sequence[mx.array], stock: Sequence[mx.array]) -> float:
    """The largest difference of any result, relative to its largest element."""
    pairs = [(x.astype(mx.float32), y.astype(mx.float32)) for x, y in zip(ours, stock, strict=True)]
    return max((mx.abs(x - y).max() / mx.maximum(mx.abs(y).max(), 1e-30)).item() for x, y in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", help="the last part of the file's name")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of that file")
    args = parser.parse_args()
    path = args.json.absolute() if args.json else Path(f"routes_{args.machine}.json")
    command = f"python benchmarks/routes.py {args.machine}"
    enable_flash_attention()
    rows: list[dict[str, Any]] = []
    try:
        for make in cases():
            case = make()
            if args.only in case.name:
                rows.append(measured(case, args.rounds))
                print(told(rows[-1]), flush=True)
            del case
            mx.clear_cache()
    finally:  # also after an interruption: what was measured is not lost
        print(f"written: {write(path, rows, title=TITLE, command=command, definitions=DEFINITIONS)}")
    return 1 if any(row["wrong"] for row in rows) else 0


def told(row: dict[str, Any]) -> str:
    """One line of a row."""
    times = [f"{name} {row[f'{name}_failure'] or row[f'{name}_ms']}" for name in ("plain", "stock", "ours")]
    wrong = " WRONG" if row["wrong"] else ""
    return f"{row['case']}: {', '.join(times)} ms; {row['route']}, x{row['over_stock']}{wrong}"


if __name__ == "__main__":
    sys.exit(main())
