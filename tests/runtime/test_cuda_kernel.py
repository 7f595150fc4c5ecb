"""The CUDA kernel against the float64 reference on a GPU; anywhere, that transformations never
meet it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Case, assert_output_as_exact_as, make, runner
from backends import KERNEL, pretend, stand_in_for_the_cuda_kernel

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention, report
from mlx_flash_runtime.kernels.cuda import attention as cuda
from mlx_flash_runtime.kernels.cuda.compiling import cache, nvrtc
from mlx_flash_runtime.kernels.cuda.compiling.nvrtc import CompileError
from mlx_flash_runtime.kernels.cuda.compiling.source import Source
from mlx_flash_runtime.kernels.cuda.launcher import scale_array
from mlx_flash_runtime.patching import patch, state
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Call, Device, Problem
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.routes import cuda_kernel, reference
from mlx_flash_runtime.settings import Settings

on_gpu = pytest.mark.skipif(not mx.cuda.is_available(), reason="needs an NVIDIA GPU")

CASES = [
    Case(64, 64, heads=8, key_heads=8, head_dim=32, value_head_dim=32),
    Case(111, 111, heads=4, key_heads=1, head_dim=64, value_head_dim=64, mask="causal", batch=2),
    Case(300, 300, heads=2, key_heads=1, head_dim=128, value_head_dim=128, mask="causal"),
    Case(63, 200, head_dim=80, value_head_dim=80),
    Case(
        200, 63, head_dim=64, value_head_dim=64, mask="causal"
    ),  # the first 137 queries see no key
    Case(130, 130, head_dim=192, value_head_dim=128),
    Case(130, 140, head_dim=256, value_head_dim=256, mask="causal", sinks=True),
    Case(63, 70, heads=4, head_dim=64, value_head_dim=64, batch=2, mask=("bool", (2, 1, 1, 70))),
    Case(63, 70, head_dim=64, value_head_dim=64, mask=("rows hidden", (63, 70)), sinks=True),
    Case(
        63, 70, heads=4, head_dim=64, value_head_dim=64, batch=2, mask=("additive", (1, 4, 63, 70))
    ),
    Case(1000, 1000, head_dim=64, value_head_dim=64, mask="causal"),
    Case(
        300,
        300,
        heads=4,
        key_heads=2,
        head_dim=256,
        value_head_dim=256,
        mask=("window", (100,)),
        sinks=True,
    ),
    Case(40, 500, head_dim=64, value_head_dim=64, mask=("window", (70,))),
    # Of so many heads that blocks of threads are large, where they can be.
    Case(130, 300, heads=48, key_heads=12, head_dim=128, value_head_dim=128, mask="causal"),
    Case(130, 130, heads=48, key_heads=12, head_dim=112, value_head_dim=96),
    Case(
        130, 130, heads=48, key_heads=6, head_dim=256, value_head_dim=256, mask="causal", sinks=True
    ),
    Case(130, 140, heads=48, head_dim=192, value_head_dim=128, mask=("additive", (130, 140))),
    Case(130, 300, heads=48, head_dim=128, value_head_dim=128, mask=("bool", (130, 300))),
    Case(280, 300, heads=32, head_dim=128, value_head_dim=128, mask=("window", (33,))),
]


def stock(*args: Any, **kwargs: Any) -> mx.array:
    return mx.fast.scaled_dot_product_attention(*args, **kwargs)


def tf32(q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
    """The definition on inputs of TF32's 10 bits: cuBLAS rounds so for most shapes that MLX hands
    it, not for all."""

    def rounded(x: mx.array) -> mx.array:
        bits = (mx.view(mx.stop_gradient(x), mx.uint32) + 0x1000) & 0xFFFFE000
        return x + (mx.view(bits, mx.float32) - mx.stop_gradient(x))

    return runner(reference, None)(rounded(q), rounded(k), rounded(v), **rest)


@on_gpu
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_exact_as_mlx(case: Case, dtype: mx.Dtype) -> None:
    call = make(case, dtype)
    problem = Problem.of(*call.primals[:3], call.mask, call.primals[-1] if call.sinks else None)
    assert problem is not None
    ok, reason = cuda_kernel.holds(problem, current_device())
    if not ok:
        pytest.skip(reason)
    assert_output_as_exact_as(
        tf32 if dtype == mx.float32 else stock, runner(cuda_kernel, None), call
    )


@on_gpu
def test_strided_arrays_are_read_as_they_are() -> None:
    q, k, v = (
        mx.random.normal((2, 100, 4, 64), key=mx.random.key(i)).astype(mx.bfloat16)
        for i in range(3)
    )
    rows = [mx.swapaxes(x, 1, 2) for x in (q, k, v)]
    copies = [mx.contiguous(x) for x in rows]
    backwards = [x[..., ::-1] for x in copies]  # the last axis strided as well
    out = runner(cuda_kernel, None)(*rows, scale=0.125, mask="causal")
    assert mx.array_equal(out, runner(cuda_kernel, None)(*copies, scale=0.125, mask="causal"))
    same = runner(cuda_kernel, None)(*backwards, scale=0.125, mask="causal")[..., ::-1]
    assert mx.allclose(out, same, rtol=2e-2, atol=2e-2)


@on_gpu
@pytest.mark.parametrize("scale", [-0.125, 0.0, 2.0])
def test_any_scale(scale: float) -> None:
    q, k, v = (
        mx.random.normal((1, 2, 200, 64), key=mx.random.key(i)).astype(mx.float16) for i in range(3)
    )
    out = runner(cuda_kernel, None)(q, k, v, scale=scale, mask="causal")
    wide = (x.astype(mx.float32) for x in (q, k, v))
    assert mx.allclose(
        out, runner(reference, None)(*wide, scale=scale, mask="causal"), rtol=1e-2, atol=1e-2
    )


@on_gpu
def test_mlx_compiles_it_where_its_folder_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(source: Source) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(cache, "put", full)
    q, k, v = (
        mx.random.normal((1, 48, 150, 120), key=mx.random.key(i)).astype(mx.bfloat16)
        for i in range(3)
    )
    out = runner(cuda_kernel, None)(q, k, v, scale=0.1)
    assert mx.allclose(out, stock(q, k, v, scale=0.1), rtol=2e-2, atol=2e-2)


@on_gpu
def test_under_transformations_it_is_mlx() -> None:
    q, k, v = (mx.random.normal((3, 2, 2, 40, 64), key=mx.random.key(i)) for i in range(3))
    ours = runner(cuda_kernel, None)

    def attend(attention: Any) -> Any:
        return lambda q, k, v: attention(q, k, v, scale=0.125, mask="causal")

    tangents = [mx.cos(x[0]) for x in (q, k, v)]
    assert mx.allclose(
        mx.vmap(attend(ours))(q, k, v), mx.vmap(attend(stock))(q, k, v), rtol=1e-2, atol=1e-2
    )
    own, wanted = (mx.jvp(attend(f), [q[0], k[0], v[0]], tangents)[1][0] for f in (ours, stock))
    assert mx.allclose(own, wanted, rtol=1e-2, atol=1e-2)
    assert mx.allclose(
        mx.compile(attend(ours))(q[0], k[0], v[0]),
        attend(stock)(q[0], k[0], v[0]),
        rtol=1e-2,
        atol=1e-2,
    )


@on_gpu
def test_mixed_types_promote_as_in_mlx() -> None:
    q, k, v = (mx.random.normal((1, 2, 20, 64), key=mx.random.key(i)) for i in range(3))
    q, v = q.astype(mx.float16), v.astype(mx.bfloat16)
    out = runner(cuda_kernel, None)(q, k, v, scale=0.125)
    assert out.dtype == mx.float32
    assert mx.allclose(out, stock(q, k, v, scale=0.125), rtol=1e-2, atol=1e-2)


@on_gpu
def test_rows_of_minus_infinity_are_nan_alone() -> None:
    q, k, v = (
        mx.random.normal((1, 2, length, 64), key=mx.random.key(i))
        for i, length in enumerate((9, 70, 70))
    )
    mask = mx.where(mx.arange(9)[:, None] == 4, -mx.inf, mx.zeros((9, 70)))
    mask[2, :66] = -mx.inf  # whole blocks of a row that sees other keys
    hidden = mx.isnan(runner(cuda_kernel, None)(q, k, v, scale=0.125, mask=mask)).all(
        axis=(0, 1, 3)
    )
    assert hidden.tolist() == [row == 4 for row in range(9)]
    sinks = runner(cuda_kernel, None)(q, k, v, scale=0.125, mask=mask, sinks=mx.zeros((2,)))
    assert mx.abs(sinks[:, :, 4]).max().item() == 0


@on_gpu
def test_asked_for_it_is_taken_in_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", "cuda_kernel")
    q, k, v = (mx.random.normal((1, 8, 64, 64), key=mx.random.key(i)) for i in range(3))

    def loss(q: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125).square().sum()

    wanted = mx.grad(loss)(q)
    enable_flash_attention()
    mx.eval(mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125))
    assert mx.allclose(mx.grad(loss)(q), wanted, rtol=1e-2, atol=1e-2)
    assert report().as_dict()["routes"] == {
        "cuda_kernel" if current_device().tf32 else "unfused": 2
    }


@on_gpu
def test_mlx_takes_what_was_compiled_here(capfd: pytest.CaptureFixture[str]) -> None:
    capability = current_device().capability
    assert cache.why_not(capability) == ""
    q = mx.zeros((1, 2, 16, 24))
    problem = Problem.of(q, q, q, "causal")
    assert problem is not None
    source = cuda.source_of(problem, capability)
    cuda.attention(problem, capability, [q, q, q, scale_array(1.0)])
    files = [cache.folder() / f"{name}.ptx" for name in cache.modules(source)]
    assert all(file.read_bytes() for file in files)
    made = source.kernel()
    capfd.readouterr()
    launch = {"grid": (128, 2, 1), "threadgroup": (128, 1, 1)}
    made(
        inputs=[q, q, q, q],
        output_shapes=[q.shape],
        output_dtypes=[q.dtype],
        verbose=True,
        **launch,
    )
    assert source.text.strip() in capfd.readouterr().out


def test_no_transformation_meets_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[Call] = []

    def stand_in(call: Call) -> mx.array:
        described.append(call)
        return reference.run(call, KERNEL)

    stand_in_for_the_cuda_kernel(monkeypatch, stand_in)
    q, k, v = (mx.random.normal((3, 1, 2, 24, 32), key=mx.random.key(i)) for i in range(3))
    one = q[0], k[0], v[0]

    run = runner(cuda_kernel, None)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return run(q, k, v, scale=0.25, mask="causal")

    def of_stock(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return stock(q, k, v, scale=0.25, mask="causal")

    kernel = attend(*one)
    assert mx.allclose(kernel, of_stock(*one), rtol=1e-5, atol=1e-6)
    assert len(described) == 1
    assert mx.array_equal(attend(*one), kernel)
    assert len(described) == 1  # replayed

    tangents = [mx.cos(x) for x in one]
    assert mx.array_equal(mx.vmap(attend)(q, k, v), mx.vmap(of_stock)(q, k, v))
    assert mx.array_equal(
        mx.grad(lambda q: attend(q, *one[1:]).sum())(one[0]),
        mx.grad(lambda q: of_stock(q, *one[1:]).sum())(one[0]),
    )
    assert mx.array_equal(
        mx.jvp(attend, one, tangents)[1][0], mx.jvp(of_stock, one, tangents)[1][0]
    )
    assert mx.array_equal(mx.compile(attend)(*one), mx.compile(of_stock)(*one))
    described.clear()
    assert mx.array_equal(attend(*one), kernel)
    assert not described


def test_a_call_like_one_before_is_looked_at_less_and_computed_no_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described: list[Call] = []

    def stand_in(call: Call) -> mx.array:
        described.append(call)
        return reference.run(call, KERNEL)

    stand_in_for_the_cuda_kernel(monkeypatch, stand_in)
    settings = Settings(True, route="cuda_kernel")
    patch.install(Planner(settings, Device("cuda", (0, 32, 4), 2**36, own_kernel=True)))
    q, k, v = (mx.random.normal((1, 2, 24, 32), key=mx.random.key(i)) for i in range(3))
    half = [x.astype(mx.float16) for x in (q, k, v)]
    calls = [
        (q, k, v),
        (q, k, v),
        (q, half[1], half[2]),
        (half[0], k, v),
        tuple(half),
        (q, k, v[..., :16]),
    ]
    for number, arrays in enumerate(calls * 2):
        out = stock(*arrays, scale=0.25)
        wanted = runner(reference, None)(*arrays, scale=0.25)
        assert out.dtype == wanted.dtype
        assert mx.allclose(out, wanted, rtol=1e-3, atol=1e-3), number
    gradient = mx.grad(lambda q: stock(q, k, v, scale=0.25).sum())(q)
    assert report().as_dict()["routes"] == {"cuda_kernel": 2 * len(calls) + 1}
    first = len(described)
    stock(q, k, v, scale=0.25)
    assert len(described) == first  # replayed
    disable_flash_attention()
    assert mx.array_equal(gradient, mx.grad(lambda q: stock(q, k, v, scale=0.25).sum())(q))


def test_masks_and_sinks_reach_the_kernel_and_a_window_s_array_is_never_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Problem] = []

    def stand_in(call: Call) -> mx.array:
        seen.append(call.problem)
        return call.q * 2 if call.problem.mask == "window" else reference.run(call, KERNEL)

    stand_in_for_the_cuda_kernel(monkeypatch, stand_in)
    pretend(monkeypatch, KERNEL)
    patch.install(Planner(Settings(True)))
    q, k, v = (
        mx.random.normal((2, 4, 40, 64), key=mx.random.key(i)).astype(mx.bfloat16) for i in range(3)
    )
    sinks = mx.array([0.5, -1, 2, 0], mx.bfloat16)
    seen_keys = mx.arange(40) >= mx.array([3, 20])[:, None, None, None]
    for mask, more in (
        (seen_keys, {}),
        (seen_keys, {"sinks": sinks}),
        ("causal", {"sinks": sinks}),
    ):
        for scale in (0.1, 0.3):
            out = stock(q, k, v, scale=scale, mask=mask, **more)
            with state.paused():
                wanted = stock(q, k, v, scale=scale, mask=mask, **more)
            assert mx.allclose(out, wanted, rtol=2e-2, atol=2e-2)
    assert {(one.mask, one.sinks) for one in seen} == {
        ("bool", False),
        ("bool", True),
        ("causal", True),
    }

    long = mx.zeros((1, 1, 4096, 64), mx.bfloat16)
    mx.eval(long)
    for _ in range(2):
        mask = window_mask(4096, 100)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(stock(long, long, long, scale=0.1, mask=mask))
        assert mx.get_peak_memory() - before < mask.nbytes
    assert seen[-1].mask == "window"


def test_where_it_does_not_compile_calls_are_mlx_s_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*args: Any) -> tuple[bytes, str]:
        raise CompileError("flash.cu(1): error: no such instruction")

    monkeypatch.setattr(nvrtc, "compile", failing)
    pretend(monkeypatch, KERNEL)
    patch.install(Planner(Settings(True)))
    q, k, v = (
        mx.random.normal((1, 2, 30, 104), key=mx.random.key(i)).astype(mx.bfloat16)
        for i in range(3)
    )
    for scale in (0.1, 0.3, 0.1):
        out = stock(q, k, v, scale=scale, mask="causal")
        with state.paused():
            assert mx.array_equal(out, stock(q, k, v, scale=scale, mask="causal"))
    assert [record.getMessage() for record in caplog.records] == [
        "flash attention: MLX's own attention, as the CUDA kernel does not compile: "
        "flash.cu(1): error: no such instruction"
    ]
