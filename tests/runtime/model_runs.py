"""What the family tests run: a model with each kind of cache, and its LoRA gradients; and how two
runs compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from arithmetic import rounding
from backends import on_cpu
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import maybe_quantize_kv_cache
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from model_families import VOCABULARY

Answers = dict[str, mx.array]
Run = Callable[[nn.Module], Answers]

PREFILL = [16, 8]  # two pieces: the second one meets a cache
DECODE = [1, 1, 1]
LONG = 256  # the length from which the planner leaves MLX's own attention on the CPU
CACHE_LIMIT = 12


def tokens(length: int, start: int = 0) -> mx.array:
    """`[1, length]`, without the pattern repeating."""
    places = mx.arange(start, start + length)
    return ((7 * places + 3 * (places // 5)) % VOCABULARY)[None]


def without_cache(model: nn.Module) -> Answers:
    """A batch of two, as in training."""
    return {"logits": model(mx.concatenate([tokens(24), tokens(24, start=30)]))}


def cached(model: nn.Module) -> Answers:
    """The model's own caches: rotating ones where it has windows; and where it lets the user
    choose, rotating ones everywhere."""
    answers = {"standard": _in_pieces(model, make_prompt_cache(model))}
    if not hasattr(model, "make_cache"):
        answers["rotating"] = _in_pieces(model, make_prompt_cache(model, max_kv_size=CACHE_LIMIT))
    return answers


def quantized(model: nn.Module) -> Answers:
    """Caches quantized after the first piece."""
    cache = make_prompt_cache(model)
    first = model(tokens(PREFILL[0]), cache=cache)
    maybe_quantize_kv_cache(cache, quantized_kv_start=0, kv_group_size=32, kv_bits=8)
    if not any(hasattr(layer, "bits") for layer in cache):
        raise NotImplementedError("nothing to quantize")
    rest = _in_pieces(model, cache, [*PREFILL[1:], *DECODE], start=PREFILL[0])
    return {"logits": mx.concatenate([first, rest], axis=1)}


def batched(model: nn.Module) -> Answers:
    """Two prompts of different lengths, as mlx-lm's BatchGenerator runs them: the first part
    padded on the right, which leaves padding on the left for the second part and for decoding."""
    caches = [make_prompt_cache(model) for _ in range(2)]
    cache = [one.merge([one, other]) for one, other in zip(*caches, strict=True)]
    shorter = mx.pad(tokens(9, start=30), [(0, 0), (0, 5)])
    for layer in cache:
        layer.prepare(lengths=[14, 9], right_padding=[0, 5])
    first = model(mx.concatenate([tokens(14), shorter]), cache=cache)
    for layer in cache:
        layer.finalize()
    second = mx.concatenate([tokens(10, start=14), tokens(10, start=40)])
    pieces = [model(piece, cache=cache) for piece in mx.split(second, [7, 8, 9], axis=1)]
    # What the padding of the first part becomes is nobody's business.
    return {
        "first": first[0],
        "first shorter": first[1, :9],
        "second": mx.concatenate(pieces, axis=1),
    }


def long(model: nn.Module) -> Answers:
    """One prefill."""
    return {"logits": model(tokens(LONG), cache=make_prompt_cache(model))}


def gradients(model: nn.Module) -> Answers:
    """The loss and its gradients by the LoRA weights of a model that `with_lora` has prepared."""
    loss, by_weight = nn.value_and_grad(
        model, lambda inputs, targets: _loss(model, inputs, targets)
    )(tokens(24), tokens(24, start=1))
    return {"loss": loss, **dict(tree_flatten(by_weight))}


def with_lora(model: nn.Module, keys: list[str] | None = None) -> nn.Module:
    """`model` with LoRA on its linear layers, or on those that `keys` names, with random weights
    throughout: mlx-lm starts with zeros, which would hide half of the gradients."""
    model.freeze()
    config: dict[str, Any] = {
        # With 2, MLX 0.32.4 ends in an error on CUDA: it reads matrices of experts by 16 bytes.
        "rank": 2 if on_cpu else 4,
        "scale": 2.0,
        "dropout": 0.0,
        **({"keys": keys} if keys else {}),
    }
    linear_to_lora_layers(model, len(model.layers), config)
    weights = tree_flatten(model.trainable_parameters())
    model.load_weights(
        [(name, 0.1 * mx.random.normal(weight.shape)) for name, weight in weights], strict=False
    )
    return model


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """mlx-lm's gradient checkpoints on the layers, which change their classes."""
    kinds = {type(layer): type(layer).__call__ for layer in model.layers}
    for layer in {type(layer): layer for layer in model.layers}.values():
        grad_checkpoint(layer)
    try:
        yield
    finally:
        for kind, call in kinds.items():
            kind.__call__ = call


