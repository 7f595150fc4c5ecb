"""What is patched besides MLX's attention: the makers of masks, quantized keys and values, Gemma 2,
the rope scores of MLA."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from attention_cases import wide
from backends import cpu_only, pretend
from mlx_lm.models import base, cache, deepseek_v3, gemma2
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache

from mlx_flash_runtime import (
    disable_flash_attention,
    enable_flash_attention,
    flash_attention_enabled,
    report,
    stock,
)
from mlx_flash_runtime.patching import mla, patch, quantized, state
from mlx_flash_runtime.planning import layers
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.problem.masks import Causal, Window, structure_of
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock import gradient
from mlx_flash_runtime.tools.bench.timing import peak_memory

# Where mlx-lm has the functions that are patched; not every release has every module.
PLACES = {
    "mlx_lm.models.base": (
        "create_causal_mask",
        "quantized_scaled_dot_product_attention",
        "scaled_dot_product_attention",
    ),
    "mlx_lm.models.gemma2": ("Attention.__call__",),
    "mlx_lm.models.gear": ("_softcap_attention",),
}
THERE = [
    (module, name)
    for module, names in PLACES.items()
    for name in names
    if importlib.util.find_spec(module)
]


def function(place: tuple[str, str]) -> Any:
    """What is at that place now."""
    module, name = place
    return attrgetter(name)(importlib.import_module(module))


STOCK = {place: function(place) for place in THERE}


def in_place() -> list[bool]:
    """For each place, whether mlx-lm's own function is there."""
    return [function(place) is STOCK[place] for place in THERE]


def test_every_point_is_patched_and_put_back() -> None:
    bound = (
        gemma2.create_attention_mask,
        deepseek_v3.scaled_dot_product_attention,
        cache.create_causal_mask,
    )
    for _ in range(2):
        enable_flash_attention()
        enable_flash_attention()
        assert not any(in_place())
        assert (
            deepseek_v3.scaled_dot_product_attention
            is base.scaled_dot_product_attention
            is not bound[1]
        )
        assert cache.create_causal_mask is base.create_causal_mask is not bound[2]
        disable_flash_attention()
        assert all(in_place())
        now = (
            gemma2.create_attention_mask,
            deepseek_v3.scaled_dot_product_attention,
            cache.create_causal_mask,
        )
        assert now == bound
    with pytest.raises(RuntimeError, match="inside"), flash_attention_enabled():
        raise RuntimeError("inside")
    assert all(in_place())


def test_masks_made_by_mlx_lm_keep_their_structure() -> None:
    x = mx.zeros((1, 20, 8))
    made = base.create_attention_mask(x, return_array=True)
    assert structure_of(made, 20, 20) is None
    enable_flash_attention()
    made = base.create_attention_mask(x, return_array=True)
    assert structure_of(made, 20, 20) == Causal()
    made = base.create_attention_mask(x, window_size=7)
    assert structure_of(made, 20, 20) == Window(7)
    assert structure_of(made, 20, 21) is None
    padded = base.create_causal_mask(20, 3, left_padding=mx.array([0, 2]))
    assert structure_of(padded, 20, 23) is None
    # What a configuration may say of a window, JSON having one kind of number.
    assert type(base.create_causal_mask(20, window_size=7.0)) is mx.array


def of_clip(length: int) -> mx.array:
    return nn.MultiHeadAttention.create_additive_causal_mask(length, mx.float16)


def of_llama(length: int) -> mx.array:
    return nn.MultiHeadAttention.create_additive_causal_mask(length).astype(mx.bfloat16)


def of_a_layer(length: int) -> mx.array:
    return nn.MultiHeadAttention(8, 2).create_additive_causal_mask(length)


@pytest.mark.parametrize("make_mask", [of_clip, of_llama, of_a_layer])
def test_additive_causal_masks_of_mlx_become_the_word(
    make_mask: Callable[[int], mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, masks = make_mask(20), []
    q, k, v = (
        mx.random.normal((1, 2, 20, 16), plain.dtype, key=mx.random.key(i)) for i in (1, 2, 3)
    )
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=plain)
    stock_attention = stock.attention

    def spy(*arrays: mx.array, mask: Any, **rest: Any) -> mx.array:
        masks.append(mask)
        return stock_attention(*arrays, mask=mask, **rest)

    monkeypatch.setattr(stock, "attention", spy)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "unfused")
    enable_flash_attention()
    made = make_mask(20)
    assert mx.array_equal(made, plain)
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=made)
    assert mx.allclose(out, wanted, rtol=2e-2, atol=2e-2)
    padded = made + mx.where(mx.arange(20) < 2, -100.0, 0.0).astype(made.dtype)
    mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=padded)
    assert [mask if isinstance(mask, str) else type(mask) for mask in masks] == ["causal", mx.array]
    for changed in (made[:10, :10], made.astype(mx.int32), plain):
        assert structure_of(changed, *changed.shape) is None


