"""mlx-lm's continuous batches, prompt caches and speculative decoding: the tokens are those of
MLX's own attention, and what the runtime remembers does not grow with the requests."""

from __future__ import annotations

import copy
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.generate import BatchGenerator, speculative_generate_step
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from batched_requests import Tokens, in_batches, prompts
from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.patching import patch
from mlx_flash_runtime.planning import planner
from model_families import make

# With rotating caches, and with caches that can be trimmed.
FAMILIES = ["gemma3_text", "llama"]


def from_a_kept_cache(model: nn.Module, requests: Tokens) -> Tokens:
    """Several answers after one prompt whose cache is kept, and after less of it."""
    first, *rest = requests
    kept = make_prompt_cache(model)
    mx.eval(model(mx.array([first]), cache=kept))
    shorter = copy.deepcopy(kept)
    if trim_prompt_cache(shorter, 1) == 0:  # a rotating cache that is full
        shorter = kept
    generator = BatchGenerator(model)
    caches = [copy.deepcopy(cache) for cache in (kept, shorter, kept)]
    requested = generator.insert(rest[:3], max_tokens=[5, 6, 7], caches=caches)
    said: dict[int, list[int]] = {request: [] for request in requested}
    while responses := generator.next_generated():
        for response in responses:
            said[response.uid].append(response.token)
    generator.close()
    return list(said.values())


def with_a_draft(model: nn.Module, requests: Tokens) -> Tokens:
    """A draft model that is nearly the model, so that some of its tokens are taken."""
    draft = make("llama")
    draft.update(nn.utils.tree_map(lambda weight: weight * 1.001, draft.parameters()))
    return [
        [
            int(token)
            for token, _, _ in speculative_generate_step(
                mx.array(prompt), model, draft, num_draft_tokens=3, max_tokens=12
            )
        ]
        for prompt in requests
    ]


@pytest.mark.parametrize(
    ("say", "family"),
    [
        *((in_batches, family) for family in FAMILIES),
        *((from_a_kept_cache, family) for family in FAMILIES),
        (with_a_draft, "llama"),
    ],
)
@pytest.mark.parametrize("route", ["", "blockwise"])
def test_tokens_are_those_of_mlx_s_own_attention(
    say: Callable[[nn.Module, Tokens], Tokens],
    family: str,
    route: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, requests = make(family), prompts(7)
    plain = say(model, requests)
    assert len({token for tokens in plain for token in tokens}) > 5
    monkeypatch.setenv("MLX_FLASH_ROUTE", route)
    enable_flash_attention(block_size=8)
    assert say(model, requests) == plain
    told = report().as_dict()
    models = 2 if say is with_a_draft else 1
    assert len(told["layers"]) == models * len(model.layers)
    if route:
        assert route in told["routes"]


def test_nothing_grows_with_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_MOST_PLANS", 100)  # so that few requests suffice
    model = make("gemma3_text")
    requests = prompts(60)
    enable_flash_attention()
    in_batches(model, requests)
    mx.synchronize()
    memory, layers = mx.get_active_memory(), len(report().layers)
    for _ in range(2):
        in_batches(model, requests)
        now = patch.active()
        assert now is not None
        assert len(now.plans) <= 100
    mx.synchronize()
    assert mx.get_active_memory() <= memory * 1.01
    assert len(report().layers) == layers
