"""What is patched besides MLX's attention, the makers of masks among it, and put back."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import base, cache, deepseek_v3, gemma2
from mlx_lm.models.cache import KVCache, RotatingKVCache

from mlx_flash_runtime import (
    disable_flash_attention,
    enable_flash_attention,
    flash_attention_enabled,
)
from mlx_flash_runtime.problem.masks import Causal, Window, structure_of

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
    make_mask: Callable[[int], mx.array],
    monkeypatch: pytest.MonkeyPatch,
    watch_mlx: Callable[[Callable[..., None]], None],
) -> None:
    plain, masks = make_mask(20), []
    q, k, v = (
        mx.random.normal((1, 2, 20, 16), plain.dtype, key=mx.random.key(i)) for i in (1, 2, 3)
    )
    wanted = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=plain)
    watch_mlx(lambda *_, mask, **__: masks.append(mask))
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