def test_a_mask_of_a_wider_type_is_still_for_mlx_to_reject() -> None:
    enable_flash_attention()
    q, mask = mx.zeros((1, 2, 20, 16), mx.float16), of_a_layer(20)
    with pytest.raises(ValueError, match="promote"):
        mx.fast.scaled_dot_product_attention(q, q, q, scale=0.3, mask=mask)


@pytest.mark.parametrize("window", [None, 7])
def test_masks_made_by_caches_keep_their_structure(window: int | None) -> None:
    enable_flash_attention()
    keys = mx.zeros((1, 1, 30, 4))
    for kept in (KVCache(), RotatingKVCache(max_size=12)):
        kept.update_and_fetch(keys, keys)
        mask = kept.make_mask(5, window_size=window, return_array=True)
        seen, _ = kept.update_and_fetch(keys[:, :, :5], keys[:, :, :5])
        found = structure_of(mask, 5, seen.shape[2])
        rotating_window = 12 if isinstance(kept, RotatingKVCache) else None
        wanted = window or rotating_window
        assert found == (Window(wanted) if wanted else Causal())


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
    assert mx.allclose(out, wanted, rtol=1e-4, atol=1e-5)
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
    wanted = attend(0.125, wider)
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
    out = quantized._products(q, q_keys, q_values, 0.125, mask, sinks, 32, 8)
    assert mx.allclose(out, wanted, rtol=1e-4, atol=1e-5)


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


def gemma2_model() -> nn.Module:
    mx.random.seed(1)
    return gemma2.Model(
        gemma2.ModelArgs(
            model_type="gemma2",
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rms_norm_eps=1e-5,
            vocab_size=64,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=30.0,
            query_pre_attn_scalar=16,
        )
    )


def deepseek_model() -> nn.Module:
    mx.random.seed(2)
    return deepseek_v3.Model(
        deepseek_v3.ModelArgs(
            model_type="deepseek_v3",
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            n_routed_experts=2,
            n_shared_experts=1,
            num_experts_per_tok=1,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=16,
            v_head_dim=16,
        )
    )


def runs(model: nn.Module) -> dict[str, mx.array]:
    """Logits of a prefill in two parts and of a decoded token, and the gradient of a loss."""
    tokens = mx.random.randint(0, 64, (2, 40), key=mx.random.key(3))
    kept = cache.make_prompt_cache(model)
    out = {
        f"logits {start}": model(tokens[:, start:stop], cache=kept)
        for start, stop in ((0, 25), (25, 39), (39, 40))
    }

    def loss(model: nn.Module) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    value, gradient = nn.value_and_grad(model, loss)(model)
    out["loss"] = value
    for name, x in nn.utils.tree_flatten(gradient):
        if "self_attn" in name:
            out[name] = x
    mx.eval(out)
    return out


