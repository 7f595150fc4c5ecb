"""What a call takes on Metal, by what each release of MLX fuses there, on faked devices: MLX's own
call at the end of a rewriting is exact on any device, only slower here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Case, assert_as_exact_as, make, runner
from backends import CPU, pretend
from gpu_problems import decode, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_flash_runtime import explain
from mlx_flash_runtime.ops.work import of_stock
from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device, MaskKind, Problem
from mlx_flash_runtime.problem.masks import Prefix, Segments, Structure, Window
from mlx_flash_runtime.routes import blockwise, lowered, metal_kernel, native, query_blocks, unfused
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock import gradient
from mlx_flash_runtime.stock.fused import error_of, is_fused
from mlx_flash_runtime.stock.table import tables

GIB = 2**30
METAL = Device("metal", (0, 32, 4), 64 * GIB, "Darwin")
WITH_KERNEL = replace(METAL, own_kernel=True)
RECORDED = [
    replace(METAL, mlx=release, nax=family == "metal_nax", own_kernel=own_kernel)
    for table in tables()
    for family in table.families
    for release in table.releases
    if family.startswith("metal")
    for own_kernel in (False, True)
]
HALF = {"head_dim": 64, "value_head_dim": 64}


def mlx(*args: Any, **kwargs: Any) -> mx.array:
    return mx.fast.scaled_dot_product_attention(*args, **kwargs)


SINKS_IN_TRAINING = {
    "causal": Case(70, 70, heads=4, key_heads=2, mask="causal", sinks=True, **HALF),
    "causal, keys before": Case(
        30, 70, heads=4, key_heads=1, batch=2, mask="causal", sinks=True, **HALF
    ),
    "no mask": Case(70, 50, heads=3, key_heads=3, sinks=True, **HALF),
    "scale that is no power of two": Case(
        40, 40, heads=4, mask="causal", sinks=True, head_dim=72, value_head_dim=72
    ),
    "values of another head dim": Case(
        40, 40, heads=4, mask="causal", sinks=True, head_dim=96, value_head_dim=64
    ),
    "large": Case(20, 20, mask="causal", sinks=True, head_dim=128, value_head_dim=128),
    "packed": Case(111, 111, heads=4, mask=("segments", (30, 20, 50, 11)), sinks=True, **HALF),
}


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("case", SINKS_IN_TRAINING.values(), ids=SINKS_IN_TRAINING)
def test_metal_trains_with_sinks_on_its_fused_kernels(
    case: Case, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch, calls_of_mlx: list[Problem]
) -> None:
    pretend(monkeypatch, METAL)
    call = make(case, dtype)
    assert_as_exact_as(mlx, runner(lowered, None, training=True), call)
    ours = [one for one in calls_of_mlx if not one.sinks]
    assert ours
    assert all(is_fused(replace(one, training=True), METAL)[0] for one in ours)
    assert {one.mask for one in ours} <= {"none", "causal"}


@pytest.mark.parametrize("sink", [-float("inf"), -40.0, 0.0, 40.0])
def test_a_sink_of_any_size_on_metal(sink: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, METAL)
    call = make(SINKS_IN_TRAINING["scale that is no power of two"], mx.bfloat16)
    call.primals[-1] = mx.full((4,), sink, mx.bfloat16)
    q, k, v, sinks = call.primals
    arguments = {"scale": call.scale, "mask": "causal", "sinks": sinks}
    ours = runner(lowered, None, training=True)(q, k, v, **arguments)
    wide = {"scale": call.scale, "mask": "causal", "sinks": sinks.astype(mx.float32)}
    wanted = mlx(*(x.astype(mx.float32) for x in (q, k, v)), **wide)
    assert mx.allclose(ours, wanted, rtol=1e-2, atol=1e-2)


def test_a_call_that_mlx_has_an_error_for_goes_elsewhere() -> None:
    few = problem(8, training=True)
    latents = problem(4, key_length=512, mask="none", training=True)
    too_large = problem(64, head_dim=256, value_head_dim=256, sinks=True, training=True)
    for case in (few, latents, too_large, problem(64, sinks=True, training=True)):
        assert error_of(case, METAL) is not None
        told = explain(case, device=METAL)
        assert told.route in ("blockwise", "lowered")
        assert not unfused.holds(case, METAL)[0]
        assert not query_blocks.holds(case, METAL)[0]


@pytest.mark.parametrize(("queries", "first_is_traced"), [(4, False), (4, True), (1, True)])
def test_few_queries_that_are_trained_have_a_plan_for_it(
    queries: int, first_is_traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, METAL)
    monkeypatch.setattr(gradient, "shows", lambda: True)
    traced = [first_is_traced, True, False]
    monkeypatch.setattr(gradient, "is_traced", lambda: traced[0])
    planner = Planner(Settings(True))
    latents, keys = mx.zeros((1, 8, queries, 64)), mx.zeros((1, 8, 512, 64))
    while traced:
        route = planner.lookup(latents, keys, keys, None, None).decision.route
        assert route == ("lowered" if traced.pop(0) else "native")


def test_a_step_of_decoding_is_not_asked_whether_it_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, METAL)
    monkeypatch.setattr(gradient, "shows", lambda: True)
    monkeypatch.setattr(gradient, "is_traced", lambda: False)
    planner = Planner(Settings(True))
    token, keys = mx.zeros((1, 8, 1, 64)), mx.zeros((1, 8, 512, 64))
    plan = planner.lookup(token, keys, keys, None, None)
    assert plan.in_training is None


def test_scores_larger_than_one_array_may_be_are_not_made() -> None:
    case = problem(4096, head_dim=512, value_head_dim=512, mask="none")
    assert explain(case, device=METAL).route == "unfused"
    small = replace(METAL, largest_array=2 * case.score_count - 1)
    assert explain(case, device=small).route == "query_blocks"


def test_a_prompt_that_was_reported_to_fail_runs_in_blocks() -> None:
    case = Problem(1, 4, 1, 32768, 32768, 256, 256, dtype="bfloat16", mask="causal")
    device = replace(METAL, mlx=(0, 31, 2), memory=128 * GIB)
    assert explain(case, device=device).route == "query_blocks"


@pytest.mark.parametrize("head_dim", [36, 80, 112, 160])
def test_one_query_at_an_unfused_head_dim_reads_its_window_alone(
    head_dim: int, calls_of_mlx: list[Problem]
) -> None:
    assert explain(decode(head_dim), device=METAL).route == "query_blocks"
    case = Case(1, 300, head_dim=head_dim, value_head_dim=head_dim, mask=("window", (33,)))
    assert_as_exact_as(mlx, runner(query_blocks, 512), make(case, mx.float32))
    assert {one.key_length for one in calls_of_mlx} == {33}


def test_the_count_says_what_was_published_for_a_mac() -> None:
    """MLX's pull request 4330: 27.13 ms unfused and 14.30 ms fused, on an M3 Ultra."""
    case = Problem(1, 16, 16, 8192, 8192, 72, 72, dtype="bfloat16")
    fused, unfused = of_stock(case, METAL), of_stock(case, replace(METAL, mlx=(0, 31, 0)))
    assert unfused.cost(METAL) / fused.cost(METAL) == pytest.approx(27.13 / 14.30, rel=0.05)


