"""Keys and values that mlx-lm keeps quantized, read as they are by the Metal kernel for few
queries: by emulated threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from backends import METAL, pretend
from metal_kernel import emulated
from mlx_lm.models import deepseek_v3
from mlx_lm.models.cache import QuantizedKVCache

from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.kernels.metal import checked, few_queries
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.routes import metal_kernel

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),
]
DEVICE = replace(METAL, own_kernel=True)


def forget() -> None:
    few_queries._first.cache_clear()
    few_queries._second.cache_clear()
    checked.run.cache_clear()


@pytest.fixture(autouse=True)
def on_metal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pretend(monkeypatch, DEVICE)
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    monkeypatch.setattr(checked, "why_not", lambda: "")
    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("length", "mask", "bits", "dtype", "sinks"),
    [
        (1, None, 4, mx.float16, False),
        (5, "causal", 8, mx.float32, False),
        (5, "array", 4, mx.float32, True),
    ],
)
def test_they_are_read_as_they_are(
    length: int, mask: Any, bits: int, dtype: mx.Dtype, sinks: bool
) -> None:
    key = iter(mx.random.split(mx.random.key(bits + length), 5))

    def normal(*shape: int) -> mx.array:
        return mx.random.normal(shape, key=next(key)).astype(dtype)

    q, k, v = normal(2, 6, length, 64), normal(2, 2, 90, 64), normal(2, 2, 90, 96)
    sink = normal(6) if sinks else None
    if mask == "array":
        mask = mx.random.uniform(shape=(2, 1, length, 90), key=next(key)) < 0.5
    cache = QuantizedKVCache(group_size=32, bits=bits)
    q_keys, q_values = cache.update_and_fetch(k, v)
    k, v = (mx.dequantize(*x, group_size=32, bits=bits) for x in (q_keys, q_values))
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask=mask, sinks=sink)
    enable_flash_attention()
    out = deepseek_v3.scaled_dot_product_attention(
        q + 0, q_keys, q_values, cache, scale=0.125, mask=mask, sinks=sink
    )
    assert mx.allclose(out, wanted, rtol=1e-2, atol=2e-3 if dtype == mx.float16 else 1e-5)
    (told,) = report().as_dict()["reasons"]
    assert told["route"] == "quantized"
    assert told["reason"].startswith("metal_kernel")


def test_when_it_pays() -> None:
    decode = Problem(1, 32, 8, 1, 8192, 128, 128, "bfloat16")
    assert metal_kernel.takes_quantized(decode, DEVICE)
    assert metal_kernel.pays_quantized(replace(decode, query_length=12), Bits(4, 64), DEVICE)
    assert not metal_kernel.takes_quantized(replace(decode, query_length=64), DEVICE)
    assert not metal_kernel.takes_quantized(decode, METAL)
