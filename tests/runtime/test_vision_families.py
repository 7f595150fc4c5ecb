"""Families of mlx-vlm with an image in the prompt, with every kind of cache, against MLX's own
attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import model_runs
import pytest
from arithmetic import agree
from backends import skipped_where_mlx_lacks_it
from model_runs import Answers

from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.patching import mla, originals
from mlx_flash_runtime.planning.layers import forget
from mlx_flash_runtime.problem.masks import Causal, Window, structure_of
from mlx_flash_runtime.routes import ROUTES
from vision_configurations import FAMILIES
from vision_families import make, prompt, read

pytest.importorskip("mlx_vlm", reason="mlx-vlm is not installed: make test GROUPS='dev vision'")
from mlx_vlm.generate import maybe_quantize_kv_cache
from mlx_vlm.models import base
from mlx_vlm.models import cache as kinds
from mlx_vlm.models.cache import KVCache, RotatingKVCache, make_prompt_cache
from mlx_vlm.models.deepseek_v3 import language as deepseek_v3
from mlx_vlm.models.gemma3n import vision as gemma3n

OWN_ROUTES = [
    route.name for route in ROUTES if route.name not in ("native", "forced", "unfused", "reference")
]
# Attention that is written out, or MLX's own at once, takes no quantized keys.
WITHOUT_QUANTIZED = {"paligemma: gemma2", "phi4mm"}


def inputs(family: str) -> dict[str, Any]:
    """The prompt; for Gemma 3n with what its tower saw, which takes a CPU ten seconds an image: the
    tower's attention is run below."""
    seen = mx.random.normal((1, 256, 128), key=mx.random.key(2))
    return {**prompt(family), **({"cached_image_features": seen} if family == "gemma3n" else {})}


def answer(
    model: nn.Module, family: str, cache: list[Any], finish: Callable[[], None] = lambda: None
) -> mx.array:
    """Logits of the prompt with its image, `finish`, and logits of three more tokens."""
    logits = [read(model, cache, **inputs(family))]
    finish()
    logits += [model.language_model(mx.array([[n]]), cache=cache).logits for n in (3, 5, 4)]
    return mx.concatenate(logits, axis=1)


def standard(model: nn.Module, family: str) -> Answers:
    """The model's own caches, and where it lets the user choose, rotating ones everywhere."""
    language = model.language_model
    answers = {"standard": answer(model, family, make_prompt_cache(language))}
    if not hasattr(language, "make_cache"):
        limited = make_prompt_cache(language, max_kv_size=12)
        answers["rotating"] = answer(model, family, limited)
    return answers


def quantize(cache: list[Any], bits: float, scheme: str) -> None:
    maybe_quantize_kv_cache(
        cache, quantized_kv_start=0, kv_group_size=32, kv_bits=bits, kv_quant_scheme=scheme
    )


def quantized(model: nn.Module, family: str) -> Answers:
    """Caches quantized after the prompt."""
    cache = make_prompt_cache(model.language_model)
    return {"uniform": answer(model, family, cache, lambda: quantize(cache, 8, "uniform"))}