def test_what_is_counted_is_shown() -> None:
    case = problem(2048, key_length=3071, mask="window", structure=Window(1024))
    told = explain(case, device=METAL)
    assert told.lowered_work is not None
    assert told.lowered_work.products * 2 == pytest.approx(told.stock_work.products, rel=1e-3)
    assert f"counted, rewritten: {told.lowered_work}" in str(told)
    assert explain(problem(), device=METAL).lowered_work is None


# Of few queries that MLX 0.32.4 does not fuse.
TAKEN = {
    "many query heads per key head": problem(1, key_length=8192, query_heads=64, key_heads=1),
    "a draft of 8, 8 query heads per key head": problem(8, key_length=8192, query_heads=64),
    "a draft of 12": problem(12, key_length=8192, head_dim=112, value_head_dim=112),
    "a draft of 48": problem(48, key_length=8192, head_dim=256, value_head_dim=256),
    "a window": decode(80),
}


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_few_queries_that_mlx_does_not_fuse_run_on_our_kernel(case: Problem) -> None:
    assert not is_fused(case, METAL)[0]
    told = explain(case, device=WITH_KERNEL)
    assert told.route == "metal_kernel"
    assert told.kernel_work is not None
    assert f"counted, our own kernel: {told.kernel_work}" in str(told)
    assert told.kernel_work.cost(METAL) <= 0.9 * told.stock_work.cost(METAL)
    for device in (METAL, replace(CPU, own_kernel=True)):
        assert explain(case, device=device).route != "metal_kernel"
    assert explain(replace(case, training=True), device=WITH_KERNEL).route != "metal_kernel"