@pytest.mark.parametrize("make", [gemma2_model, deepseek_model])
def test_models_answer_the_same_by_blocks(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    wanted = runs(model)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    monkeypatch.setenv("MLX_FLASH_BLOCK_SIZE", "16")
    enable_flash_attention()
    own = runs(model)
    calls = report().as_dict()["routes"]
    assert set(calls) == {"blockwise"}
    assert calls["blockwise"] == 8
    for name, x in wanted.items():
        error = abs(wide(x) - wide(own[name])).max()
        assert error <= 2e-5 * max(1.0, abs(wide(x)).max()), name


def test_rope_scores_are_not_computed_where_they_are_folded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    fold = mla._fold

    def spy(*arguments: Any) -> Any:
        seen.append(fold(*arguments))
        return seen[-1]

    monkeypatch.setattr(mla, "_fold", spy)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    enable_flash_attention()
    model = deepseek_model()
    model(mx.zeros((1, 12), mx.int32))
    assert len(seen) == 2
    for folded in seen:
        assert folded.q.shape == (1, 4, 12, 24)
        assert folded.k.shape == (1, 4, 12, 24)
        assert structure_of(folded.mask, 12, 12) == Causal()


def test_rope_scores_that_are_no_worse_are_folded_in_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folded: list[mla.Folded | None] = []
    fold = mla._fold

    def spy(*arguments: Any) -> mla.Folded | None:
        folded.append(fold(*arguments))
        return folded[-1]

    monkeypatch.setattr(mla, "_fold", spy)
    model = deepseek_model()
    tokens = mx.zeros((1, 12), mx.int32)
    wanted = model(tokens)
    patch.install(Planner(Settings(True), Device("cuda", (0, 32, 4), 2**36)))
    for _ in range(2):
        assert mx.allclose(model(tokens), wanted, rtol=1e-5, atol=1e-6)
    assert len(folded) == 1  # once for both layers, which make the same call
    monkeypatch.setattr(gradient, "is_traced", lambda: True)
    assert mx.allclose(model(tokens), wanted, rtol=1e-5, atol=1e-6)
    assert len(folded) == 3
    assert report().as_dict()["routes"] == {"unfused": 6}


@pytest.mark.parametrize(
    "module",
    [
        "deepseek_v3",
        "deepseek_v32",
        "kimi_linear",
        "glm4_moe_lite",
        "longcat_flash",
        "bailing_hybrid",
    ],
)
def test_rope_scores_are_recognised_in_mlx_lm(module: str) -> None:
    loaded = pytest.importorskip(f"mlx_lm.models.{module}")
    functions = [
        value.__call__.__code__
        for value in vars(loaded).values()
        if isinstance(value, type)
        and value.__module__ == loaded.__name__
        and "__call__" in vars(value)
    ]
    found = [names for code in functions if (names := mla._names(code))]
    assert found
    assert all(names[0] == "pe_scores" and names[3] == "mask" for names in found)


class Other:
    """Look alike, and are not."""

    scale = 1.0

    def biased(self, q: Any, k: Any, q_pe: Any, k_pe: Any, mask: Any) -> Any:
        pe_scores = (q_pe * self.scale) @ k_pe.swapaxes(-1, -2)
        pe_scores = pe_scores + 1
        return base.scaled_dot_product_attention(q, k, k, None, scale=self.scale, mask=pe_scores)

    def scaled_otherwise(self, q: Any, k: Any, q_pe: Any, k_pe: Any, mask: Any) -> Any:
        pe_scores = (q_pe * 2) @ k_pe.swapaxes(-1, -2)
        return base.scaled_dot_product_attention(q, k, k, None, scale=self.scale, mask=pe_scores)

    def changed_later(self, q: Any, k: Any, q_pe: Any, k_pe: Any, mask: Any) -> Any:
        pe_scores = (q_pe * self.scale) @ k_pe.swapaxes(-1, -2)
        k_pe = k_pe * 2
        return base.scaled_dot_product_attention(
            q, k, k, None, scale=self.scale, mask=pe_scores
        ), k_pe

    def the_same(self, q: Any, k: Any, q_pe: Any, k_pe: Any, mask: Any) -> Any:
        scores = (q_pe * self.scale) @ k_pe.swapaxes(-1, -2)
        return base.scaled_dot_product_attention(q, k, k, None, scale=self.scale, mask=scores)


def test_other_masks_are_left_alone() -> None:
    for function in (Other.biased, Other.scaled_otherwise, Other.changed_later):
        assert mla._names(function.__code__) is None
    assert mla._names(Other.the_same.__code__) == ("scores", "q_pe", "k_pe", None)


@pytest.mark.parametrize("limit", [None, 12])
def test_softcapped_scores_by_hand_are_those_of_mlx_lm(limit: int | None) -> None:
    model = gemma2_model()
    tokens = mx.random.randint(0, 64, (1, 30), key=mx.random.key(3))

    def logits() -> mx.array:
        kept = cache.make_prompt_cache(model, max_kv_size=limit)
        return mx.concatenate(
            [model(part, cache=kept) for part in mx.split(tokens, [15, 25, 26], axis=1)], axis=1
        )

    wanted = logits()
    mx.eval(wanted)
    patch.install(Planner(Settings(True), replace(current_device(), own_kernel=False)))
    assert mx.allclose(logits(), wanted, rtol=1e-6, atol=1e-6)
    assert report().as_dict()["routes"] == {"unfused": 8}


def test_a_quantized_prefill_keeps_few_heads_dequantized(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, length, dim = 32, 2048, 64
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


LATE = """
from mlx_flash_runtime import disable_flash_attention, enable_flash_attention
from mlx_flash_runtime.problem import masks
enable_flash_attention()
from mlx_lm.models import base, cache, gemma2
patched = [base.create_causal_mask, cache.create_causal_mask, gemma2.Attention.__call__]
print(*(hasattr(function, "__wrapped__") for function in patched))
print(masks.structure_of(base.create_causal_mask(8, window_size=3), 8, 8) == masks.Window(3))
disable_flash_attention()
now = [base.create_causal_mask, cache.create_causal_mask, gemma2.Attention.__call__]
print(*(new is old.__wrapped__ for new, old in zip(now, patched)))
from mlx_lm.models import gear
source = base.__spec__.loader.get_source(base.__name__)
print(not hasattr(gear._softcap_attention, "__wrapped__"), source != "")
"""


def test_modules_that_are_imported_later_are_patched_as_they_are_loaded() -> None:
    if not importlib.util.find_spec("mlx_lm.models.gear"):
        pytest.skip("not in this mlx-lm")
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True"] * 9, done.stderr


AGAIN = """
import importlib, sys
import mlx.core as mx
from mlx_lm.models import base
from mlx_flash_runtime import disable_flash_attention, enable_flash_attention
stock, exported = base.create_causal_mask, mx.export_function
enable_flash_attention()
first = sys.modules.pop("mlx_lm.models.base")
disable_flash_attention()
print(first.create_causal_mask is stock, mx.export_function is exported)
enable_flash_attention()
base = importlib.import_module("mlx_lm.models.base")
print(base is not first, hasattr(base.create_causal_mask, "__wrapped__"))
importlib.reload(base)
print(hasattr(base.create_causal_mask, "__wrapped__"))
enable_flash_attention()
disable_flash_attention()
print(not hasattr(base.create_causal_mask, "__wrapped__"))
"""


def test_a_module_that_is_dropped_and_loaded_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["True"] * 6, done.stderr