def is_quantized(family: str) -> bool:
    """Whether mlx-vlm quantizes its caches: not rotating ones, and not where attention is written
    out."""
    caches = make_prompt_cache(make(family).language_model)
    rotates = any(isinstance(layer, RotatingKVCache) for layer in caches)
    return not rotates and family not in WITHOUT_QUANTIZED


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Of mlx-vlm's functions: a compiled one keeps the attention that it was traced with."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize(
    ("run", "family"),
    [
        *((standard, family) for family in FAMILIES),
        *((quantized, family) for family in FAMILIES if is_quantized(family)),
    ],
)
def test_logits_on_every_route(
    run: Callable[[nn.Module, str], Answers], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(family)
    with model_runs.same_quantization() as again:
        with skipped_where_mlx_lacks_it():
            plain = run(model, family)
            mx.eval(plain)
        again()
        with model_runs.rounded(model, 0):
            near = run(model, family)
            mx.eval(near)
        ran: set[str] = set()
        for route in OWN_ROUTES:
            again()
            forget()
            monkeypatch.setenv("MLX_FLASH_ROUTE", route)
            enable_flash_attention(block_size=8)
            own = run(model, family)
            if route in report().as_dict()["routes"]:  # else there is nothing new to compute
                ran.add(route)
                model_runs.assert_within_rounding(own, plain, [near])
    assert ran


@pytest.mark.parametrize(("heads", "head_dim", "stride"), [(12, 64, 2), (16, 96, 1)])
def test_the_attention_of_gemma_3n_s_tower(
    heads: int, head_dim: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx.random.seed(0)
    tower = gemma3n.MobileAttention(
        64, 64, num_heads=heads, key_dim=head_dim, value_dim=head_dim, kv_stride=stride
    )
    tower.layer_scale.gamma = mx.ones((64,))
    image = mx.random.normal((2, 16, 16, 64))
    plain = tower(image)
    assert mx.abs(plain - image).max() > 0.1
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    enable_flash_attention(block_size=8)
    assert agree(tower(image), plain, rtol=1e-5, atol=1e-5)
    assert report().as_dict()["routes"].keys() == {"blockwise"}


def test_a_cache_of_mlx_vlm_s_own_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llava")

    def decoded() -> mx.array:
        cache = make_prompt_cache(model.language_model)
        read(model, cache, **prompt("llava"))
        quantize(cache, 4, "turboquant")
        monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
        if is_patched:
            enable_flash_attention(block_size=8)
        return model.language_model(mx.array([[3]]), cache=cache).logits

    is_patched = False
    plain = decoded()
    is_patched = True
    own = decoded()
    assert agree(own, plain, rtol=1e-5, atol=1e-5)
    # mlx-vlm dequantizes for MLX's function where it has no kernel of its own, as on the CPU.
    assert "quantized" not in report().as_dict()["routes"]


PADDING = [0, 5]  # on the left of two prompts in a batch
OTHER_CACHES: dict[str, Callable[[], Any]] = {
    "concatenated": kinds.ConcatenateKVCache,
    "in chunks": lambda: kinds.ChunkedKVCache(64),
    "rotating with a buffer": lambda: kinds.BufferedRotatingKVCache(12),
    "batch": lambda: kinds.BatchKVCache(PADDING),
    "rotating batch": lambda: kinds.BatchRotatingKVCache(12, PADDING),
    "quantized batch": lambda: kinds.BatchQuantizedKVCache(PADDING, group_size=32),
}


@pytest.mark.parametrize("route", ["", "blockwise"])
@pytest.mark.parametrize("kind", OTHER_CACHES)
def test_logits_with_other_caches(kind: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "unrecognised", {})
    language = make("llava").language_model

    def logits() -> Answers:
        cache = [OTHER_CACHES[kind]() for _ in language.layers]
        pieces = mx.split(model_runs.tokens(50).reshape(2, 25), [16, 23, 24], axis=1)
        both = mx.concatenate([language(piece, cache=cache).logits for piece in pieces], axis=1)
        # What the padding becomes is nobody's business.
        return {"first": both[0], "second": both[1, PADDING[1] :]}

    with model_runs.same_quantization() as again:
        with skipped_where_mlx_lacks_it():
            plain = logits()
            mx.eval(plain)
        again()
        with model_runs.rounded(language, 0):
            near = logits()
            mx.eval(near)
        again()
        monkeypatch.setenv("MLX_FLASH_ROUTE", route)
        enable_flash_attention(block_size=8)
        model_runs.assert_within_rounding(logits(), plain, [near])
    told = report().as_dict()
    # Few queries on a quantized cache are left to mlx-vlm.
    pieces = 1 if kind == "quantized batch" else 4
    assert told["calls"] == pieces * len(language.layers)
    assert not told["unrecognised"]


def test_masks_made_by_mlx_vlm_keep_their_structure() -> None:
    x = mx.zeros((1, 20, 8))
    assert structure_of(base.create_attention_mask(x, return_array=True), 20, 20) is None
    enable_flash_attention()
    made = base.create_attention_mask(x, return_array=True)
    assert structure_of(made, 20, 20) == Causal()
    made = base.create_attention_mask(x, window_size=7)
    assert structure_of(made, 20, 20) == Window(7)
    keys = mx.zeros((1, 1, 30, 4))
    for kept, wanted in ((KVCache(), Causal()), (RotatingKVCache(max_size=12), Window(12))):
        kept.update_and_fetch(keys, keys)
        mask = base.create_attention_mask(x[:, :5], kept, return_array=True)
        seen, _ = kept.update_and_fetch(keys[:, :, :5], keys[:, :, :5])
        assert structure_of(mask, 5, seen.shape[2]) == wanted


def test_rope_scores_are_recognised_in_mlx_vlm() -> None:
    layer = deepseek_v3.DeepseekV3Attention
    names = mla._names(layer.__call__.__code__)
    assert names is not None
    assert names[0] == "pe_scores"


def test_what_mlx_vlm_writes_out_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "unrecognised", {})
    enable_flash_attention()
    make("paligemma: gemma2").language_model(mx.array([[3]]))
    unrecognised = report().as_dict()["unrecognised"]
    assert unrecognised == ["mlx_vlm.models.paligemma.language.Attention.__call__"]
