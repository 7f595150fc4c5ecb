"""Where the planner leaves MLX's own path: time and peak memory of plain attention, stock and ours, in one process.

    python benchmarks/routes.py --name h200 [--only SUBSTRING] [--rounds N]

Every case is behind a check that ours agrees with stock. Writes `benchmarks/results/routes_NAME.json`. A case that
fails, for want of memory or because MLX has no such thing, has the error in the place of its numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_flash_runtime import enable_flash_attention, patch, report
from mlx_flash_runtime import layers as seen_layers
from mlx_flash_runtime.bench.machine import machine
from mlx_flash_runtime.bench.timing import Timing, interleaved, peak_memory
from mlx_flash_runtime.masks import packed_mask, prefix_mask, window_mask

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], Any]


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

    def run(self, function: Callable[..., mx.array], arguments: dict[str, Any]) -> Run:
        """One call, or one gradient of all arrays."""
        if not self.training:
            return lambda: function(*self.arrays, **arguments)
        argnums = list(range(len(self.arrays)))

        def loss(*arrays: mx.array) -> mx.array:
            return function(*arrays, **arguments).astype(mx.float32).square().sum()

        return lambda: mx.grad(loss, argnums=argnums)(*self.arrays)


def attention(q: mx.array, k: mx.array, v: mx.array, **arguments: Any) -> mx.array:
    """MLX's function, whichever is in its place."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, **arguments)


def plain(q: mx.array, k: mx.array, v: mx.array, mask: Any = None) -> mx.array:
    """softmax(Q K^T + mask) V in MLX operations, as it is written by hand."""
    groups = q.shape[1] // k.shape[1]
    k, v = (mx.repeat(x, groups, axis=1) for x in (k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-1, -2)
    if isinstance(mask, str):
        mask = mx.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2]) >= mx.arange(k.shape[2])
    if mask is not None:
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min) if mask.dtype == mx.bool_ else scores + mask
    return mx.softmax(scores, axis=-1, precise=True) @ v


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
    """One row: milliseconds (median and quartiles), MiB, the routes that ours took, its error against stock."""
    row: dict[str, Any] = {"case": case.name}
    runs: dict[str, Run] = {"stock": case.run(case.attend, case.stock_arguments)}
    if case.plain is not None:
        runs["plain"] = case.run(case.plain, case.stock_arguments)
    runs = {name: stock(run) for name, run in runs.items()}
    runs["flash"] = case.run(lambda *arrays, **_: case.attend(*arrays, **case.arguments()), {})
    for name, run in list(runs.items()):
        try:
            mx.eval(run())
            mx.synchronize()
            row[f"{name}_mib"] = round(peak_memory(run) / 2**20, 1)
        except Exception as error:
            row[f"{name}_error"] = str(error)[:120]
            del runs[name]
    if "flash" in runs:
        seen_layers.forget()
        runs["flash"]()
        row["routes"] = report().as_dict()["routes"]
    if {"stock", "flash"} <= set(runs):
        row["error"], row["scale"] = difference(runs["flash"](), runs["stock"]())
    timings = interleaved(runs, rounds)
    for name, timing in timings.items():
        row[f"{name}_ms"], row[f"{name}_quartiles"] = in_ms(timing)
    if {"stock", "flash"} <= set(runs):
        row["speedup"] = round(timings["stock"].median / timings["flash"].median, 3)
        row["memory_ratio"] = round(row["stock_mib"] / row["flash_mib"], 2)
    return row


def stock(run: Run) -> Run:
    """`run` on MLX's own attention."""

    def paused() -> Any:
        with patch.paused():
            return run()

    return paused


def difference(ours: Any, stock: Any) -> tuple[float, float]:
    """The largest difference, and the largest number of stock."""
    pairs = [(ours, stock)] if isinstance(ours, mx.array) else list(zip(ours, stock, strict=True))
    wide = [(x.astype(mx.float32), y.astype(mx.float32)) for x, y in pairs]
    errors = [mx.abs(x - y).max().item() / max(mx.abs(y).max().item(), 1e-30) for x, y in wide]
    return max(errors), max(mx.abs(y).max().item() for _, y in wide)


def in_ms(timing: Timing) -> tuple[float, list[float]]:
    return round(1e3 * timing.median, 4), [round(1e3 * x, 4) for x in timing.quartiles]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=str(mx.default_device().type).rpartition(".")[2], help="of the result file")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    enable_flash_attention()
    rows = []
    for make in cases():
        case = make()
        if args.only in case.name:
            rows.append(measured(case, args.rounds))
            print(json.dumps(rows[-1]), flush=True)
        del case
        mx.clear_cache()
    path = RESULTS / f"routes_{args.name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
