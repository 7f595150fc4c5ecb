"""Any problem on any route: shapes, masks, types and caches as Hypothesis makes them, against the
float64 reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
from attention_cases import Call, Case, answers, assert_within, budgets, make, runner
from backends import on_cpu, pretend
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.routes import (
    blockwise,
    cpu_kernel,
    lowered,
    query_blocks,
    reference,
    unfused,
)

CUDA = Device("cuda", (0, 32, 4), 80 * 2**30)
METAL = Device("metal", (0, 32, 4), 32 * 2**30)


def examples(count: int) -> settings:
    """The same examples in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


class Way(NamedTuple):
    """A route; on a faked device where it rewrites calls for one, inside a gradient or not."""

    route: Any
    device: Device | None = None
    training: bool = False


WAYS = {
    "reference": Way(reference),
    "blockwise": Way(blockwise),
    "query_blocks": Way(query_blocks),
    **({"cpu_kernel": Way(cpu_kernel)} if on_cpu else {}),
    "lowered on Metal": Way(lowered, METAL),
    "lowered on CUDA": Way(lowered, CUDA),
    "lowered on CUDA in training": Way(lowered, CUDA, training=True),
}


@st.composite
def cases(draw: st.DrawFn, softcap: bool = False) -> Case:
    """Any call: lengths from 1 to 300, grouped heads, head dims with and without a fused kernel,
    every mask."""
    kind = draw(
        st.sampled_from(
            ["none", "causal", "bool", "hidden", "additive", "window", "prefix", "segments"]
        )
    )
    length = draw(st.integers(1, 24) | st.integers(25, 300))
    keys = length
    if kind == "segments":
        lengths = draw(st.lists(st.integers(1, 100), min_size=2, max_size=3))
        length = keys = sum(lengths)
    elif kind == "window":
        keys = length + draw(
            st.just(0) | st.integers(1, 300 - length) if length < 300 else st.just(0)
        )
    elif kind != "prefix":
        keys = draw(st.just(length) | st.integers(1, 300))
    key_heads, groups, batch = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
    )
    heads = key_heads * groups
    head_dim = draw(st.sampled_from([64, 64, 20, 36, 80]))
    shape = tuple(draw(st.sampled_from([1, full])) for full in (batch, heads, length, keys))
    masks: dict[str, Any] = {
        "none": None,
        "causal": "causal",
        "bool": ("bool", shape),
        "hidden": ("rows hidden", (*shape[:2], length, keys)),
        "additive": ("additive", shape),
    }
    if kind == "window":
        masks[kind] = (kind, (draw(st.integers(1, keys)),))
    elif kind == "prefix":
        masks[kind] = (kind, (draw(st.integers(0, length)),))
    elif kind == "segments":
        masks[kind] = (kind, tuple(lengths))
    return Case(
        length,
        keys,
        heads,
        key_heads,
        head_dim,
        draw(st.sampled_from([head_dim, head_dim, 64, 24])),
        batch,
        masks[kind],
        sinks=draw(st.booleans()),
        block_size=8 * draw(st.integers(1, 16)),
        softcap=draw(st.sampled_from([1.0, 20.0])) if softcap else None,
    )


def function(way: Way, case: Case, call: Call) -> Any | None:
    """The case by that way, or None where it does not hold."""
    q, k, v = call.primals[:3]
    mask, sinks = (
        (call.primals[3] if call.additive else call.mask),
        (call.primals[-1] if call.sinks else None),
    )
    problem = Problem.of(q, k, v, mask, sinks, softcap=case.softcap, training=way.training)
    assert problem is not None
    # Where fused kernels are those of half precision.
    said = "float16" if way.device is CUDA else None
    problem = problem if said is None else replace(problem, dtype=said)
    if not way.route.holds(problem, way.device or current_device())[0]:
        return None
    return runner(way.route, case.block_size, case.softcap, way.training, said)


@examples(60)
@given(
    case=cases(),
    dtype=st.sampled_from([mx.float32, mx.float16, mx.bfloat16]),
    seed=st.integers(0, 100),
)
def test_every_route_is_as_exact_as_mlx(case: Case, dtype: mx.Dtype, seed: int) -> None:
    call = make(case, dtype, seed)
    call.primals[:3] = [_in_a_larger_buffer(x) for x in call.primals[:3]]
    hidden = _rows_without_keys(call)
    allowed = budgets(runner(unfused, None), call)
    for name, way in WAYS.items():
        route = function(way, case, call)
        if route is None:
            continue
        if not on_cpu and call.sinks and way.route is lowered and not way.training:
            continue  # MLX's fused kernel refuses their gradient: a plan for training goes round it
        event(name)
        with pytest.MonkeyPatch.context() as patch:
            if way.device is not None:
                pretend(patch, way.device)
            if way.device is CUDA and hidden is not None and isinstance(call.mask, mx.array):
                # Added, a mask gives a row without keys an answer, but a gradient that nobody may
                # ask for. On a GPU the answer is that of MLX's own fused kernel, zero.
                if not on_cpu:
                    continue
                seen = replace(call, cotangent=mx.where(hidden, 0, call.cotangent))
                assert_within(budgets(runner(unfused, None), seen), route, seen)
            else:
                assert_within(allowed, route, call)


@examples(15)
@given(
    case=cases(softcap=True),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
    seed=st.integers(0, 100),
)
def test_softcapped_blocks_are_as_exact_as_the_definition(
    case: Case, dtype: mx.Dtype, seed: int
) -> None:
    call = make(case, dtype, seed)
    route = function(WAYS["blockwise"], case, call)
    assert_within(budgets(runner(reference, None, case.softcap), call), route, call)


HIDDEN_KEYS = {
    "padding on the left": Case(
        40, 64, heads=4, batch=2, mask=("bool", (2, 1, 1, 64)), head_dim=64, value_head_dim=64
    ),
    "keys before a window": Case(
        40, 100, heads=4, mask=("window", (20,)), head_dim=64, value_head_dim=64
    ),
}


@pytest.mark.parametrize("case", HIDDEN_KEYS.values(), ids=HIDDEN_KEYS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_no_query_sees_does_not_matter(
    way: Way, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.device is not None:
        pretend(monkeypatch, way.device)
    call = make(case, mx.float32)
    if case.mask[0] == "bool":
        call.mask = mx.arange(64) >= mx.array([0, 24])[:, None, None, None]
    assert isinstance(call.mask, mx.array)
    seen = mx.broadcast_to(call.mask, (case.batch, 1, case.query_length, case.key_length)).any(
        axis=2
    )[..., None]
    route = function(way, case, call)
    if route is None:
        pytest.skip("a mask that this device takes as it is")
    clean = answers(route, call)
    call.primals[1:] = [mx.where(seen, x, 1e30) for x in call.primals[1:]]
    for own, wanted in zip(answers(route, call), clean, strict=True):
        assert mx.array_equal(own, wanted)


def _in_a_larger_buffer(x: mx.array) -> mx.array:
    """x as a slice of a cache whose other rows are NaN."""
    buffer = mx.pad(x, [(0, 0), (0, 0), (3, 5), (0, 0)], constant_values=mx.array(mx.nan, x.dtype))
    mx.eval(buffer)
    return buffer[:, :, 3:-5]


def _rows_without_keys(call: Call) -> mx.array | None:
    """Which queries a bool mask leaves without any key, [..., L, 1]; None where there are none."""
    if not isinstance(call.mask, mx.array) or call.mask.dtype != mx.bool_:
        return None
    hidden = ~call.mask.any(axis=-1, keepdims=True)
    return hidden if hidden.any() else None
