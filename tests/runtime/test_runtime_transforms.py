"""The routes and the rewritings under MLX's function transformations, and the memory of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from arithmetic import agree
from attention_cases import Case, make, runner
from backends import on_cpu
from ways import MORE, WAYS, Way, each, skip_where_jvp_is_wrong

from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.routes import blockwise, cpu_kernel, query_blocks, reference

Attention = Callable[..., mx.array]  # of q, k, v, then sinks if any


def attention(
    way: Way, case: Case, monkeypatch: pytest.MonkeyPatch
) -> tuple[Attention, list[mx.array]]:
    """The case by that way as a function of q, k, v and sinks, and these."""
    call = make(case, mx.float32)
    mask = call.primals.pop(3) if call.additive else call.mask
    function = way.attention(case, monkeypatch)

    def attend(q: mx.array, k: mx.array, v: mx.array, *sinks: mx.array) -> mx.array:
        return function(q, k, v, scale=call.scale, mask=mask, sinks=sinks[0] if sinks else None)

    return attend, call.primals


def gradient(attention: Attention) -> Callable[..., Any]:
    def loss(*primals: mx.array) -> mx.array:
        out = attention(*primals)
        return (out * mx.cos(mx.arange(out.size).reshape(out.shape))).sum()

    return lambda *primals: mx.grad(loss, argnums=tuple(range(len(primals))))(*primals)


def second_gradient(attention: Attention) -> Callable[..., Any]:
    first = gradient(attention)

    def loss(*primals: mx.array) -> mx.array:
        return sum((x.square().sum() for x in first(*primals)), mx.array(0.0))

    return lambda *primals: mx.grad(loss, argnums=tuple(range(len(primals))))(*primals)


def tangent(attention: Attention) -> Callable[..., Any]:
    return lambda *primals: mx.jvp(attention, primals, [mx.cos(x) for x in primals])[1]


def batched(
    function: Callable[..., Any], in_axes: tuple[int | None, ...] = (0,) * 4
) -> Callable[..., Any]:
    """vmap over three inputs made of each: the first axis, or the one that `in_axes` gives."""

    def run(*primals: mx.array) -> Any:
        axes = in_axes[: len(primals)]
        stacked = [
            x if axis is None else mx.stack([x, -x, 2 * x], axis=axis)
            for x, axis in zip(primals, axes, strict=True)
        ]
        return mx.vmap(function, in_axes=axes)(*stacked)

    return run


TRANSFORMS: dict[str, Callable[[Attention], Callable[..., Any]]] = {
    "grad": gradient,
    "grad of grad": second_gradient,
    "jvp": tangent,
    "checkpoint": lambda attention: gradient(mx.checkpoint(attention)),
    "compile": lambda attention: mx.compile(gradient(attention)),
    "vmap": batched,
    "vmap of queries": lambda attention: batched(attention, (2, None, None, None)),
    "vmap of grad": lambda attention: batched(gradient(attention)),
    "grad of vmap": lambda attention: gradient(batched(attention)),
}


@pytest.mark.parametrize(("way", "case"), each(WAYS, MORE))
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transform_agrees_with_the_reference(
    transform: Callable[[Attention], Any], way: Way, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transform is tangent:
        skip_where_jvp_is_wrong(case)
    attend, primals = attention(way, case, monkeypatch)
    defined, _ = attention(Way(reference), case, monkeypatch)
    wanted, own = transform(defined)(*primals), transform(attend)(*primals)
    as_list = [wanted], [own]
    for x, y in zip(*(as_list if isinstance(wanted, mx.array) else (wanted, own)), strict=True):
        assert x.shape == y.shape
        assert agree(y, x, rtol=1e-4, atol=1e-5 * mx.abs(x).max().item())


def peak(function: Callable[..., Any], inputs: list[mx.array]) -> int:
    """Bytes that a call needs beyond its inputs: the least of three calls.

    MLX prepares operations ahead of the one that runs, each with its memory: the more, the busier
    the machine is.
    """
    mx.eval(inputs)
    peaks = []
    for _ in range(3):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(function(*inputs))
        peaks.append(int(mx.get_peak_memory()) - before)
    return min(peaks)


@pytest.mark.parametrize("mask", [None, "causal"])
@pytest.mark.parametrize(
    ("route", "phase"),
    [
        (blockwise, "forward"),
        (blockwise, "training"),  # compiling all of its operations takes seconds
        (query_blocks, "forward"),
        (query_blocks, "training"),
        (query_blocks, "compiled training"),
        *(
            [(cpu_kernel, "forward"), (cpu_kernel, "training"), (cpu_kernel, "compiled training")]
            if on_cpu
            else []
        ),
    ],
)
def test_memory_is_linear_in_the_length(route: Any, phase: str, mask: Any) -> None:
    # MLX evaluates operations ahead, about 100 on the CPU and 1,000 on a GPU, which are few blocks
    # of queries: they have to be many.
    if not on_cpu and phase == "compiled training":
        pytest.skip("so many blocks take minutes to compile")
    block_size = 256 if route is blockwise else 16
    lengths = (1024, 4096) if on_cpu else (32768,)
    peaks = {}
    for length in lengths:
        call = make(
            Case(length, length, heads=1, key_heads=1, head_dim=8, value_head_dim=8, mask=mask),
            mx.float32,
        )
        attention = call.function(runner(route, block_size))
        function = attention if phase == "forward" else gradient(attention)
        peaks[length] = peak(
            mx.compile(function) if phase == "compiled training" else function, call.primals
        )
    longest = lengths[-1]
    assert peaks[longest] < 4 * longest**2 / 12  # a twelfth of one matrix of scores
    if not on_cpu:  # how far a GPU runs ahead, and so what it holds, grows with the length
        return
    assert peaks[4096] < 4.8 * peaks[1024]  # 16 times, if it were the scores
    if phase == "forward" and route is not query_blocks:
        problem = Problem(1, 1, 1, 4096, 4096, 8, 8, mask=mask or "none")
        predicted = route.extra_memory(problem, current_device(), block_size) + problem.output_bytes
        assert predicted / 2 < peaks[4096] < predicted * 2