@contextmanager
def same_quantization() -> Iterator[Callable[[], None]]:
    """Has later runs quantize to what the first one did; the function that it gives starts the
    next run.

    A rounding error in front of a quantization moves some values by a whole step, which is no
    error of attention.
    """
    original, results = mx.quantize, list[Any]()
    place: int | None = None

    def quantize(*args: Any, **kwargs: Any) -> Any:
        nonlocal place
        if place is None:
            results.append(original(*args, **kwargs))
            return results[-1]
        place += 1
        return results[place - 1]

    def restart() -> None:
        nonlocal place
        place = 0

    mx.quantize = quantize
    try:
        yield restart
    finally:
        mx.quantize = original


@contextmanager
def rounded(model: nn.Module, seed: int) -> Iterator[None]:
    """Every weight one rounding error away, up or down."""
    weights = model.parameters()
    mx.random.seed(seed)
    error = rounding(mx.float32)

    def moved(weight: mx.array) -> mx.array:
        return weight * (1 + error * mx.where(mx.random.bernoulli(shape=weight.shape), 1, -1))

    model.update(tree_map(moved, weights))
    try:
        yield
    finally:
        model.update(weights)


def assert_within_rounding(own: Answers, plain: Answers, neighbours: Iterable[Answers]) -> None:
    """Holds `own` to `plain`: the largest difference may be twice what one rounding error of every
    weight makes (`neighbours`), and one rounding error of the answer counts as well.

    No further neighbour is asked for once the difference is within what those before allow."""
    assert own.keys() == plain.keys()
    for name, wanted in plain.items():
        assert own[name].dtype == wanted.dtype
        assert own[name].shape == wanted.shape
    sizes = _largest_of(plain)
    differences = _differences(own, plain)
    budgets = {name: 2 * rounding(mx.float32) * size for name, size in sizes.items()}
    beyond = _beyond(differences, budgets)
    for neighbour in neighbours:
        if not beyond:
            break
        for name, difference in _differences(neighbour, plain).items():
            budgets[name] = max(budgets[name], 2 * difference)
        beyond = _beyond(differences, budgets)
    assert not beyond, ", ".join(beyond)


def _in_pieces(
    model: nn.Module, cache: list[Any], lengths: list[int] | None = None, start: int = 0
) -> mx.array:
    outputs = []
    for length in lengths or [*PREFILL, *DECODE]:
        outputs.append(model(tokens(length, start), cache=cache))
        start += length
    return mx.concatenate(outputs, axis=1)


def _loss(model: nn.Module, inputs: mx.array, targets: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(inputs), targets).mean()


def _beyond(differences: dict[str, float], budgets: dict[str, float]) -> list[str]:
    """What is not within its budget, not being a number included."""
    return [
        f"{name}: difference {difference:.2e}, budget {budgets[name]:.2e}"
        for name, difference in differences.items()
        if not difference <= budgets[name]
    ]


def _differences(one: Answers, other: Answers) -> dict[str, float]:
    return _largest_of({name: one[name] - value for name, value in other.items()})


def _largest_of(answers: Answers) -> dict[str, float]:
    """The largest absolute value of each, computed at once."""
    largest = {name: mx.abs(answer).max() for name, answer in answers.items()}
    mx.eval(largest)
    return {name: value.item() for name, value in largest.items()}
