"""The planner: what it remembers, what it tries, and what it costs nothing to ask."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from backends import CPU, CUDA, KERNEL, METAL, cpu_only, pretend, stand_in_for_the_cuda_kernel

from mlx_flash_runtime import explain, flash_attention_enabled, report
from mlx_flash_runtime.patching import patch, state
from mlx_flash_runtime.planning import layers, planner
from mlx_flash_runtime.planning.choice import Choice, choose
from mlx_flash_runtime.planning.planner import Planner, forget_plans
from mlx_flash_runtime.problem import Call, Device, Problem
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.routes import reference
from mlx_flash_runtime.settings import Settings


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """The problems that the CUDA kernel was asked for, on a GPU that is not here."""
    asked: list[Problem] = []

    def stand_in(call: Call) -> mx.array:
        asked.append(call.problem)
        return reference.run(call, KERNEL)

    stand_in_for_the_cuda_kernel(monkeypatch, stand_in)
    pretend(monkeypatch, KERNEL)
    return asked


def test_a_new_shape_runs_without_cudnn_until_planning_for_it_is_worth_it(
    kernel_calls: list[Problem],
) -> None:
    q, k, v = (
        mx.random.normal((1, 2, 300, 64), mx.bfloat16, key=mx.random.key(i)) for i in range(3)
    )
    patch.install(Planner(Settings(True)))
    long = [mx.zeros((1, 64, 2048, 128), mx.bfloat16)] * 3
    longest = [mx.zeros((1, 64, 32768, 128), mx.bfloat16)] * 3
    for arrays, first in ((long, "cuda_kernel"), (longest, "native")):
        before = report().as_dict()["routes"]
        for number in range(200):
            mx.fast.scaled_dot_product_attention(*arrays, scale=0.125, mask="causal")
            if number == 0:
                assert report().as_dict()["routes"].get(first, 0) == before.get(first, 0) + 1
    assert report().as_dict()["routes"] == {"native": 272, "cuda_kernel": 128}
    for _ in range(200):  # short ones stay
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask="causal")
    assert report().as_dict()["routes"] == {"native": 272, "cuda_kernel": 328}
    with state.paused():
        wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask="causal")
    assert mx.allclose(out, wanted, rtol=2e-2, atol=2e-2)
    assert kernel_calls


def test_a_gradient_at_a_new_shape_is_mlx_s(kernel_calls: list[Problem]) -> None:
    q, k, v = (
        mx.random.normal((1, 32, 512, 128), mx.bfloat16, key=mx.random.key(i)) for i in range(3)
    )

    def loss(q: mx.array) -> mx.array:
        return (
            mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask="causal")
            .astype(mx.float32)
            .sum()
        )

    wanted = mx.grad(loss)(q)
    patch.install(Planner(Settings(True)))
    # On a GPU its sums vary from run to run.
    assert mx.allclose(mx.grad(loss)(q), wanted, rtol=2e-2, atol=2e-2)


def arrays(length: int, dtype: mx.Dtype = mx.float32) -> list[mx.array]:
    return [mx.zeros((1, 2, length, 64), dtype) for _ in range(3)]


@cpu_only
def test_plans_are_remembered_per_problem() -> None:
    planner = Planner(Settings(True))
    first = planner.lookup(*arrays(300), "causal", None)
    assert planner.lookup(*arrays(300), "causal", None) is first
    assert first.decision.route == "cpu_kernel"
    for changed in (
        planner.lookup(*arrays(301), "causal", None),
        planner.lookup(*arrays(300), None, None),
        planner.lookup(*arrays(300), mx.zeros((300, 300)), None),
        planner.lookup(*arrays(300), mx.zeros((300, 300), mx.bool_), None),
        planner.lookup(*arrays(300), "causal", mx.zeros((2,))),
        planner.lookup(*arrays(300, mx.bfloat16), "causal", None),
    ):
        assert changed is not first


def test_plans_are_remembered_where_the_default_device_may_change() -> None:
    planner = Planner(Settings(True))
    planner._device_varies = True  # as on a machine with a GPU
    q, k, v = arrays(300)
    first = planner.lookup(q, k, v, None, None)
    assert planner.lookup(q, k, v, None, None) is first
    with mx.stream(mx.cpu):
        on_cpu = planner.lookup(q, k, v, None, None)
        assert planner.lookup(q, k, v, None, None) is on_cpu
    assert (on_cpu is first) == (mx.default_device() == mx.Device(mx.cpu))


def test_a_decoded_token_that_is_mlx_s_is_planned_like_the_one_before() -> None:
    q, keys = mx.zeros((1, 8, 1, 64), mx.bfloat16), mx.zeros((1, 2, 3000, 64), mx.bfloat16)

    def decode(planner: Planner, length: int, **changes: Any) -> Any:
        k = keys[:, :, :length]
        return planner.lookup(
            q, changes.get("k", k), changes.get("v", k), changes.get("mask"), None
        )

    on_cuda = Planner(Settings(True), CUDA)
    first = decode(on_cuda, 1030)
    assert first.decision.route == "native"
    assert decode(on_cuda, 1031) is first
    assert decode(on_cuda, 2047) is first
    assert decode(on_cuda, 2048) is not first  # calibrations count lengths by powers of two
    assert decode(on_cuda, 1032, v=keys[:, :, :1032, :32]) is not first
    assert decode(on_cuda, 1033, k=keys[:, :1, :1033], v=keys[:, :1, :1033]) is not first
    padded = decode(on_cuda, 1034, mask=mx.ones((1, 1034), mx.bool_))
    assert padded is not first
    assert decode(on_cuda, 1035, mask=mx.ones((1, 1035), mx.bool_)) is padded
    assert decode(on_cuda, 1036, mask=mx.ones((1, 1036), mx.bfloat16)) is not padded
    assert decode(on_cuda, 1036, mask=mx.ones((1, 1), mx.bool_)) is not padded
    assert decode(on_cuda, 1036, mask=mx.ones((8, 1, 1036), mx.bool_)) is not padded
    assert decode(on_cuda, 1036, mask=window_mask(1, 100, 1036)).decision.route == "lowered"
    assert decode(on_cuda, 1037, mask=mx.ones((1, 1036), mx.bool_)).problem is None
    assert decode(on_cuda, 1035, v=keys[:, :, :1036]).problem is None  # for MLX to reject


def test_a_decoded_token_that_is_a_kernel_s_takes_the_route_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[Problem] = []

    def choose_and_note(problem: Problem, *rest: Any) -> Choice:
        chosen.append(problem)
        return choose(problem, *rest)

    monkeypatch.setattr(planner, "choose", choose_and_note)
    on_cuda = Planner(Settings(True), KERNEL)
    q, keys = mx.zeros((2, 8, 1, 256), mx.bfloat16), mx.zeros((2, 2, 3000, 256), mx.bfloat16)
    masks = [None, mx.ones((2, 1, 1, 3000), mx.bool_)]
    for mask in masks:
        learned = []
        for length in range(2040, 2056):
            k, seen = keys[:, :, :length], None if mask is None else mask[..., :length]
            plan = on_cuda.lookup(q, k, k, seen, None)
            assert plan.decision.route == "cuda_kernel"
            assert plan.problem == Problem.of(q, k, k, seen)
            assert on_cuda.lookup(q, k, k, seen, None) is plan
            learned.append(plan.to_learn)
            plan.to_learn = max(0, plan.to_learn - 100)
        # The layers of a token's calls are looked for as long as those of one shape are.
        assert learned == [256, 156, 56, *[0] * 5] * 2
    assert [problem.key_length for problem in chosen] == [2040, 2048] * 2

    ours = Planner(Settings(True, route="blockwise"), CUDA)
    q, k = mx.zeros((1, 8, 1, 64), mx.bfloat16), mx.zeros((1, 2, 1031, 64), mx.bfloat16)
    plans = [
        ours.lookup(q, k[:, :, :length], k[:, :, :length], None, None) for length in (1030, 1031)
    ]
    assert [plan.problem and plan.problem.key_length for plan in plans] == [1030, 1031]


def test_plans_differ_by_everything_that_they_depend_on() -> None:
    planner = Planner(Settings(True))
    half = arrays(300, mx.float16)
    q, k, v = half
    wide = arrays(300)[0]
    window, other = window_mask(300, 20), window_mask(300, 30)
    calls: list[tuple[Any, ...]] = [
        (q, k, v, None, None),
        (wide, k, v, None, None),
        (q, wide, v, None, None),
        (q, k, wide, None, None),
        (q, k, v[..., :32], None, None),
        (q, k, v, "causal", None),
        (q, k, v, window, None),
        (q, k, v, other, None),
        (q, k, v, window & True, None),  # the same elements, of unknown origin
        (q, k, v, (window & True)[None], None),
        (q, k, v, mx.zeros((300, 300), mx.float16), None),
        (q, k, v, None, mx.zeros((2,), mx.float16)),
        (q, k, v, None, mx.zeros((2,), mx.float32)),
        (q, k, v, None, mx.zeros((3,), mx.float16)),
        (q, k, v, "causal", mx.zeros((2,), mx.float16)),
    ]
    plans = [planner.lookup(*call) for call in calls]
    again = [planner.lookup(*call) for call in calls]
    assert all(first is second for first, second in zip(plans, again, strict=True))
    problems = [plan.problem for plan in plans]
    assert problems[2] == problems[3] == replace(problems[0], dtype="float32")  # type: ignore[type-var]
    assert problems[12] is problems[13] is None  # for MLX to reject
    rest = [problem for i, problem in enumerate(problems) if i not in (1, 3, 12, 13)]
    assert len(set(rest)) == len(rest)
    assert planner.lookup(q, k, v, window_mask(300, 20), None) is plans[6]


def test_a_mask_and_sinks_of_one_shape_are_not_confused() -> None:
    planner = Planner(Settings(True))
    q, row = mx.zeros((1, 2, 2, 16)), mx.zeros((2,))
    masked, sunk = planner.lookup(q, q, q, row, None), planner.lookup(q, q, q, None, row)
    assert masked.problem == Problem(1, 2, 2, 2, 2, 16, 16, mask="additive", mask_shape=(2,))
    assert sunk.problem == Problem(1, 2, 2, 2, 2, 16, 16, sinks=True)


def test_threads_share_the_plans() -> None:
    planner = Planner(Settings(True))
    lengths = range(20, 60)
    wrong: list[int] = []

    def work() -> None:
        for length in (*lengths, *lengths):
            found = planner.lookup(*arrays(length), "causal", None).problem
            if found is None or found.query_length != length:
                wrong.append(length)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(set(planner.plans.values())) == len(lengths)


def test_planning_and_explaining_compute_nothing() -> None:
    """2^40 numbers, which no machine here could hold: they are only described. So is the output,
    by whatever route."""
    q = mx.random.normal((1, 2**10, 2**22, 2**8))
    before = mx.get_active_memory()
    with flash_attention_enabled():
        out = mx.fast.scaled_dot_product_attention(q[:, :, :1], q, q, scale=1.0)
        assert out.shape == (1, 2**10, 1, 2**8)
        for options in ({}, {"mask": "causal"}, {"mask": window_mask(2**22, 2**10)}):
            assert (
                Planner(Settings(True)).lookup(q, q, q, options.get("mask"), None).problem
                is not None
            )
            assert explain(q, q, q, **options).stock_memory > 2**50
    mx.synchronize()
    assert mx.get_active_memory() - before < 2**20


def test_many_calls_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", "unfused")

    class Layer(nn.Module):
        def __call__(self, q: mx.array) -> mx.array:
            return mx.fast.scaled_dot_product_attention(q, q, q, scale=0.25)

    model, late, q = [Layer() for _ in range(8)], Layer(), mx.zeros((1, 2, 1, 16))
    rounds = layers.LEARNED_CALLS // 8
    with flash_attention_enabled():
        for _ in range(rounds):
            for layer in model:
                layer(q)
        assert [layer["calls"] for layer in report().as_dict()["layers"]] == [rounds] * 8
        for _ in range(2000):
            for layer in (*model, late):
                layer(q)
        told = report().as_dict()
    assert told["calls"] == 8 * rounds + 9 * 2000
    assert [layer["calls"] for layer in told["layers"]] == [rounds + 2000] * 8 + [2000]


def test_threads_count_exactly_before_anybody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", "unfused")
    monkeypatch.setattr(layers, "in_every_call", False)
    q = mx.zeros((1, 2, 1, 16))

    def work() -> None:
        for _ in range(1000):
            mx.fast.scaled_dot_product_attention(q, q, q, scale=0.25)

    with flash_attention_enabled():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = report().as_dict()
    assert told["calls"] == 4000
    looked_at = sum(layer["calls"] for layer in told["layers"])
    assert layers.LEARNED_CALLS <= looked_at < 4000


@pytest.mark.parametrize("route", ["unfused", "blockwise"])
def test_in_a_compiled_pipeline_of_async_evals(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", route)
    q, k, v = (mx.random.normal((1, 2, 40, 16), key=mx.random.key(i)) for i in range(3))

    def step(x: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(x, k, v, scale=0.25, mask="causal")

    def pipeline(step: Callable[[mx.array], mx.array]) -> mx.array:
        x = q
        for _ in range(4):
            x = step(x)
            mx.async_eval(x)
        return x

    wanted = pipeline(step)
    # A GPU's products are TF32.
    tolerance = 1e-5 if mx.default_device() == mx.Device(mx.cpu) else 2e-3
    with flash_attention_enabled():
        assert mx.allclose(pipeline(step), wanted, atol=tolerance)
        assert mx.allclose(pipeline(mx.compile(step)), wanted, atol=tolerance)
        assert report().as_dict()["routes"] == {route: 5}


def test_the_cache_does_not_grow_with_a_long_decode() -> None:
    planner = Planner(Settings(True))
    q, k, _ = mx.zeros((1, 2, 1, 64)), *[mx.zeros((1, 2, 5000, 64))] * 2
    for length in range(1, 5000):
        keys = k[:, :, :length]
        planner.lookup(q, keys, keys, None, None)
        planner.lookup(q, keys, keys, None, None, 30.0)
    assert len(planner.plans) <= 4096


def test_the_environment_is_looked_at_when_a_call_is_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = []

    def device() -> Device:
        looked.append(os.environ.get("MLX_ENABLE_TF32", "1"))
        return replace(CUDA, tf32=looked[-1] != "0")

    monkeypatch.setattr("mlx_flash_runtime.planning.planner.current_device", device)
    q = mx.zeros((1, 2, 64, 256))
    with flash_attention_enabled():
        forget_plans()  # as enable_flash_attention does in a program that had no call yet
        planner = state.planner
        assert planner is not None
        monkeypatch.setenv("MLX_ENABLE_TF32", "0")
        planner.lookup(q, q, q, None, None)
        assert looked == ["0"]
        assert [planner.device.tf32 for _ in range(3)] == [False] * 3
        assert looked == ["0"]


@cpu_only
def test_explain_arrays_and_problems() -> None:
    q, k, v = arrays(512)
    told = explain(q, k, v, scale=0.125, mask="causal")
    assert (told.route, told.block_size) == ("cpu_kernel", None)
    assert told.problem == Problem(1, 2, 2, 512, 512, 64, 64, dtype="float32", mask="causal")
    assert explain(told.problem, device=CPU).route == "blockwise"
    text = str(explain(told.problem, block_size=64, device=CPU))
    assert text.splitlines()[0].startswith("route blockwise: ")
    assert "  not native: MLX has no fused kernel on the CPU" in text
    assert "  not cpu_kernel: the CPU kernel is not built (mlx-flash doctor --build)" in text
    assert "block size 64" in text
    assert "MiB" in text
    assert explain(told.problem, device=METAL).extra_memory == 0
    with pytest.raises(ValueError, match=r"k is of shape \(2, 512, 64\): it must have 4 axes"):
        explain(q, k[0], v)


def test_a_device_by_its_name_is_none() -> None:
    q = mx.zeros((1, 2, 8, 16))
    with pytest.raises(TypeError, match=r"problem\.Device, not 'metal'"):
        explain(q, q, q, device="metal")  # type: ignore[arg-type]
