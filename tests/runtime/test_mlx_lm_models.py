"""Models of mlx-lm whose attention is patched beyond its call: the softcapped scores of Gemma 2,
the rope scores of multi-head latent attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from arithmetic import agree
from mlx_lm.models import base, cache, deepseek_v3, gemma2

from mlx_flash_runtime import (
    enable_flash_attention,
    report,
)
from mlx_flash_runtime.patching import mla, patch
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Causal, structure_of
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock import gradient


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
        largest = max(1.0, mx.abs(x).max().item())
        assert agree(own[name], x, rtol=0, atol=2e-5 * largest), name


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
    assert agree(logits(), wanted, rtol=1e-6, atol=1e-6)
    assert report().as_dict()["routes"] == {"unfused": 8}


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
    masks = []

    class Spied(Planner):
        def attend(self, q: Any, k: Any, v: Any, scale: Any, mask: Any, sinks: Any) -> mx.array:
            problem = Problem.of(q, k, v, mask, sinks)
            masks.append(problem.mask if problem else None)
            return super().attend(q, k, v, scale, mask, sinks)

    model = deepseek_model()
    tokens = mx.zeros((1, 12), mx.int32)
    wanted = model(tokens)
    patch.install(Spied(Settings(True), Device("cuda", (0, 32, 4), 2**36)))
    for _ in range(2):
        assert agree(model(tokens), wanted, rtol=1e-5, atol=1e-6)
    assert set(masks) == {"additive"}
    masks.clear()
    monkeypatch.setattr(gradient, "is_traced", lambda: True)
    assert agree(model(tokens), wanted, rtol=1e-5, atol=1e-6)
    assert set(masks) == {"causal"}
    assert report().as_dict()["routes"] == {"unfused": 6}


@pytest.mark.parametrize("rope_dims", [(16, 64), (64, 16)], ids=str)
def test_rope_dims_are_told_apart(rope_dims: tuple[int, int]) -> None:
    """Of two layers that differ in them alone, the one is folded whose head dim MLX fuses then."""
    patch.install(Planner(Settings(True), Device("metal", (0, 32, 4), 2**36)))
    random = partial(mx.random.normal, key=mx.random.key(1))
    for dims in rope_dims:
        q, k, v = random((1, 4, 40, 64)), random((1, 4, 40, 64)), random((1, 4, 40, 128))
        q_pe, k_pe = random((1, 4, 40, dims)), random((1, 1, 40, dims))
        Other().with_values(q, k, v, q_pe, k_pe)
        routes = report().as_dict()["routes"]
        assert ("native" in routes) == (64 in rope_dims[: rope_dims.index(dims) + 1])


@pytest.mark.parametrize(
    "module",
    [
        "deepseek_v3",
        "deepseek_v32",
        "kimi_linear",
        "glm4_moe_lite",
        "longcat_flash",
        "bailing_hybrid",
        "bailing_moe_v3",
        "kimi_k3",
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

    def with_values(self, q: Any, k: Any, v: Any, q_pe: Any, k_pe: Any) -> Any:
        scores = (q_pe * self.scale) @ k_pe.swapaxes(-1, -2)
        return base.scaled_dot_product_attention(q, k, v, None, scale=self.scale, mask=scores)


def test_other_masks_are_left_alone() -> None:
    for function in (Other.biased, Other.scaled_otherwise, Other.changed_later):
        assert mla._names(function.__code__) is None
    assert mla._names(Other.the_same.__code__) == ("scores", "q_pe", "k_pe", None)
