"""The CUDA kernels of gradients against the float64 reference on a GPU; anywhere, what of a
program reaches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Case, answers, assert_as_exact_as, make, runner
from backends import CUDA, KERNEL, KERNEL_80, pretend
from test_cuda_kernel import on_gpu, tf32

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention
from mlx_flash_runtime.kernels.cuda import arguments, attention, gradient
from mlx_flash_runtime.ops import written_out
from mlx_flash_runtime.patching import tracing
from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import Window, window_mask
from mlx_flash_runtime.routes import cuda_kernel
from mlx_flash_runtime.settings import Settings

CASES = [
    Case(300, 300, heads=4, key_heads=2, head_dim=64, value_head_dim=64, mask="causal", batch=2),
    Case(63, 200, head_dim=80, value_head_dim=72),
    Case(200, 63, head_dim=64, value_head_dim=64, mask="causal"),  # 137 queries see no key
    Case(130, 140, heads=4, head_dim=256, value_head_dim=256, mask="causal", sinks=True),
    Case(130, 130, head_dim=192, value_head_dim=128),
    Case(63, 70, heads=4, head_dim=64, value_head_dim=64, batch=2, mask=("bool", (2, 1, 1, 70))),
    Case(63, 70, head_dim=128, value_head_dim=128, mask=("rows hidden", (63, 70)), sinks=True),
    Case(63, 70, heads=4, head_dim=64, value_head_dim=64, mask=("additive", (1, 4, 63, 70))),
    Case(300, 300, heads=4, key_heads=1, head_dim=32, value_head_dim=32, mask=("window", (100,))),
    Case(300, 300, heads=2, head_dim=64, value_head_dim=64, mask=("prefix", (70,))),
    # Of so many heads that blocks of threads are large.
    Case(150, 300, heads=96, key_heads=48, head_dim=128, value_head_dim=128, mask="causal"),
    Case(130, 130, heads=48, key_heads=48, head_dim=256, value_head_dim=256),
]


def by_operations(q: mx.array, k: mx.array, v: mx.array, **rest: Any) -> mx.array:
    return written_out.attention(q, k, v, **rest)


@on_gpu
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_as_exact_as_mlx_s(case: Case, dtype: mx.Dtype) -> None:
    call = make(case, dtype)
    others = tf32 if dtype == mx.float32 else by_operations
    assert_as_exact_as(others, runner(cuda_kernel, None, training=True), call)


@on_gpu
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_each_run_gives_the_same_bits(dtype: mx.Dtype) -> None:
    case = Case(700, 700, heads=8, key_heads=2, head_dim=128, value_head_dim=128, mask="causal")
    call = make(case, dtype)
    first = answers(runner(cuda_kernel, None, training=True), call)
    for _ in range(5):
        again = answers(runner(cuda_kernel, None, training=True), call)
        assert all(mx.array_equal(a, b) for a, b in zip(first, again, strict=True))


@on_gpu
def test_strided_and_broadcast_arrays() -> None:
    q, k, v = (
        mx.random.normal((2, 100, 4, 64), key=mx.random.key(i)).astype(mx.bfloat16)
        for i in range(3)
    )
    views = [mx.swapaxes(x, 1, 2) for x in (q, k, v)]
    run = runner(cuda_kernel, None, training=True)

    def loss(attend: Any) -> Callable[..., mx.array]:
        # The gradient of a sum is one number, broadcast.
        return lambda *arrays: attend(*arrays, scale=0.125, mask="causal").sum()

    for arrays in (views, [x[..., ::-1] for x in views]):
        own = mx.grad(loss(run), argnums=(0, 1, 2))(*arrays)
        wanted = mx.grad(loss(by_operations), argnums=(0, 1, 2))(
            *(x.astype(mx.float32) for x in arrays)
        )
        for a, b in zip(own, wanted, strict=True):
            assert mx.allclose(a.astype(mx.float32), b, rtol=3e-2, atol=3e-2)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernels were asked for, by stand-ins that compute it with MLX's operations."""
    asked: list[str] = []

    def run(problem: Problem, arrays: Sequence[mx.array]) -> mx.array:
        q, k, v, scale, *rest = arrays
        mask = rest[0] if arguments.reads_mask(problem) else problem.visible
        sinks = rest[-1] if problem.sinks else None
        return written_out.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)

    def forward(problem: Problem, _: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        asked.append("attention")
        out = mx.stop_gradient(run(problem, arrays))
        return [out, mx.zeros(out.shape[:3])] if problem.training else [out]

    def gradients(
        problem: Problem, _: Any, arrays: Sequence[mx.array], outputs: Any, cotangent: mx.array
    ) -> tuple[mx.array | None, ...]:
        asked.append("gradients")

        def of(*primals: mx.array) -> mx.array:
            q, k, v, *sinks = primals
            fixed = list(arrays[3:-1] if problem.sinks else arrays[3:])
            return run(problem, [q, k, v, *fixed, *sinks])

        primals = [*arrays[:3], *([arrays[-1]] if problem.sinks else [])]
        found = [mx.stop_gradient(x) for x in mx.vjp(of, primals, [cotangent])[1]]
        return found[0], found[1], found[2], found[3] if problem.sinks else None

    monkeypatch.setattr(attention, "attention", forward)
    monkeypatch.setattr(attention, "is_there", lambda *_: True)
    monkeypatch.setattr(gradient, "gradients", gradients)
    monkeypatch.setattr(gradient, "is_there", lambda *_: True)
    return asked


OF_WAYS = [
    Case(20, 28, heads=4, key_heads=2, head_dim=32, value_head_dim=32, batch=2),
    Case(28, 28, heads=4, key_heads=2, head_dim=32, value_head_dim=32, mask="causal", sinks=True),
    Case(20, 28, head_dim=32, value_head_dim=32, mask=("rows hidden", (2, 20, 28))),
    Case(20, 28, head_dim=32, value_head_dim=32, mask=("additive", (2, 20, 28)), sinks=True),
    Case(20, 28, head_dim=32, value_head_dim=32, mask=("window", (9,))),
]


def close(own: Sequence[mx.array], wanted: Sequence[mx.array]) -> bool:
    return all(mx.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(own, wanted, strict=True))


@pytest.mark.parametrize("case", OF_WAYS, ids=str)
def test_transformations_of_gradients(case: Case, made: list[str]) -> None:
    call = make(case, mx.float32)
    ours, others = runner(cuda_kernel, None, training=True), by_operations

    def gradients(attention: Any) -> Callable[..., list[mx.array]]:
        function = call.function(attention)
        return lambda *primals: mx.vjp(function, list(primals), [call.cotangent])[1]

    wanted = gradients(others)(*call.primals)
    assert close(gradients(ours)(*call.primals), wanted)
    assert made == ["attention", "gradients"]
    assert close(mx.compile(gradients(ours))(*call.primals), wanted)

    def checkpointed(*args: Any, **rest: Any) -> mx.array:
        q, k, v = args
        names = [name for name in ("mask", "sinks") if isinstance(rest[name], mx.array)]
        fixed = {name: rest[name] for name in rest if name not in names}

        def of(*arrays: mx.array) -> mx.array:
            named = dict(zip(names, arrays[3:], strict=True))
            return ours(*arrays[:3], **fixed, **named)

        return mx.checkpoint(of)(q, k, v, *(rest[name] for name in names))

    if not isinstance(call.mask, mx.array) or call.additive:
        assert close(gradients(checkpointed)(*call.primals), wanted)

    def second(attention: Any) -> list[mx.array]:
        def of(*primals: mx.array) -> mx.array:
            return sum(mx.sum(mx.square(x)) for x in gradients(attention)(*primals))

        return mx.grad(of, argnums=list(range(len(call.primals))))(*call.primals)

    own, right = second(ours), second(others)
    for a, b in zip(own, right, strict=True):
        assert mx.allclose(a, b, rtol=1e-3, atol=1e-3)
    tangents = [mx.cos(x) for x in call.primals]
    assert close(
        mx.jvp(call.function(ours), call.primals, tangents)[1],
        mx.jvp(call.function(others), call.primals, tangents)[1],
    )


def test_a_mapped_gradient_meets_no_kernel(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_stays", False)
    disable_flash_attention()
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    pretend(monkeypatch, KERNEL)
    q, k, v = (mx.random.normal((3, 1, 2, 24, 32), key=mx.random.key(i)) for i in range(3))
    run = runner(cuda_kernel, None, training=True)

    def loss(attend: Any) -> Callable[..., mx.array]:
        return lambda q, k, v: mx.sum(mx.square(attend(q, k, v, scale=0.2, mask="causal")))

    wanted = mx.vmap(mx.grad(loss(by_operations)))(q, k, v)
    enable_flash_attention()
    try:
        assert mx.allclose(mx.vmap(mx.grad(loss(run)))(q, k, v), wanted, rtol=1e-4, atol=1e-5)
        mapped = mx.grad(lambda *arrays: mx.vmap(loss(run))(*arrays).sum())
        assert mx.allclose(mapped(q, k, v), wanted, rtol=1e-4, atol=1e-5)
        assert made == []
    finally:
        disable_flash_attention()
    assert type(mx.vmap) is type(mx.eval)


TRAINING = Problem(1, 16, 8, 4096, 4096, 256, 256, "bfloat16", "causal", training=True)


@pytest.mark.parametrize(
    ("problem", "device", "route"),
    [
        (TRAINING, KERNEL, "cuda_kernel"),
        (TRAINING, CUDA, "unfused"),
        (TRAINING, KERNEL_80, "unfused"),  # not measured
        (replace(TRAINING, head_dim=128, value_head_dim=128), KERNEL, "cuda_kernel"),
        (
            replace(TRAINING, head_dim=128, value_head_dim=128, query_length=2048, key_length=2048),
            KERNEL,
            "native",
        ),
        (replace(TRAINING, head_dim=128, value_head_dim=128, mask="none"), KERNEL, "native"),
        (replace(TRAINING, mask="bool", mask_shape=(4096, 4096)), KERNEL, "unfused"),
        (
            replace(TRAINING, head_dim=64, value_head_dim=64, query_length=4095, key_length=4095),
            KERNEL,
            "cuda_kernel",
        ),
        (replace(TRAINING, head_dim=64, value_head_dim=64, dtype="float32"), KERNEL, "cuda_kernel"),
        (replace(TRAINING, dtype="float32"), KERNEL, "unfused"),
        (
            replace(
                TRAINING,
                head_dim=128,
                value_head_dim=128,
                mask="window",
                mask_shape=(4096, 4096),
                structure=Window(512),
            ),
            KERNEL,
            "cuda_kernel",
        ),
    ],
)
def test_where_training_takes_the_kernel(problem: Problem, device: Any, route: str) -> None:
    assert choose(problem, device, Settings(True)).route.name == route


def test_a_window_s_array_is_never_computed(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = mx.zeros((1, 1, 2048, 32))
    mask = window_mask(2048, 100)
    run = runner(cuda_kernel, None, training=True)
    seen: list[Any] = []

    def spy(problem: Problem, _: Any, arrays: Sequence[mx.array]) -> list[mx.array]:
        seen.append(len(arrays))
        return [arrays[0] * 2, mx.zeros(arrays[0].shape[:3])]

    monkeypatch.setattr(attention, "attention", spy)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(run(long, long, long, scale=0.1, mask=mask))
    assert mx.get_peak_memory() - before < mask.nbytes
    assert seen == [4]
