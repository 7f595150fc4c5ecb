"""The tiny models load like real ones, and their greedy tokens do not hang on the last digits of a
logit."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm import load
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache
from scripts import PROMPTS

from tiny_models import make_models


@pytest.mark.parametrize(("name", "head_dim"), [("llama", 32), ("gemma", 256)])
def test_shapes(models: Path, name: str, head_dim: int) -> None:
    model, _ = load(str(models / name))
    attention = model.layers[0].self_attn
    assert attention.q_proj.weight.shape[0] // attention.n_heads == head_dim
    assert attention.n_kv_heads < attention.n_heads


def test_gemma_has_a_sliding_window(models: Path) -> None:
    model, _ = load(str(models / "gemma"))
    assert any(isinstance(cache, RotatingKVCache) for cache in make_prompt_cache(model))


def test_tokenizer_round_trip(models: Path) -> None:
    _, tokenizer = load(str(models / "llama"))
    text = "The captain paints über den Wolken, 7 times.\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", ["llama", "gemma"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_steps_are_no_near_ties(models: Path, name: str, prompt: str) -> None:
    model, tokenizer = load(str(models / name))
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True
    )
    steps = list(generate_step(mx.array(tokens), model, max_tokens=24))
    gaps = [mx.diff(mx.sort(logprobs)[-2:]).item() for _, logprobs in steps]
    assert min(gaps) > 1e-2
    assert len(steps) == 24
    assert len({token for token, _ in steps}) > 8


def test_the_same_call_gives_the_same_files(models: Path, tmp_path: Path) -> None:
    make_models(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        assert (tmp_path / file).read_bytes() == (models / file).read_bytes(), file
