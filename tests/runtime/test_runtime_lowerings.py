"""The rewritings, on faked GPUs: MLX's own call at their end is exact on any device, only slower
here."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Case, assert_as_exact_as, make, runner
from backends import on_cpu, pretend
from gpu_problems import decode, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import (
    Prefix,
    Segments,
    Window,
    packed_mask,
    prefix_mask,
    structure_of,
    window_mask,
)
from mlx_flash_runtime.routes import lowered, reference
from mlx_flash_runtime.stock.fused import is_fused

GIB = 2**30
CUDA = Device("cuda", (0, 32, 4), 80 * GIB)
METAL = Device("metal", (0, 32, 4), 32 * GIB)
METAL_32_2 = replace(METAL, mlx=(0, 32, 2))
HALF = {"head_dim": 64, "value_head_dim": 64}


def on(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, device)


CASES = {
    "window": Case(300, 300, heads=4, mask=("window", (40,)), **HALF),
    "window of one": Case(130, 130, mask=("window", (1,)), **HALF),
    "window, keys before": Case(
        140, 300, heads=4, key_heads=1, batch=2, mask=("window", (33,)), sinks=True, **HALF
    ),
    "window, some keys before": Case(140, 150, batch=2, mask=("window", (33,)), **HALF),
    "window, one query": Case(1, 300, heads=4, batch=2, mask=("window", (33,)), sinks=True, **HALF),
    "window, few queries": Case(20, 300, heads=4, mask=("window", (33,)), **HALF),
    "packed": Case(111, 111, heads=4, mask=("segments", (30, 1, 50, 30)), **HALF),
    "prefix": Case(100, 100, mask=("prefix", (37,)), sinks=True, **HALF),
    "prefix of all": Case(100, 100, mask=("prefix", (100,)), **HALF),
    "head dim": Case(40, 63, heads=4, mask="causal", head_dim=36, value_head_dim=20),
    "bool": Case(63, 70, heads=4, batch=2, mask=("rows hidden", (2, 1, 63, 70)), **HALF),
    "bool of keys": Case(63, 70, heads=4, batch=2, mask=("bool", (2, 1, 1, 70)), **HALF),
    "bool of queries": Case(63, 70, heads=4, mask=("bool", (63, 1)), **HALF),
    "bool for all": Case(63, 70, heads=4, mask=("bool", (1,)), **HALF),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cuda_gets_calls_that_are_fused_there(
    case: Case, training: bool, monkeypatch: pytest.MonkeyPatch, calls_of_mlx: list[Problem]
) -> None:
    on(CUDA, monkeypatch)
    call = make(case, mx.bfloat16)
    q, k, v = call.primals[:3]
    problem = Problem.of(
        q, k, v, call.mask, call.primals[-1] if call.sinks else None, training=training
    )
    assert problem is not None
    assert lowered.holds(problem, CUDA)[0]
    if problem.mask == "bool":
        # What a query without any key answers is as in MLX; nobody may ask for the gradient of
        # that.
        seen = mx.broadcast_to(
            call.mask, (case.batch, case.heads, case.query_length, case.key_length)
        )
        call.cotangent = mx.where(seen.any(axis=-1, keepdims=True), call.cotangent, 0)
    independent = runner(reference, None) if call.sinks and not on_cpu else mlx
    assert_as_exact_as(independent, runner(lowered, 48, training=training), call)
    ours = [
        replace(one, training=training, sinks=one.sinks and not training) for one in calls_of_mlx
    ]
    assert ours
    assert all(is_fused(one, CUDA)[0] and one.mask != "bool" for one in ours)


def mlx(*args: Any, **kwargs: Any) -> mx.array:
    return mx.fast.scaled_dot_product_attention(*args, **kwargs)


TRAINING = {
    "causal": Case(70, 70, heads=4, mask="causal", **HALF),
    "causal, keys before": Case(70, 100, heads=4, mask="causal", **HALF),
    "dense": Case(70, 100, heads=4, key_heads=1, **HALF),
    "sinks": Case(128, 128, heads=4, mask="causal", sinks=True, **HALF),
    "everything": Case(
        70, 100, heads=4, mask=("bool", (70, 100)), sinks=True, head_dim=20, value_head_dim=28
    ),
}


@pytest.mark.parametrize("case", TRAINING.values(), ids=TRAINING)
def test_cuda_trains_on_its_fused_kernels(
    case: Case, monkeypatch: pytest.MonkeyPatch, calls_of_mlx: list[Problem]
) -> None:
    on(CUDA, monkeypatch)
    call = make(case, mx.bfloat16)
    independent = runner(reference, None) if call.sinks and not on_cpu else mlx
    assert_as_exact_as(independent, runner(lowered, None, training=True), call)
    assert {one.query_length for one in calls_of_mlx} == {128}


@pytest.mark.parametrize(
    "case",
    [
        Case(5, 5, heads=4, mask="causal", **HALF),
        Case(3, 40, heads=4, key_heads=1, batch=2, mask="causal", sinks=True, **HALF),
        Case(8, 40, **HALF),
        Case(45, 45, mask=("segments", (30, 1, 5, 9)), **HALF),
    ],
    ids=str,
)
def test_metal_trains_on_few_queries_as_on_more_of_them(
    case: Case, monkeypatch: pytest.MonkeyPatch, calls_of_mlx: list[Problem]
) -> None:
    """Whose gradient MLX has, such as those of a short document in a packed row."""
    on(METAL, monkeypatch)
    call = make(case, mx.float32)
    assert_as_exact_as(
        runner(reference, None) if call.sinks else mlx, runner(lowered, None, training=True), call
    )
    assert calls_of_mlx
    assert all(one.query_length >= 9 for one in calls_of_mlx)


@pytest.mark.parametrize(
    "name",
    [
        "window",
        "window, keys before",
        "window, one query",
        "window, few queries",
        "packed",
        "prefix",
    ],
)
def test_metal_gets_structures_without_their_arrays(
    name: str, monkeypatch: pytest.MonkeyPatch, calls_of_mlx: list[Problem]
) -> None:
    on(METAL, monkeypatch)
    case = CASES[name]
    call = make(case, mx.float32)
    assert_as_exact_as(mlx, runner(lowered, 64), call)
    assert all(is_fused(one, METAL)[0] for one in calls_of_mlx)
    assert all(
        one.score_count < case.batch * case.heads * case.query_length * case.key_length
        for one in calls_of_mlx
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_window_in_any_chunks(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 120))
    keys = length + data.draw(st.integers(0, 120))
    size, chunk = data.draw(st.integers(1, keys - 1)), 8 * data.draw(st.integers(1, 8))
    case = Case(
        length, keys, heads=2, key_heads=1, head_dim=64, value_head_dim=64, mask=("window", (size,))
    )
    call = make(case, mx.float32, seed=data.draw(st.integers(0, 100)))
    with pytest.MonkeyPatch.context() as patch:
        on(METAL, patch)
        assert_as_exact_as(mlx, runner(lowered, chunk), call)


@pytest.mark.parametrize(
    ("device", "case", "does"),
    [
        (CUDA, problem(8100, training=True), "its length padded"),
        (CUDA, problem(8192, training=True), None),
        (CUDA, problem(8100), None),
        (CUDA, problem(head_dim=36, value_head_dim=36), "its head dim padded"),
        (METAL, problem(head_dim=112, value_head_dim=112), "its head dim padded"),
        (METAL, problem(head_dim=36, value_head_dim=36), "its head dim padded"),
        (METAL, problem(48, head_dim=112, value_head_dim=112), None),  # too short for the copies
        (METAL, problem(head_dim=112, value_head_dim=112, training=True), "its head dim padded"),
        # Its gradient is unfused there, padded or not.
        (METAL_32_2, problem(head_dim=112, value_head_dim=112, training=True), None),
        (METAL, problem(head_dim=160, value_head_dim=160), None),
        (METAL, problem(mask="window", structure=Window(1024)), "its window folded into the batch"),
        (METAL, problem(mask="window", structure=Window(7000)), None),  # most of the keys
        (METAL, problem(64, mask="window", structure=Window(16)), None),
        # A prompt's chunks on a rotating cache.
        (
            METAL,
            problem(2048, key_length=3071, mask="window", structure=Window(1024)),
            "its window folded into the batch",
        ),
        (
            METAL,
            problem(2048, key_length=6143, mask="window", structure=Window(4096)),
            "its window folded into the batch",
        ),
        (METAL, problem(512, key_length=4607, mask="window", structure=Window(4096)), None),
        # One query would become a chunk of 512.
        (METAL, decode(80), None),
        (METAL, decode(112), None),
        (
            METAL,
            problem(1, key_length=8192, mask="window", structure=Window(1024)),
            "its keys cut down to its window",
        ),
        (
            CUDA,
            problem(1, key_length=8192, mask="window", structure=Window(1024)),
            "its keys cut down to its window",
        ),
        (CUDA, problem(1, key_length=1500, mask="window", structure=Window(1024)), None),
        (
            METAL,
            problem(mask="segments", structure=Segments((4096, 4096))),
            "its packed documents taken one by one",
        ),
        # MLX's gradient of up to 8 queries ends in an error.
        (METAL, problem(5, training=True), "its length padded"),
        (
            METAL,
            problem(mask="segments", structure=Segments((8187, 5)), training=True),
            "its packed documents taken one by one and its length padded",
        ),
        (
            METAL,
            problem(mask="prefix", structure=Prefix(100)),
            "its prefix and the rest taken apart",
        ),
        (CUDA, problem(mask="bool", mask_shape=(8192, 8192)), "its mask added in its own shape"),
        (CUDA, problem(mask="bool", mask_shape=(1, 16, 8192, 8192)), None),
        (METAL, problem(mask="bool", mask_shape=(8192, 8192)), None),
        (CUDA, problem(sinks=True, training=True), "a gradient for its sinks"),
        (CUDA, problem(dtype="float32"), None),
        (CUDA, problem(8100, mask="additive", mask_shape=(8100, 8100), training=True), None),
    ],
)
def test_a_rewriting_is_taken_where_it_pays(
    device: Device, case: Problem, does: str | None
) -> None:
    taken = lowered.holds(case, device)[0] and lowered.pays(case, device)[0]
    assert taken == (does is not None)
    if does:
        assert lowered.holds(case, device)[1] == f"MLX has a fused kernel for it with {does}"


def test_memory_of_a_window_is_that_of_its_chunks() -> None:
    case = problem(16384, mask="window", structure=Window(1024), head_dim=128, value_head_dim=128)
    chosen = lowered.extra_memory(case, CUDA, lowered.block_size(case, CUDA))
    assert chosen < 2 * case.score_count / 16  # of the dense mask that MLX would spread


def test_masks_remember_what_they_say() -> None:
    assert structure_of(window_mask(8, 3), 8, 8) == Window(3)
    assert structure_of(window_mask(8, 3) & True, 8, 8) is None
    mask = window_mask(4, 3, 8)
    assert structure_of(mask, 8, 4) is None
    assert structure_of(mask, 4, 8) == Window(3)
    assert mask[0].tolist() == [False, False, True, True, True, False, False, False]
    assert prefix_mask(4, 2)[0].tolist() == [True, True, False, False]
    assert packed_mask([1, 2])[2].tolist() == [False, True, True]
    for unwound in (copy.copy(mask), copy.deepcopy(mask), pickle.loads(pickle.dumps(mask))):
        assert type(unwound) is mx.array
        assert mx.array_equal(unwound, mask)
    with pytest.raises(ValueError, match="each must have at least 1"):
        packed_mask([3, 0])
    with pytest.raises(ValueError, match="a window of 0 keys"):
        window_mask(3, 0)
    with pytest.raises(ValueError, match="9 queries on 3 keys"):
        window_mask(9, 3, 3)
    with pytest.raises(ValueError, match="3 queries on 0 keys"):
        window_mask(3, 3, 0)
    with pytest.raises(ValueError, match="a prefix of 5 in 4 tokens"):
        prefix_mask(4, 5)


def changed(change: str, mask: mx.array) -> None:
    """Lets every query see the first key."""
    first = mx.arange(mask.shape[-1]) == 0
    match change:
        case "|=":
            mask |= first
        case "+=":
            mask += first
        case "[]=":
            mask[:, 0] = True


@pytest.mark.parametrize("change", ["|=", "+=", "[]="])
@pytest.mark.parametrize("structured", [True, False])
def test_a_mask_that_is_changed_in_place_is_what_it_is_now(
    change: str, structured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(CUDA, monkeypatch)
    q, k, v = make(Case(100, 100, **HALF), mx.float16).primals
    mask = window_mask(100, 5) if structured else window_mask(100, 5) & True
    attend = runner(lowered, 16)
    before = attend(q, k, v, scale=0.125, mask=mask)
    mx.eval(before)
    changed(change, mask)
    wanted = mlx(q, k, v, scale=0.125, mask=mx.array(mask.tolist()))
    after = attend(q, k, v, scale=0.125, mask=mask)
    assert structure_of(mask, 100, 100) is None
    assert mx.allclose(after, wanted, atol=1e-3)
    assert not mx.allclose(after, before, atol=1e-1)
