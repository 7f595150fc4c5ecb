"""PyTorch's attention beside ours on the same card: how far from the best kernels we are.

    python benchmarks/pytorch.py MACHINE [--only TEXT] [--rounds N] [--json FILE]

Needs a GPU for CUDA and PyTorch, which this project does not install. Writes
benchmarks/results/pytorch_MACHINE.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any

import mlx.core as mx
from cuda_rows import CHECKED_SCORES, measure_all
from routes import numbers_of, timed

from mlx_flash_runtime import stock
from mlx_flash_runtime.control import flash_attention_enabled
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.tools.bench.check import Attend, need_right, run_phase
from mlx_flash_runtime.tools.bench.inputs import Inputs, make_inputs
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.routes_taken import in_words
from mlx_flash_runtime.tools.bench.timing import chained

TITLE = "PyTorch on the same card"
PYTORCH = (
    "pytorch: another program on the same machine in the same run, the best of its backends "
    "(flash, cuDNN, memory-efficient, with the keys of a head repeated where a backend needs "
    "that), after a warm-up, as many calls to a timed region as ours."
)
DEFINITIONS = (
    "Batch 1, 16 heads on 4 key heads, causal; milliseconds of a call, in training of a forward "
    "pass and its gradient; stock and ours in turns in one process, behind a check against float64 "
    "attention.",
    PYTORCH,
)
NEEDS = "torch"
LIMIT = 0.8  # seconds of a row, about
ROUNDS = 7


def problems() -> Iterator[Problem]:
    """Forward and training, and one query on a long cache."""
    kinds = (("bfloat16", 64), ("bfloat16", 128), ("bfloat16", 256), ("float32", 64))
    for (dtype, head_dim), length in product(kinds, (512, 2048, 8192)):
        square = Problem(1, 16, 4, length, length, head_dim, head_dim, dtype=dtype, mask="causal")
        yield square
        yield replace(square, training=True)
        yield replace(square, query_length=1, mask="none")


def measured(problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    inputs = make_inputs(problem)
    row: dict[str, Any] = {
        "dtype": problem.dtype,
        "head_dim": problem.head_dim,
        "queries": problem.query_length,
        "keys": problem.key_length,
        "training": problem.training,
    }
    with flash_attention_enabled():
        attends = {}
        for name, function in (
            ("stock", stock.attention),
            ("ours", mx.fast.scaled_dot_product_attention),
        ):
            attends[name] = partial(function, scale=inputs.scale, mask=inputs.mask)
        need_right(problem, inputs, attends, CHECKED_SCORES)
        runs = {}
        for name, attend in attends.items():
            runs[name] = partial(chained, partial(one, problem, attend, inputs), inputs.q)
        measurement = timed(runs, args.rounds, LIMIT)
    row |= {"routes": in_words(measurement.taken) or "-", **numbers_of(measurement)}
    mx.clear_cache()
    row |= {"pytorch_ms": None, "pytorch": "-"} | best_of_pytorch(problem, measurement.calls)
    return row | {
        "over_pytorch": ratio(row["pytorch_ms"], row["ours_ms"]),
        "torch": version("torch"),
    }


def one(problem: Problem, attend: Attend, inputs: Inputs, q: mx.array) -> list[mx.array]:
    """One call on those queries, in training with the gradients."""
    return run_phase(problem, attend, replace(inputs, q=q), inputs.cotangent)


def best_of_pytorch(problem: Problem, calls: int) -> dict[str, Any]:
    """Milliseconds of the best of its backends, and which that is, with so many calls to a timed
    region; nothing where none runs it."""
    import torch
    from torch.nn.attention import SDPBackend

    torch.backends.cuda.matmul.allow_tf32 = True
    best: dict[str, Any] = {}
    for backend, in_groups in product(
        (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION),
        (True, False),
    ):
        try:
            milliseconds = _of_backend(problem, backend, in_groups, calls)
        except RuntimeError:  # it does not run this one
            continue
        if milliseconds < best.get("pytorch_ms", float("inf")):
            best = {"pytorch_ms": milliseconds, "pytorch": backend.name.split("_")[0].lower()}
    return best


def _of_backend(problem: Problem, backend: Any, in_groups: bool, calls: int) -> float:
    """Milliseconds; with the keys of a head repeated for its queries unless `in_groups`."""
    import torch
    from torch.nn.attention import sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    p = problem
    repeats = p.query_heads // p.key_heads

    def normal(heads: int, length: int, dim: int) -> Any:
        shape = (p.batch, heads, length, dim)
        made = torch.randn(shape, dtype=getattr(torch, p.dtype), device="cuda")
        return made.requires_grad_(p.training)

    q = normal(p.query_heads, p.query_length, p.head_dim)
    k = normal(p.key_heads, p.key_length, p.head_dim)
    v = normal(p.key_heads, p.key_length, p.value_head_dim)
    cotangent = normal(p.query_heads, p.query_length, p.value_head_dim).detach()
    # Its causal mask is one of as many queries as keys. Of an array any numbers do.
    is_causal = p.mask == "causal" and p.query_length == p.key_length
    shape = p.mask_shape if p.mask in ("bool", "additive") else None
    of_mask = torch.bool if p.mask == "bool" else q.dtype
    mask = None if shape is None else torch.ones(shape, dtype=of_mask, device="cuda")

    def once() -> None:
        keys, values = k, v
        if not in_groups:
            keys, values = (x.repeat_interleave(repeats, 1) for x in (k, v))
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(
                q, keys, values, attn_mask=mask, is_causal=is_causal, enable_gqa=in_groups
            )
        if p.training:
            torch.autograd.grad(out, (q, k, v), cotangent)

    once()
    seconds = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            once()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / calls)
    return significant(1e3 * statistics.median(seconds))


if __name__ == "__main__":
    measure_all(sys.modules[__name__])
