"""Every route against the float64 reference: output and gradients."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from arithmetic import agree
from attention_cases import Case, answers, assert_as_exact_as, make, runner
from backends import ROUTES_HERE, on_cpu
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.routes import blockwise, cpu_kernel, native, query_blocks, reference

DTYPES = [mx.float32, mx.float16, mx.bfloat16]

CASES = [
    Case(1, 1),
    Case(63, 63),
    Case(111, 63, heads=4, key_heads=2),
    Case(300, 300, heads=1, key_heads=1, mask="causal", block_size=64),
    Case(63, 111, heads=4, key_heads=1, mask="causal"),
    Case(1, 111, mask="causal"),
    Case(111, 63, mask="causal"),  # the first 48 queries see no key
    Case(64, 64, mask="causal", sinks=True),
    Case(63, 111, value_head_dim=24, batch=2),
    Case(63, 70, heads=4, mask=("bool", (63, 70))),
    Case(63, 70, heads=4, batch=2, mask=("bool", (2, 1, 1, 70))),
    Case(63, 70, heads=4, batch=2, mask=("bool", (2, 4, 63, 70))),
    Case(63, 70, mask=("rows hidden", (63, 70))),
    Case(63, 70, mask=("rows hidden", (1, 2, 63, 1)), sinks=True),
    Case(63, 70, heads=4, mask=("additive", (4, 63, 70))),
    Case(63, 70, heads=4, batch=2, mask=("additive", (2, 1, 63, 1))),
    Case(63, 70, heads=4, batch=2, mask=("additive", (1, 4, 1, 70)), sinks=True),
    Case(40, 40, mask=("additive", (40,))),
    Case(40, 40, mask=("additive", ())),
    Case(111, 111, heads=4, mask=("window", (20,)), block_size=16),
    Case(40, 111, mask=("window", (1,)), sinks=True),
    Case(100, 100, mask=("prefix", (37,)), block_size=16),
    Case(111, 111, heads=4, mask=("segments", (30, 1, 50, 30)), block_size=16),
]
OURS = [*([cpu_kernel] if on_cpu else []), query_blocks, blockwise, reference]
SOFTCAPPED = [
    Case(63, 63, heads=4, mask="causal", softcap=1.5),
    Case(20, 63, mask=("rows hidden", (20, 63)), softcap=20.0, sinks=True),
    Case(40, 40, mask=("additive", (40, 40)), softcap=0.5),
    Case(50, 70, heads=4, batch=2, mask=("window", (9,)), softcap=2.0, block_size=16),
]


def stock(*args: Any, **kwargs: Any) -> mx.array:
    return mx.fast.scaled_dot_product_attention(*args, **kwargs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("route", OURS, ids=lambda route: route.name)
def test_route_is_as_exact_as_mlx(route: Any, case: Case, dtype: mx.Dtype) -> None:
    call = make(case, dtype)
    problem = Problem.of(*call.primals[:3], call.mask, call.primals[-1] if call.sinks else None)
    assert problem is not None
    ok, reason = route.holds(problem, current_device())
    if not ok:
        pytest.skip(reason)
    assert_as_exact_as(stock, runner(route, case.block_size), call)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SOFTCAPPED, ids=str)
@pytest.mark.parametrize(
    "route", [blockwise, *([cpu_kernel] if on_cpu else [])], ids=lambda route: route.name
)
def test_softcapped_scores_are_as_exact_as_the_definition(
    route: Any, case: Case, dtype: mx.Dtype
) -> None:
    call = make(case, dtype)
    assert_as_exact_as(
        runner(reference, None, case.softcap), runner(route, case.block_size, case.softcap), call
    )


@pytest.mark.parametrize("case", CASES[:9:2], ids=str)
def test_native_is_mlx(case: Case) -> None:
    call = make(case, mx.float32)
    for own, other in zip(answers(runner(native, None), call), answers(stock, call), strict=True):
        assert mx.array_equal(own, other)


@pytest.mark.parametrize("route", ROUTES_HERE, ids=lambda route: route.name)
def test_mixed_types_promote_as_in_mlx(route: Any) -> None:
    q, k, v = make(Case(20, 20, block_size=8), mx.float32).primals
    q, v = q.astype(mx.float16), v.astype(mx.bfloat16)
    out = runner(route, 8)(q, k, v, scale=0.25)
    wanted = stock(q, k, v, scale=0.25)
    assert out.dtype == wanted.dtype
    assert agree(out, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("route", ROUTES_HERE, ids=lambda route: route.name)
def test_rows_of_minus_infinity_are_nan_alone(route: Any) -> None:
    q, k, v = make(Case(9, 20), mx.float32).primals
    mask = mx.where(mx.arange(9)[:, None] == 4, -mx.inf, mx.zeros((9, 20)))
    mask[2, :16] = -mx.inf  # whole blocks of a row that sees other keys
    out = runner(route, 8)(q, k, v, scale=0.25, mask=mask)
    hidden = mx.isnan(out).all(axis=(0, 1, 3))
    assert hidden.tolist() == [row == 4 for row in range(9)]
    sinks = runner(route, 8)(q, k, v, scale=0.25, mask=mask, sinks=mx.zeros((2,)))
    assert mx.abs(sinks[:, :, 4]).max().item() == 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_blocks_agree_with_the_reference(data: st.DataObject) -> None:
    length, keys = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    groups, key_heads, batch = (data.draw(st.integers(1, 3)) for _ in range(3))
    heads = groups * key_heads
    sizes = [data.draw(st.sampled_from([1, full])) for full in (batch, heads, length, keys)]
    mask = data.draw(
        st.sampled_from([None, "causal", *((kind, tuple(sizes)) for kind in ("bool", "additive"))])
    )
    case = Case(
        length,
        keys,
        heads,
        key_heads,
        head_dim=data.draw(st.integers(1, 24)),
        value_head_dim=data.draw(st.integers(1, 24)),
        batch=batch,
        mask=mask,
        sinks=data.draw(st.booleans()),
        block_size=data.draw(st.sampled_from([8, 16, 24, 128])),
    )
    call = make(case, mx.float32, seed=data.draw(st.integers(0, 100)))
    assert_as_exact_as(runner(reference, 8), runner(blockwise, case.block_size), call)
