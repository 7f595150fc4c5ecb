"""Few queries on many keys, a step of decoding or a draft that is verified: our CUDA kernel beside
MLX's own attention, plain attention and PyTorch's.

    python benchmarks/few_queries.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Needs a GPU for CUDA; without PyTorch, which this project does not install, its columns are empty.
Writes benchmarks/results/few_queries_MACHINE.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import mlx.core as mx
from cuda_kernel import one
from cuda_rows import CHECKED_SCORES, measure_all
from pytorch import PYTORCH, best_of_pytorch
from routes import numbers_of, timed

from mlx_flash_runtime import stock
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.ops import written_out
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import cuda_kernel
from mlx_flash_runtime.stock.fused import is_fused
from mlx_flash_runtime.tools.bench.check import Attend, need_right
from mlx_flash_runtime.tools.bench.inputs import Inputs, make_inputs
from mlx_flash_runtime.tools.bench.numbers import ratio
from mlx_flash_runtime.tools.bench.timing import chained

TITLE = "Few queries on many keys"
DEFINITIONS = (
    "bfloat16; milliseconds of a call, medians in turns in one process after a warm-up and a check "
    "against float64 attention; a timed region chains as many calls of each as the fastest takes "
    "to last 10 ms, 256 at most. plain: softmax(QKᵀ)V in MLX operations. With bits, keys and "
    "values are quantized in groups of 64, which the kernel reads as they are; stock and plain are "
    "on what each call dequantizes. picked: the planner takes the kernel by itself.",
    PYTORCH + " A causal mask over more keys than queries, which it has not, is left out there; of "
    "quantized keys it has none.",
)
LIMIT = 0.8  # seconds of a row, about
GROUP_SIZE = 64
DECODE = Problem(1, 16, 8, 1, 8192, 128, 128, dtype="bfloat16")
LATENT = {"key_heads": 1, "head_dim": 576, "value_head_dim": 512}


class Row(NamedTuple):
    """What is measured: a problem, and how its keys and values are quantized."""

    problem: Problem
    bits: int | None = None

    def __str__(self) -> str:
        return f"{self.problem}, {self.bits} bits" if self.bits else str(self.problem)


def problems() -> Iterator[Row]:
    """One query, drafts, batches, masks, the latent keys of MLA, quantized keys."""
    for head_dim in (64, 80, 128, 256):
        for keys in (256, 1024, 8192, 32768):
            yield of(key_length=keys, head_dim=head_dim)
    for queries in (2, 5, 8, 20):
        for keys in (1024, 8192, 32768):
            yield of(query_length=queries, key_length=keys, mask="causal")
        yield of(query_length=queries, head_dim=256, mask="causal")
    for batch, keys in ((4, 2048), (8, 4096), (32, 2048)):
        yield of(batch=batch, key_length=keys)
        for mask in ("bool", "additive"):
            yield of(batch=batch, key_length=keys, mask=mask, mask_shape=(batch, 1, 1, keys))
    window = {"mask": "window", "mask_shape": (5, 8192), "structure": Window(1024)}
    yield of(query_length=5, **window)
    yield of(query_heads=8, key_heads=1, head_dim=256)
    for keys in (1024, 4096, 8192):
        yield of(query_heads=64, key_length=keys, head_dim=64, sinks=True)
    for heads in (16, 128):
        yield of(query_heads=heads, **LATENT)
    for bits, keys in ((4, 1024), (4, 8192), (4, 32768), (8, 32768)):
        yield of(key_length=keys)._replace(bits=bits)


def of(**changes: Any) -> Row:
    """One query of 16 heads on 8,192 keys of 8, with `changes`."""
    if "head_dim" in changes:
        changes.setdefault("value_head_dim", changes["head_dim"])
    return Row(replace(DECODE, **changes))


def measured(row_of: Row, args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    (p, bits), device = row_of, current_device()
    made = make_inputs(p)
    inputs, attends = quantized(p, bits, made) if bits else (made, candidates(p, made))
    need_right(p, inputs, attends, CHECKED_SCORES)
    row: dict[str, Any] = {
        "batch": p.batch,
        "heads": f"{p.query_heads}/{p.key_heads}",
        "head_dim": p.head_dim,
        "queries": p.query_length,
        "keys": p.key_length,
        "bits": bits or "-",
        "mask": p.mask + (", sinks" if p.sinks else ""),
        "fused": is_fused(p, device)[0],
        "picked": bool(bits) or cuda_kernel.pays(p, device)[0],
    }
    runs = {
        name: partial(chained, partial(one, attend, inputs.k, inputs.v), inputs.q)
        for name, attend in attends.items()
    }
    measurement = timed(runs, args.rounds, LIMIT)
    row |= numbers_of(measurement)
    for name in ("stock", "plain"):
        row[f"over_{name}"] = ratio(row[f"{name}_ms"], row["kernel_ms"])
    mx.clear_cache()
    row |= {"pytorch_ms": None, "pytorch": "-"}
    if find_spec("torch") is not None and not p.sinks and not bits:
        row |= best_of_pytorch(p, measurement.calls)
    return row | {"over_pytorch": ratio(row["pytorch_ms"], row["kernel_ms"])}


def candidates(problem: Problem, inputs: Inputs) -> dict[str, Attend]:
    """MLX's own function, plain attention and the kernel."""
    rest = {"scale": inputs.scale, "mask": inputs.mask, "sinks": inputs.sinks}
    kernel = cuda_kernel.launch(problem, current_device(), None)
    functions = {"stock": stock.attention, "plain": written_out.attention, "kernel": kernel}
    return {name: partial(function, **rest) for name, function in functions.items()}


def quantized(problem: Problem, width: int, inputs: Inputs) -> tuple[Inputs, dict[str, Attend]]:
    """The same on quantized keys and values, and the inputs that those say."""
    bits = Bits(width, GROUP_SIZE)
    packed = [mx.quantize(x, group_size=GROUP_SIZE, bits=width) for x in (inputs.k, inputs.v)]

    def dequantized(after: mx.array) -> list[mx.array]:
        # Those of a call follow its queries, as nothing is dequantized for two calls.
        scales = mx.depends([one[1] for one in packed], [after])
        return [
            mx.dequantize(words, own, biases, group_size=GROUP_SIZE, bits=width)
            for (words, _, biases), own in zip(packed, scales, strict=True)
        ]

    def by(function: Any) -> Attend:
        return lambda q, k, v: function(q, *dequantized(q), scale=inputs.scale)

    def kernel(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        arrays = [q, *packed[0], *packed[1]]
        out = cuda_kernel.quantized(problem, bits, current_device(), inputs.scale, arrays)
        assert out is not None
        return out

    k, v = dequantized(inputs.q)
    mx.eval(k, v, packed)
    functions = {"stock": by(stock.attention), "plain": by(written_out.attention)}
    return replace(inputs, k=k, v=v), {**functions, "kernel": kernel}


if __name__ == "__main__":
    measure_all(sys.modules[__name__])
