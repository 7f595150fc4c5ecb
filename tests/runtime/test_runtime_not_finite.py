"""NaN and infinity: output and gradients have them where MLX's unfused attention has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arithmetic import agree
from attention64 import Array
from attention_cases import Call, Case, answers, make, runner, wide
from backends import cpu_only

from mlx_flash_runtime import stock
from mlx_flash_runtime.routes import blockwise, cpu_kernel, query_blocks

pytestmark = cpu_only

ANY = Case(40, 52, heads=4, key_heads=2, batch=2, head_dim=8, value_head_dim=8, block_size=8)
LONG = replace(ANY, query_length=150, key_length=150, batch=1, heads=2, block_size=32)
CASES = [
    ANY,
    replace(ANY, mask="causal"),
    replace(ANY, query_length=60, mask="causal", sinks=True),
    replace(ANY, query_length=1, mask="causal"),
    replace(ANY, mask=("bool", (2, 1, 40, 52)), sinks=True),
    replace(ANY, mask=("rows hidden", (40, 52))),
    replace(ANY, mask=("additive", (4, 40, 52)), sinks=True),
    replace(ANY, mask=("window", (5,)), sinks=True),
    replace(ANY, query_length=52, mask=("segments", (20, 2, 30))),
    replace(LONG, mask="causal"),
    replace(LONG, mask=("window", (20,))),
    # Keys in several parts, and keys before every window.
    replace(ANY, query_length=20, key_length=700, batch=1, block_size=64, mask=("window", (30,))),
]
NOT_FINITE = [np.nan, np.inf, -np.inf]


def with_numbers(call: Call, seed: int) -> Call:
    """The call with a number that is not finite somewhere, or a row of them."""
    random = np.random.default_rng(seed)
    arrays = [np.array(x) for x in (*call.primals, call.cotangent)]
    target = arrays[seed % len(arrays)]
    place = tuple(random.integers(size) for size in target.shape)
    target[place[:-1] if random.random() < 0.4 else place] = random.choice(NOT_FINITE)
    primals = [mx.array(x) for x in arrays[:-1]]
    mask = primals[3] if call.additive else call.mask
    return replace(call, primals=primals, mask=mask, cotangent=mx.array(arrays[-1]))


def kinds(x: Array) -> Array:
    """Of every number: 0 where it is finite, 1 and -1 for infinities, 2 for NaN."""
    return np.select([np.isnan(x), np.isposinf(x), np.isneginf(x)], [2, 1, -1], 0)


def assert_alike(route: Any, case: Case, call: Call) -> None:
    """Holds a route to MLX's answers, which of them are finite and what these are."""
    own = answers(runner(route, case.block_size), call)
    for x, y in zip(own, answers(stock.attention, call), strict=True):
        one, other = wide(x), wide(y)
        assert (kinds(one) == kinds(other)).all()
        finite = np.isfinite(other)
        assert agree(mx.array(one[finite]), mx.array(other[finite]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("route", [blockwise, query_blocks, cpu_kernel], ids=lambda r: r.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_they_spread_as_in_mlx(case: Case, route: Any) -> None:
    for seed in range(12):
        assert_alike(route, case, with_numbers(make(case, mx.float32, seed), seed))


@pytest.mark.parametrize("route", [blockwise, query_blocks, cpu_kernel], ids=lambda r: r.name)
def test_a_row_of_minus_infinities(route: Any) -> None:
    """Added to all scores of a query: NaN, in its gradient too."""
    case = replace(ANY, mask=("additive", (40, 52)))
    call = make(case, mx.float32)
    mask = mx.where(mx.arange(40)[:, None] == 7, -mx.inf, call.primals[3])
    assert_alike(route, case, replace(call, primals=[*call.primals[:3], mask], mask=mask))


@pytest.mark.parametrize("sink", NOT_FINITE)
@pytest.mark.parametrize("mask", [None, "causal", ("rows hidden", (40, 52))], ids=str)
@pytest.mark.parametrize("route", [blockwise, query_blocks, cpu_kernel], ids=lambda r: r.name)
def test_sinks_of_infinity(route: Any, mask: Any, sink: float) -> None:
    case = replace(ANY, mask=mask, sinks=True)
    call = make(case, mx.float32)
    sinks = mx.array([0.5, sink, -1.0, sink])
    assert_alike(route, case, replace(call, primals=[*call.primals[:-1], sinks]))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision(dtype: mx.Dtype) -> None:
    """The kernel reads it with instructions of its own."""
    case = replace(ANY, query_length=52, mask="causal")
    for value in NOT_FINITE:
        call = make(case, dtype)
        v = call.primals[2]
        v[1, 0, 40, 3] = value
        own = runner(cpu_kernel, None)(*call.primals, scale=call.scale, mask="causal")
        other = stock.attention(*call.primals, scale=call.scale, mask="causal")
        assert (kinds(wide(own)) == kinds(wide(other))).all()


def test_a_decoded_token_does_not_read_values_outside_of_its_window() -> None:
    """There alone the kernel keeps what it skips: to read all of a cache for the NaN in it would be
    most of the work."""
    case = replace(ANY, query_length=1, mask=("window", (5,)))
    call = make(case, mx.float32)
    call.primals[2][:, :, 10] = mx.nan
    out = call.function(runner(cpu_kernel, None))(*call.primals)
    assert mx.isfinite(out).all()
