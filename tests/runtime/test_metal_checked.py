"""The check that a Mac makes before it uses a Metal kernel, by emulated threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from backends import METAL, pretend
from metal_kernel import emulated

from mlx_flash_runtime import flash_attention_enabled, kernels, report
from mlx_flash_runtime.kernels.metal import checked, few_queries
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.planning import planner
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.tools.doctor import attention

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),
]
DECODE = Problem(1, 4, 2, 1, 300, 80, 80, "float16")


def forget() -> None:
    few_queries._first.cache_clear()
    few_queries._second.cache_clear()
    checked.run.cache_clear()
    checked._kept.cache_clear()


@pytest.fixture(autouse=True)
def on_metal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    monkeypatch.setattr(checked, "_refused", "")
    forget()
    yield
    forget()


def break_it(monkeypatch: pytest.MonkeyPatch, line: str, instead: str) -> None:
    text = few_queries._text("few_queries.metal")
    assert line in text
    broken = text.replace(line, instead)
    original = few_queries._text

    def read(name: str) -> str:
        return broken if name == "few_queries.metal" else original(name)

    monkeypatch.setattr(few_queries, "_text", read)


@pytest.mark.parametrize(
    "problem",
    [
        DECODE,
        replace(DECODE, mask="bool", mask_shape=(1, 1, 1, 300), dtype="bfloat16"),
        replace(DECODE, query_length=12, mask="causal", sinks=True, dtype="float32"),
        replace(DECODE, mask="window", structure=Window(20), softcap=2.0),
        replace(DECODE, mask="additive", mask_shape=(1, 300)),
    ],
    ids=str,
)
def test_a_right_kernel_is_found_to_be(problem: Problem) -> None:
    assert checked.is_right(problem)


@pytest.mark.parametrize(("bits", "head_dim"), [(4, 128), (8, 96)])
def test_a_right_kernel_for_quantized_keys_is_found_to_be(bits: int, head_dim: int) -> None:
    problem = replace(DECODE, head_dim=head_dim, value_head_dim=head_dim)
    assert checked.is_right(problem, Bits(bits, 32))


@pytest.mark.parametrize(
    ("line", "instead", "why"),
    [
        ("x + simd_shuffle_xor(x, ushort(8))", "x", "it is wrong by"),
        ("return int((lane / 4", "return unknown((lane / 4", "was not declared"),
    ],
)
def test_a_kernel_that_fails_is_never_used_again(
    line: str,
    instead: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_it(monkeypatch, line, instead)
    pretend(monkeypatch, METAL)

    def device() -> Device:
        return replace(METAL, own_kernel=kernels.is_there("metal"))

    monkeypatch.setattr(planner, "current_device", device)
    q, k = mx.random.normal((1, 4, 1, 80)), mx.random.normal((1, 2, 300, 80))
    stock = mx.fast.scaled_dot_product_attention(q, k, k, scale=0.1)
    with (
        flash_attention_enabled(),
        caplog.at_level(logging.WARNING, "mlx_flash_runtime"),
    ):
        for _ in range(2):
            ours = mx.fast.scaled_dot_product_attention(q, k, k, scale=0.1)
            assert mx.allclose(ours, stock, atol=1e-5)
        routes = {one["route"]: one["calls"] for one in report().as_dict()["reasons"]}
        assert routes == {"metal_kernel": 1, "unfused": 1}
    (record,) = caplog.records
    assert why in record.getMessage()
    assert "mlx-flash doctor" in record.getMessage()
    # In the next process it is known from the start.
    monkeypatch.setattr(checked, "_refused", "")
    forget()
    assert why in checked.why_not()
    (finding,) = attention.metal_kernels(METAL)
    assert (finding.value, finding.status) == (checked.why_not(), "warning")
    assert not checked.is_right(DECODE)