@pytest.mark.parametrize(
    "case",
    [
        problem(1, key_length=8192, head_dim=80, value_head_dim=80),  # as many bytes either way
        problem(1, key_length=8192),  # fused
        problem(12, key_length=8192),
        problem(1024, head_dim=256, value_head_dim=256, mask="none"),  # many queries
    ],
    ids=str,
)
def test_what_our_kernel_promises_nothing_for_is_left(case: Problem) -> None:
    assert explain(case, device=WITH_KERNEL).route in ("native", "unfused")


def test_our_kernel_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", "metal_kernel")
    case = problem(1, key_length=8192, head_dim=80, value_head_dim=80)
    assert explain(case, device=WITH_KERNEL).route == "metal_kernel"
    assert explain(problem(12, key_length=8192), device=WITH_KERNEL).route == "metal_kernel"


HEAD_DIMS = [(36, 36), (64, 64), (72, 72), (80, 80), (96, 64), (112, 112), (128, 128), (160, 160)]
HEAD_DIMS += [(192, 128), (192, 192), (256, 256), (512, 512)]
LENGTHS = [1, 2, 8, 9, 100, 1024, 2048, 4096, 8192]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Of any kind, large and small."""
    length = draw(st.sampled_from(LENGTHS))
    before = draw(st.sampled_from([0, 0, 100, 3071, 8192]))
    mask: MaskKind = draw(
        st.sampled_from(["none", "causal", "window", "prefix", "segments", "bool", "additive"])
    )
    structure: Structure | None = None
    if mask in ("prefix", "segments") and (length == 1 or before):
        mask = "causal"
    match mask:
        case "window":
            structure = Window(draw(st.integers(1, max(1, length + before - 1))))
        case "prefix":
            structure = Prefix(draw(st.integers(2, length)))
        case "segments":
            first = draw(st.integers(1, length - 1))
            structure = Segments((first, length - first))
    heads, key_heads = draw(st.sampled_from([(8, 8), (32, 8), (64, 8), (8, 1)]))
    head_dim, value_head_dim = draw(st.sampled_from(HEAD_DIMS))
    return Problem(
        draw(st.integers(1, 2)),
        heads,
        key_heads,
        length,
        length + before,
        head_dim,
        value_head_dim,
        dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        mask=mask,
        mask_shape=() if mask in ("none", "causal") else (length, length + before),
        structure=structure,
        sinks=draw(st.booleans()),
        training=draw(st.booleans()),
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(case=problems(), device=st.sampled_from(RECORDED))
def test_no_call_that_mlx_fuses_is_taken_from_it(case: Problem, device: Device) -> None:
    choice = choose(case, device, Settings(True))
    if error_of(case, device) is not None:
        assert choice.route in (lowered, blockwise)
    elif choice.route is metal_kernel:
        told = explain(case, device=device)
        assert told.kernel_work is not None
        most = 0.5 if case.query_length > 48 else 0.9
        own = told.kernel_work.cost(replace(device, nax=False))
        if case.mask == "bool" and is_fused(case, device)[0] and case.query_length > 48:
            # Of which each is looked at: see test_metal_tile_skipping.py.
            assert told.most_seen is not None
            assert 0 < told.most_seen < 0.5
        else:
            assert own <= most * told.stock_work.cost(device)
        if case.training:
            assert told.blocks_work is not None
            assert own <= most * told.blocks_work.cost(device)
    elif is_fused(case, device)[0] and choice.route is not native:
        # Fewer keys, in calls that MLX fuses, too.
        assert choice.route is lowered
        assert case.structure is not None
        told = explain(case, device=device)
        assert told.lowered_work is not None
        assert told.lowered_work.products < told.stock_work.products
        assert told.lowered_work.cost(device) < told.stock_work.cost(device)
