"""The CUDA kernel for few queries against the float64 reference on a GPU; anywhere, what of a
program reaches it, and how its problems are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Call, Case, assert_output_as_exact_as, make
from backends import KERNEL, KERNEL_80, pretend
from mlx_lm.models import deepseek_v3
from mlx_lm.models.cache import QuantizedKVCache
from test_cuda_kernel import on_gpu, stock

from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.kernels.cuda import few_queries
from mlx_flash_runtime.kernels.cuda.launcher import Launcher
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.ops import written_out
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.routes import cuda_kernel

CASES = [
    Case(1, 300, heads=16, key_heads=8, head_dim=128, value_head_dim=128),
    Case(5, 2100, heads=16, key_heads=8, head_dim=128, value_head_dim=128, mask="causal"),
    Case(1, 700, heads=8, key_heads=2, head_dim=256, value_head_dim=256, batch=8),
    Case(4, 700, heads=6, key_heads=2, head_dim=256, value_head_dim=256, mask="causal", sinks=True),
    Case(1, 1000, heads=8, key_heads=8, head_dim=64, value_head_dim=64, sinks=True),
    Case(3, 3, heads=4, key_heads=2, head_dim=64, value_head_dim=64, mask="causal"),
    Case(7, 1000, heads=8, key_heads=1, head_dim=96, value_head_dim=96, mask=("window", (100,))),
    Case(
        1, 1500, heads=8, key_heads=4, head_dim=128, value_head_dim=128, batch=3,
        mask=("bool", (3, 1, 1, 1500)),
    ),
    Case(6, 500, heads=4, head_dim=80, value_head_dim=72, mask=("rows hidden", (6, 500))),
    Case(2, 500, heads=4, head_dim=192, value_head_dim=128, mask=("additive", (1, 4, 2, 500))),
    Case(8, 2000, heads=32, key_heads=4, head_dim=128, value_head_dim=128, mask="causal"),
    Case(1, 900, heads=16, key_heads=1, head_dim=576, value_head_dim=512, batch=2),
    Case(2, 900, heads=64, key_heads=1, head_dim=576, value_head_dim=512, mask="causal"),
]  # fmt: skip


def by_kernel(q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
    """The kernel itself, which has to run."""
    mask, sinks = rest["mask"], rest["sinks"]
    problem = Problem.of(q, k, v, mask, sinks)
    assert problem is not None
    assert few_queries.is_for(problem)
    arrays = [q, k, v]
    if problem.has_array_mask:
        arrays.append(mask)
    if sinks is not None:
        arrays.append(sinks)
    launcher = Launcher(problem, current_device().capability)
    out = launcher.replayed(rest["scale"], arrays)
    assert out is not None
    return out


@on_gpu
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_exact_as_mlx(case: Case, dtype: mx.Dtype) -> None:
    assert_output_as_exact_as(written_out.attention, by_kernel, make(case, dtype))


@on_gpu
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_each_run_gives_the_same_bits_and_reads_no_row_that_is_not_there(head_dim: int) -> None:
    q = mx.random.normal((2, 8, 3, head_dim), key=mx.random.key(0)).astype(mx.bfloat16)
    cache = mx.random.normal((2, 4, 1024, head_dim), key=mx.random.key(1)).astype(mx.bfloat16)
    cache[:, :, 777:] = mx.nan
    k, v = cache[:, :, :777], cache[:, :, :777] * 1
    rest = {"scale": 0.1, "mask": "causal", "sinks": None}
    first = by_kernel(q, k, v, **rest)
    assert mx.allclose(first, written_out.attention(q, k, v, scale=0.1, mask="causal"), atol=2e-2)
    for _ in range(5):
        assert mx.array_equal(by_kernel(q, k, v, **rest), first)


@on_gpu
def test_any_strides_and_any_scale() -> None:
    q, k, v = (
        mx.random.normal((2, length, 4, 64), key=mx.random.key(length)).astype(mx.float16)
        for length in (5, 500, 501)
    )
    q, k, v = (mx.swapaxes(x, 1, 2) for x in (q, k, v[:, 1:]))
    for scale in (0.125, -0.125, 0.0):
        rest: dict[str, Any] = {"scale": scale, "mask": None, "sinks": None}
        wanted = written_out.attention(q, k, v, scale=scale)
        for arrays in ((q, k, v), (q, k[..., ::-1], v), (q[..., ::-1], k, v)):
            wanted = written_out.attention(*arrays, scale=scale)
            assert mx.allclose(by_kernel(*arrays, **rest), wanted, rtol=1e-2, atol=4e-3)


@on_gpu
@pytest.mark.parametrize(("bits", "dtype"), [(4, mx.bfloat16), (8, mx.float16)])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_quantized_arrays_are_read_as_they_are(bits: int, dtype: mx.Dtype, head_dim: int) -> None:
    case = Case(
        3, 600, heads=8, key_heads=2, head_dim=head_dim, value_head_dim=head_dim, batch=2,
        mask="causal", sinks=True,
    )  # fmt: skip
    call = make(case, dtype)
    q, k, v, sinks = call.primals
    packed = [mx.quantize(x, group_size=64, bits=bits) for x in (k, v)]
    k, v = (mx.dequantize(*x, group_size=64, bits=bits) for x in packed)
    problem = Problem.of(q, k, v, call.mask, sinks)
    assert problem is not None
    launcher = Launcher(problem, current_device().capability, bits=Bits(bits, 64))

    def attention(q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
        out = launcher.replayed(rest["scale"], [q, *packed[0], *packed[1], sinks])
        assert out is not None
        return out

    call = Call([q, k, v, sinks], call.mask, call.cotangent, call.scale, True, 32)
    assert_output_as_exact_as(written_out.attention, attention, call)


def test_the_cut_spreads_over_a_gpu_and_fits_it() -> None:
    decode = Problem(1, 16, 8, 1, 8192, 128, 128, "bfloat16")

    def cut(**changes: Any) -> few_queries.Cut:
        found = few_queries.cut_of(replace(decode, **changes))
        assert found.slices * found.tiles <= 4  # the warps of a block of threads
        assert found.shared_memory <= 48 * 1024  # which it gets without asking
        return found

    for heads, queries, dim in [(16, 5, 128), (64, 8, 64), (8, 8, 256)]:
        dims = {"head_dim": dim, "value_head_dim": dim}
        found = cut(query_heads=heads, query_length=queries, **dims)
        assert found.tiles * found.blocks * 16 >= heads // 8 * queries
        assert found.splits >= 8
    assert cut(key_length=60).splits == 1
    assert cut(batch=64).splits == 1
    assert cut(query_heads=128, key_heads=1, head_dim=576, value_head_dim=512).slices == 4


def test_masks_reach_the_kernel_and_transformations_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Problem] = []

    def stand_in(
        problem: Problem, _: Any, arrays: Sequence[mx.array], bits: Bits | None
    ) -> list[mx.array]:
        seen.append(problem)
        q, k, v, scale, mask = arrays
        return [written_out.attention(q, k, v, scale=scale, mask=mask)]

    monkeypatch.setattr(few_queries, "attention", stand_in)
    monkeypatch.setattr(few_queries, "is_there", lambda *_: True)
    q, k, v = (
        mx.random.normal((2, 2, length, 64), key=mx.random.key(i)).astype(mx.float16)
        for i, length in enumerate((1, 80, 80))
    )
    mask = mx.arange(80) >= mx.array([3, 20])[:, None, None, None]
    problem = Problem.of(q, k, v, mask)
    assert problem is not None
    run = Launcher(problem, (9, 0)).run

    def attention(attend: Any) -> Any:
        return lambda q: attend(q, k, v, scale=0.1, mask=mask, sinks=None)

    for _ in range(3):
        wanted = attention(stock)(q)
        assert mx.allclose(attention(run)(q), wanted, rtol=1e-2, atol=1e-3)
    assert [one.mask for one in seen] == ["bool"]  # then replayed
    several = mx.stack([q, q * 2])
    assert mx.array_equal(mx.vmap(attention(run))(several), mx.vmap(attention(stock))(several))
    gradients = [mx.grad(lambda q, f=f: attention(f)(q).sum())(q) for f in (run, stock)]
    assert mx.array_equal(*gradients)


def test_a_quantized_cache_reaches_the_kernel_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Problem, Bits | None]] = []

    def stand_in(
        problem: Problem, _: Any, arrays: Sequence[mx.array], bits: Bits | None
    ) -> list[mx.array]:
        seen.append((problem, bits))
        assert bits is not None
        group_size, width = bits.group_size, bits.bits
        k, v = (
            mx.dequantize(*x, group_size=group_size, bits=width) for x in (arrays[1:4], arrays[4:7])
        )
        mask = arrays[8] if problem.mask == "bool" else problem.visible
        sinks = arrays[-1] if problem.sinks else None
        return [written_out.attention(arrays[0], k, v, scale=arrays[7], mask=mask, sinks=sinks)]

    monkeypatch.setattr(few_queries, "attention", stand_in)
    monkeypatch.setattr(few_queries, "is_there", lambda *_: True)
    pretend(monkeypatch, KERNEL)
    enable_flash_attention()
    q, k, v = (
        mx.random.normal((2, heads, length, 64), key=mx.random.key(i)).astype(mx.float16)
        for i, (heads, length) in enumerate(((6, 3), (2, 90), (2, 90)))
    )
    cache = QuantizedKVCache(group_size=32, bits=4)
    q_keys, q_values = cache.update_and_fetch(k, v)
    k, v = (mx.dequantize(*x, group_size=32, bits=4) for x in (q_keys, q_values))
    seen_keys = mx.arange(90) >= mx.array([3, 20])[:, None, None, None]
    sink = mx.zeros((6,), mx.float16)
    for mask, sinks in (("causal", None), (seen_keys, sink)):
        out = deepseek_v3.scaled_dot_product_attention(
            q + 0, q_keys, q_values, cache, scale=0.125, mask=mask, sinks=sinks
        )
        wanted = written_out.attention(q, k, v, scale=0.125, mask=mask, sinks=sinks)
        assert mx.allclose(out, wanted, rtol=1e-2, atol=2e-3)
    assert [(one.mask, bits) for one, bits in seen] == [
        ("causal", Bits(4, 32)),
        ("bool", Bits(4, 32)),
    ]
    (told,) = report().as_dict()["reasons"]
    assert told["reason"].startswith("cuda_kernel: our own kernel reads")


def test_what_it_takes_by_itself() -> None:
    decode = Problem(1, 16, 8, 1, 8192, 128, 128, "bfloat16")

    def takes(device: Device = KERNEL, **changes: Any) -> bool:
        problem = replace(decode, **changes)
        return cuda_kernel.holds(problem, device)[0] and cuda_kernel.pays(problem, device)[0]

    padded = {"mask": "bool", "mask_shape": (4, 1, 1, 8192), "batch": 4}
    for device in (KERNEL, KERNEL_80):
        assert takes(device, head_dim=256, value_head_dim=256)
        assert takes(device, head_dim=576, value_head_dim=512, key_heads=1)
        assert takes(device, **padded)
        assert not takes(device)  # about as fast in MLX
        assert not takes(device, dtype="float32", head_dim=256, value_head_dim=256)
        assert not takes(device, softcap=30.0)
        assert not takes(device, query_length=8192)
        # Where MLX has a fused kernel this one is known on Hopper alone.
        assert takes(device, query_length=5, mask="causal") == (device == KERNEL)
        assert takes(device, batch=8, key_length=4096) == (device == KERNEL)
        assert takes(device, key_length=4096, sinks=True) == (device == KERNEL)
        assert not takes(device, key_length=512, sinks=True)
    assert not takes(batch=32)
