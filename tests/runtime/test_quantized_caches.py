"""Quantized keys and values of mlx-lm on the routes, and on the products of mlx-lm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from arithmetic import agree
from backends import cpu_only, on_cpu, pretend, skipped_where_mlx_lacks_it
from mlx_lm.models import base, deepseek_v3
from mlx_lm.models.cache import QuantizedKVCache

from mlx_flash_runtime import (
    disable_flash_attention,
    enable_flash_attention,
    report,
)
from mlx_flash_runtime.patching import quantized, state
from mlx_flash_runtime.planning import layers
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.tools.bench.timing import peak_memory


def quantized_cache(
    keys: mx.array, values: mx.array, bits: int
) -> tuple[QuantizedKVCache, Any, Any]:
    kept = QuantizedKVCache(group_size=32, bits=bits)
    return kept, *kept.update_and_fetch(keys, values)


def dequantized(x: Any, bits: int) -> mx.array:
    return mx.dequantize(*x, group_size=32, bits=bits)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(
    ("length", "mask"), [(1, None), (5, "causal"), (40, "causal"), (300, "causal"), (40, "array")]
)
def test_quantized_keys_and_values(length: int, mask: Any, sinks: bool, bits: int) -> None:
    key = iter(mx.random.split(mx.random.key(bits + length), 5))
    heads, key_heads, key_length, dim = 6, 2, 320, 64
    q = mx.random.normal((2, heads, length, dim), key=next(key))
    k, v = (mx.random.normal((2, key_heads, key_length, dim), key=next(key)) for _ in range(2))
    sink = mx.random.normal((heads,), key=next(key)) if sinks else None
    if mask == "array":
        if tuple(map(int, mlx_lm.__version__.split(".")[:2])) < (0, 32) and not sinks:
            pytest.skip("this mlx-lm reads the batch of a mask as heads")
        mask = mx.random.uniform(shape=(2, 1, length, key_length), key=next(key)) < 0.5
    kept, q_keys, q_values = quantized_cache(k, v, bits)
    wanted = mx.fast.scaled_dot_product_attention(
        q,
        dequantized(q_keys, bits),
        dequantized(q_values, bits),
        scale=0.125,
        mask=mask,
        sinks=sink,
    )
    enable_flash_attention()
    # A name that a model bound before; stock works on q in place.
    out = deepseek_v3.scaled_dot_product_attention(
        q + 0, q_keys, q_values, kept, scale=0.125, mask=mask, sinks=sink
    )
    assert agree(out, wanted, rtol=1e-4, atol=1e-5)
    by_route = report().as_dict()["routes"]
    if sinks:
        assert by_route == {"quantized": 1}


@cpu_only
@pytest.mark.parametrize(
    ("dtype", "length", "bits", "keys", "is_dequantized"),
    [
        (mx.bfloat16, 1, 8, 320, True),
        (mx.float16, 8, 4, 320, True),
        (mx.bfloat16, 8, 6, 320, True),
        (mx.float32, 1, 8, 320, False),  # 3 rows of queries a key head
        (mx.float32, 3, 8, 320, True),
        (mx.float32, 3, 6, 320, False),
        (mx.float32, 8, 6, 320, True),
        (mx.bfloat16, 1, 8, 32, False),
    ],
)
def test_few_queries_on_a_cpu_are_dequantized_where_it_pays(
    dtype: mx.Dtype, length: int, bits: int, keys: int, is_dequantized: bool
) -> None:
    key = iter(mx.random.split(mx.random.key(bits), 3))
    q = mx.random.normal((1, 6, length, 64), dtype, key=next(key))
    k, v = (mx.random.normal((1, 2, keys, 64), dtype, key=next(key)) for _ in range(2))
    kept, q_keys, q_values = quantized_cache(k, v, bits)
    arguments = q_keys, q_values, kept
    wanted = base.scaled_dot_product_attention(q + 0, *arguments, scale=0.125, mask="causal")
    enable_flash_attention()
    out = base.scaled_dot_product_attention(q + 0, *arguments, scale=0.125, mask="causal")
    assert report().as_dict()["routes"] == ({"quantized": 1} if is_dequantized else {})
    assert mx.allclose(out, wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_quantized_calls_that_no_route_takes_are_mlx_lm_s(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = mx.random.normal((1, 4, 40, 64), key=mx.random.key(0)).astype(mx.bfloat16)
    kept, q_keys, q_values = quantized_cache(q[:, :2], q[:, 2:], 8)

    def attend(scale: Any, mask: Any) -> mx.array:
        return base.scaled_dot_product_attention(
            q + 0, q_keys, q_values, kept, scale=scale, mask=mask
        )

    # A float32 mask, which MLX's attention would refuse.
    wider = mx.random.normal((40, 40), key=mx.random.key(1))
    with skipped_where_mlx_lacks_it():
        wanted = attend(0.125, wider)
        mx.eval(wanted)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    enable_flash_attention()
    device = replace(current_device(), backend=backend, own_kernel=False)
    pretend(monkeypatch, device)
    assert mx.array_equal(attend(0.125, wider), wanted)
    with pytest.raises(ValueError, match="broadcast"):
        attend(0.125, mx.zeros((40, 41)))
    assert mx.allclose(attend(np.float64(0.125), "causal"), attend(0.125, "causal"), atol=1e-2)


@pytest.mark.parametrize(("length", "mask"), [(1, None), (5, "causal"), (5, "array")])
def test_products_on_quantized_keys_take_groups_as_rows(length: int, mask: Any) -> None:
    key = iter(mx.random.split(mx.random.key(length), 4))
    q = mx.random.normal((2, 6, length, 64), key=next(key))
    k, v = (mx.random.normal((2, 2, 40, 64), key=next(key)) for _ in range(2))
    if mask == "array":
        mask = mx.random.uniform(shape=(2, 1, length, 40), key=next(key)) < 0.5
    _, q_keys, q_values = quantized_cache(k, v, 8)
    sinks = mx.arange(6) - 3.0
    wanted = mx.fast.scaled_dot_product_attention(
        q, dequantized(q_keys, 8), dequantized(q_values, 8), scale=0.125, mask=mask, sinks=sinks
    )
    with skipped_where_mlx_lacks_it():
        out = quantized._products(q, q_keys, q_values, 0.125, mask, sinks, 32, 8)
        mx.eval(out)
    assert agree(out, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("length", [1, 5])
def test_on_cuda_a_decode_has_no_quantized_products(
    length: int, sinks: bool, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = replace(current_device(), backend="cuda", own_kernel=False)
    pretend(monkeypatch, device)
    products = mx.quantized_matmul

    def refuse(*arguments: Any, **named: Any) -> mx.array:
        assert state.is_paused()  # mlx-lm's function, held against the formula on the CPU
        return products(*arguments, **named)

    monkeypatch.setattr(mx, "quantized_matmul", refuse)
    test_quantized_keys_and_values(length, None, sinks, bits)
    assert report().as_dict()["routes"] == {"quantized": 1}


def test_forced_blocks_take_a_quantized_prefill_head_by_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    monkeypatch.setattr("mlx_flash_runtime.patching.quantized._BYTES_AT_ONCE", 1)
    test_quantized_keys_and_values(40, "causal", False, 8)
    [layer] = report().as_dict()["layers"]
    assert layer["routes"] == {"quantized": 1}
    disable_flash_attention()
    layers.forget()
    test_quantized_keys_and_values(40, "array", True, 4)


def test_a_quantized_prefill_keeps_few_heads_dequantized(monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU holds what about 100 operations make: they have to be few of all.
    heads, length, dim = 32 if on_cpu else 128, 2048, 64
    q = mx.random.normal((1, heads, 16, dim), key=mx.random.key(1))
    k, v = (mx.random.normal((1, heads, length, dim), key=mx.random.key(i)) for i in (2, 3))
    kept, q_keys, q_values = quantized_cache(k, v, 4)
    mx.eval(q, q_keys, q_values)
    del k, v
    monkeypatch.setenv("MLX_FLASH_ROUTE", "query_blocks")
    monkeypatch.setattr("mlx_flash_runtime.patching.quantized._BYTES_AT_ONCE", 1)
    enable_flash_attention()
    needed = peak_memory(
        lambda: base.scaled_dot_product_attention(
            q, q_keys, q_values, kept, scale=0.125, mask="causal"
        )
    )
    assert report().as_dict()["routes"].keys() == {"quantized"}
    dequantized_bytes = 2 * heads * length * dim * 4
    assert needed < dequantized_bytes / 2
