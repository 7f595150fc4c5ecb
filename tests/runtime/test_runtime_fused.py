"""Which calls MLX has fused kernels for, by backend and release, as its sources say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
from attention_cases import Case, make, runner
from backends import on_cpu

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.routes import forced
from mlx_flash_runtime.stock.fused import fused_head_dims, is_fused, is_fused_if_forced, is_known

GIB = 2**30
UP_TO_128 = frozenset(range(8, 129, 8))
VECTOR = frozenset({64, 96, 128})


class Facts(NamedTuple):
    """Head dims with a fused kernel: of many queries, of one query, of a gradient, and where MLX
    has to be forced; and whether one query has a kernel for head dim 192 with values of 128."""

    prefill: frozenset[int]
    decode: frozenset[int]
    training: frozenset[int]
    forced: frozenset[int]
    decode_192_128: bool


NONE: frozenset[int] = frozenset()
METAL_FULL = frozenset({64, 72, 80, 96, 128})
METAL_VECTOR = VECTOR | {256}
FORCED = frozenset({192, 256})
FACTS = {
    ("metal", (0, 31, 0)): Facts(frozenset({64, 80, 128}), METAL_VECTOR, NONE, NONE, False),
    ("metal", (0, 32, 0)): Facts(frozenset({64, 80, 128}), METAL_VECTOR, NONE, NONE, True),
    ("metal", (0, 32, 2)): Facts(METAL_FULL, METAL_VECTOR, NONE, FORCED, True),
    ("metal", (0, 32, 4)): Facts(METAL_FULL, METAL_VECTOR, METAL_FULL, FORCED, True),
    **{
        ("cuda", release): Facts(UP_TO_128, VECTOR, UP_TO_128, NONE, False)
        for release in ((0, 31, 0), (0, 32, 2), (0, 32, 4))
    },
    **{
        ("cpu", release): Facts(NONE, NONE, NONE, NONE, False)
        for release in ((0, 31, 0), (0, 32, 2), (0, 32, 4))
    },
}
PREFILL = Problem(1, 16, 8, 1024, 1024, 64, 64, dtype="bfloat16", mask="causal")
DECODE = replace(PREFILL, query_length=1, mask="none")


def dims(base: Problem) -> dict[int, Problem]:
    """The problem with each head dim."""
    return {dim: replace(base, head_dim=dim, value_head_dim=dim) for dim in range(8, 520, 4)}


@pytest.mark.parametrize(("backend", "release"), FACTS, ids=str)
def test_head_dims_of_a_release(backend: str, release: tuple[int, ...]) -> None:
    device, facts = Device(backend, release, 32 * GIB), FACTS[backend, release]  # type: ignore[arg-type]
    assert is_known(release)
    for base, wanted in (
        (PREFILL, facts.prefill),
        (DECODE, facts.decode),
        (replace(PREFILL, training=True), facts.training),
    ):
        assert {dim for dim, case in dims(base).items() if is_fused(case, device)[0]} == wanted
    assert {
        dim for dim, case in dims(PREFILL).items() if is_fused_if_forced(case, device)
    } == facts.forced
    mixed = replace(DECODE, head_dim=192, value_head_dim=128)
    assert is_fused(mixed, device)[0] == facts.decode_192_128
    assert frozenset(fused_head_dims(device)) == facts.prefill


@pytest.mark.parametrize("without", [{"cudnn": False}, {"capability": (7, 5)}], ids=str)
def test_cuda_without_cudnn_has_the_kernel_for_few_queries_alone(without: Any) -> None:
    device = Device("cuda", (0, 32, 4), 16 * GIB, **without)
    assert is_fused(DECODE, device)[0]
    assert not is_fused(PREFILL, device)[0]
    assert fused_head_dims(device) == ()


def test_the_releases_around_the_known_ones_are_unknown() -> None:
    assert [
        is_known(release)
        for release in ((0, 30, 6), (0, 31, 0), (0, 32, 9), (0, 33, 0), (1, 0), ())
    ] == [*(False, True, True, False, False, False)]


def test_forced_is_mlx_s_own_call_with_one_more_word(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(40, 63, heads=4, head_dim=256, value_head_dim=256, mask="causal", sinks=True)
    call = make(case, mx.float16)
    seen = []

    def spy(*arrays: mx.array, **options: object) -> mx.array:
        seen.append(options)
        return original(
            *arrays, **{name: x for name, x in options.items() if name != "force_fused"}
        )

    original = stock.attention
    monkeypatch.setattr(stock, "attention", spy)
    q, k, v, sinks = call.primals
    own = runner(forced, None)(q, k, v, scale=call.scale, mask="causal", sinks=sinks)
    wanted = original(q, k, v, scale=call.scale, mask="causal", sinks=sinks)
    assert mx.array_equal(own, wanted)
    assert [options["force_fused"] for options in seen] == [True]


@pytest.mark.skipif(not on_cpu, reason="states what MLX answers on the CPU")
def test_mlx_refuses_to_be_forced_where_the_facts_have_no_kernel() -> None:
    if current_device().mlx < (0, 32, 2):
        pytest.skip("this MLX cannot be forced")
    q, k, v = make(Case(40, 40, head_dim=64, value_head_dim=64), mx.float16).primals
    with pytest.raises(ValueError, match="fused"):
        mx.eval(runner(forced, None)(q, k, v, scale=0.125))
    assert not is_fused(PREFILL, current_device())[0]
