"""Real layers and models, patched against unpatched, and the names that the report gives their
layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from arithmetic import agree, rounding
from backends import cpu_only, on_cpu
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.llama import Model, ModelArgs, TransformerBlock
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_flash_runtime import flash_attention, flash_attention_enabled, report

LAYERS = 3
ROUTES = [*(["cpu_kernel"] if on_cpu else []), "unfused", "blockwise", "reference"]


@pytest.fixture
def model() -> Model:
    mx.random.seed(1)
    return Model(
        ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=LAYERS,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=64,
        )
    )


TOKENS = mx.array([[(7 * i) % 64 for i in range(30)]])


def both(
    function: Callable[[], Any], route: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any]:
    """What `function` returns unpatched and patched, computed."""
    plain = function()
    mx.eval(plain)
    monkeypatch.setenv("MLX_FLASH_ROUTE", route)
    with flash_attention_enabled(block_size=8):
        patched = function()
        mx.eval(patched)
    return plain, patched


def layer_calls() -> dict[str, dict[str, int]]:
    return {layer["name"]: layer["routes"] for layer in report().as_dict()["layers"]}


@pytest.mark.parametrize("route", ROUTES)
def test_llama_prefill_and_decode(
    route: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logits() -> mx.array:
        cache = make_prompt_cache(model)
        steps = [
            model(TOKENS[:, :20], cache=cache),
            *(model(TOKENS[:, i : i + 1], cache=cache) for i in range(20, 25)),
        ]
        return mx.concatenate(steps, axis=1)

    plain, patched = both(logits, route, monkeypatch)
    assert agree(plain, patched, rtol=1e-4, atol=1e-4)
    assert layer_calls() == {f"model.layers.{i}.self_attn": {route: 6} for i in range(LAYERS)}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_llama_lora_gradients(
    route: str, checkpointed: bool, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.freeze()
    linear_to_lora_layers(model, LAYERS, {"rank": 2, "scale": 2.0, "dropout": 0.0})
    # lora_b is zero at first, which would hide half of the gradients.
    named = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(name, mx.random.normal(weight.shape) * 0.1) for name, weight in named], strict=False
    )
    if checkpointed:  # mlx-lm changes the class of the layers: monkeypatch puts it back
        monkeypatch.setattr(TransformerBlock, "__call__", TransformerBlock.__call__)
        grad_checkpoint(model.layers[0])

    def loss(inputs: mx.array, targets: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(inputs), targets).mean()

    step = nn.value_and_grad(model, loss)
    plain, patched = both(lambda: step(TOKENS[:, :-1], TOKENS[:, 1:]), route, monkeypatch)
    assert patched[0].item() == pytest.approx(plain[0].item(), rel=max(1e-4, rounding(mx.float32)))
    wanted, own = dict(tree_flatten(plain[1])), dict(tree_flatten(patched[1]))
    assert wanted.keys() == own.keys()
    for name, gradient in wanted.items():
        assert mx.abs(gradient).max().item() > 0, name
        assert agree(own[name], gradient, rtol=1e-3, atol=1e-5), name
    # A checkpoint runs each layer once more, without the model on the stack.
    assert layer_calls() == {
        f"model.layers.{i}.self_attn": {route: 1 + checkpointed} for i in range(LAYERS)
    }


def self_attention(x: mx.array) -> tuple[nn.Module, Callable[[nn.Module], mx.array]]:
    return nn.MultiHeadAttention(32, 4), lambda layer: layer(x, x, x, MASK)


def cross_attention(x: mx.array) -> tuple[nn.Module, Callable[[nn.Module], mx.array]]:
    values = mx.random.normal((2, 20, 24))
    layer = nn.MultiHeadAttention(32, 4, key_input_dims=16, value_input_dims=24, value_dims=48)
    return layer, lambda layer: layer(x, values[..., :16], values)


def encoder(x: mx.array) -> tuple[nn.Module, Callable[[nn.Module], mx.array]]:
    return nn.TransformerEncoder(
        num_layers=2, dims=32, num_heads=4, mlp_dims=32
    ), lambda layer: layer(x, MASK)


def encoder_and_decoder(x: mx.array) -> tuple[nn.Module, Callable[[nn.Module], mx.array]]:
    layer = nn.Transformer(
        32, 4, num_encoder_layers=1, num_decoder_layers=1, mlp_dims=32, dropout=0.0
    )
    return layer, lambda layer: layer(x, x[:, ::-1], None, MASK, None)


def alibi(x: mx.array) -> tuple[nn.Module, Callable[[nn.Module], mx.array]]:
    slopes = nn.ALiBi.create_alibi_matrix(30, 30, 4, 0)
    return nn.MultiHeadAttention(32, 4), lambda layer: layer(x, x, x, slopes + MASK)


MASK = nn.MultiHeadAttention.create_additive_causal_mask(30)


@pytest.mark.parametrize(
    "make", [self_attention, cross_attention, encoder, encoder_and_decoder, alibi]
)
@pytest.mark.parametrize("route", [*ROUTES, "query_blocks"])
def test_layers_of_mlx(
    route: str, make: Callable[[mx.array], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mx.random.seed(3)
    layer, forward = make(mx.random.normal((2, 30, 32)))

    def loss() -> mx.array:
        out = forward(layer)
        return (out * mx.cos(mx.arange(out.size)).reshape(out.shape)).mean()

    step = nn.value_and_grad(layer, loss)
    (value, gradients), (own_value, own_gradients) = both(step, route, monkeypatch)
    assert own_value.item() == pytest.approx(value.item(), rel=max(1e-4, rounding(mx.float32)))
    own = dict(tree_flatten(own_gradients))
    for name, gradient in tree_flatten(gradients):
        largest = mx.abs(gradient).max().item()
        assert agree(own[name], gradient, rtol=1e-3, atol=1e-4 * largest), name
    names = layer_calls()
    assert names
    assert all(routes == {route: 1} for routes in names.values())


def test_a_layer_alone_is_named_by_its_class() -> None:
    layer, x = nn.MultiHeadAttention(16, 2), mx.zeros((1, 4, 16))
    with flash_attention_enabled():
        layer(x, x, x)
    assert list(layer_calls()) == ["MultiHeadAttention"]


def test_a_call_outside_any_module_is_named_by_its_line() -> None:
    q = mx.zeros((1, 1, 4, 8))

    def attend() -> None:
        mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0)

    with flash_attention_enabled():
        attend()
        attend()
    flash_attention(q, q, q, scale=1.0)
    code = attend.__code__
    here = f"{__file__.rpartition('/')[2]}:{code.co_firstlineno + 1} attend"
    names = layer_calls()
    assert names[here] == {"cpu_kernel" if on_cpu else "unfused": 2}
    assert [name.split()[1] for name in names] == [
        "attend",
        "test_a_call_outside_any_module_is_named_by_its_line",
    ]


def test_a_model_built_again_goes_on_counting() -> None:
    x = mx.zeros((1, 4, 16))
    with flash_attention_enabled():
        for _ in range(3):
            nn.TransformerEncoder(1, 16, 2)(x, None)
        kept = [nn.TransformerEncoder(1, 16, 2) for _ in range(2)]
        for encoder in kept:
            encoder(x, None)
    assert [layer["calls"] for layer in report().as_dict()["layers"]] == [4, 1]


@cpu_only
def test_summary_is_readable() -> None:
    layer, x = nn.MultiHeadAttention(16, 2), mx.zeros((1, 4, 16))
    with flash_attention_enabled():
        layer(x, x, x)
        lines = str(report()).splitlines()
    # Modules that other tests have loaded may have a function that is left alone, which is said.
    lines = [line for line in lines if not line.startswith("left as it is: ")]
    assert lines[0] == "flash attention: 1 attention layer, 1 call: cpu_kernel 1"
    assert lines[1:] == [
        "  prefill or training: 1 layer, 1 call",
        "    cpu_kernel 1: our own kernel for this CPU, where MLX has none",
    ]


def test_compiled_calls_count_when_traced() -> None:
    layer, x = nn.MultiHeadAttention(16, 2), mx.zeros((1, 4, 16))
    compiled = mx.compile(lambda x: layer(x, x, x))
    with flash_attention_enabled():
        for _ in range(3):
            compiled(x)
    assert report().as_dict()["calls"] == 1
