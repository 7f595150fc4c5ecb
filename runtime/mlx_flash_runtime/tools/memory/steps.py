"""The steps of a model's work that need most memory, as mlx-lm does them, by shapes alone: the last
of a long prompt, and a step of training. Needs mlx-lm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn
from mlx.utils import tree_flatten, tree_unflatten

from ...problem import Device
from ...settings import Settings
from ..rehearsal import refusing_to_compute
from .compiled import Pieces, marking
from .evaluation import peak
from .fusion import fused
from .graph import filled_apart, trace
from .in_place import in_place

nn: Any = mlx.nn  # whose stubs do not export all of it
Array = mx.array


@dataclass(frozen=True)
class Generation:
    """How mlx-lm is asked to generate: with a cache of so many bits, of no more than so many
    tokens, the prompt so many tokens at a time."""

    kv_bits: int | None = None
    max_kv_size: int | None = None
    prefill_step_size: int = 2048


@dataclass(frozen=True)
class Need:
    """Bytes of a step: of the weights (in training, with the optimizer's state), of the cache after
    it, and of all else at the peak, where what computes lags behind. Where it keeps up, the peak is
    the `least`."""

    weights: int
    cache: int
    rest: int
    least: int

    @property
    def total(self) -> int:
        """Bytes at the peak, at most."""
        return self.weights + self.cache + self.rest


class Steps:
    """A model's steps on a device, with the runtime under `settings`, or without it for None."""

    def __init__(self, module: Any, device: Device, settings: Settings | None) -> None:
        self.module, self.device, self.settings = module, device, settings

    def generation(self, length: int, batch: int, how: Generation) -> Need:
        """Of the last step of a prompt of `length` tokens, `batch` at once; each token of the reply
        needs less. Raises NotLazy, MlxRaises, NoSuchCache, and whatever the model raises."""
        self.module.eval()
        step = min(how.prefill_step_size, length)
        # What caches hold before the last step depends on the sizes of the one or two before it.
        before = [size for size in (length - 2 * step, step) if size > 0 and length > step]
        return self._last_step(before, step, batch, how)

    def training(self, length: int, batch: int) -> Need:
        """Of a step of mlx-lm's trainer with Adam, on `batch` rows of `length` tokens. What is
        trained is what the module has not frozen. Raises as `generation` does."""
        from mlx import optimizers
        from mlx_lm.tuner.trainer import default_loss

        module = self.module
        module.train()
        optimizer = optimizers.Adam(learning_rate=1e-5)
        optimizer.init(module.trainable_parameters())
        parameters = _flat(module.parameters())
        trained = {name for name, _ in _flat(module.trainable_parameters())}
        frozen = [(name, x) for name, x in parameters if name not in trained]
        kept = [(name, x) for name, x in parameters if name in trained]
        state = _flat(optimizer.state)
        loss_and_gradient = nn.value_and_grad(module, default_loss)

        def step(tokens: Array, lengths: Array, *arrays: Array) -> list[Array]:
            weights = [*frozen, *kept]
            module.update(_unflattened(weights, arrays))
            optimizer.state = _unflattened(state, arrays[len(weights) :])
            (loss, _), gradient = loss_and_gradient(module, tokens, lengths)
            optimizer.update(module, gradient)
            changed = _flat((module.trainable_parameters(), optimizer.state))
            return [loss, *(x for _, x in changed)]

        tokens, lengths = mx.zeros((batch, length + 1), mx.int32), mx.zeros((batch, 2), mx.int32)
        arrays = [x for _, x in (*frozen, *kept, *state)]
        try:
            with in_place(self.device, self.settings, training=True) as stand_ins:
                with refusing_to_compute():
                    graph = trace(step, [tokens, lengths, *arrays])
                graph = stand_ins.put_into(graph)
        finally:
            module.update(tree_unflatten(parameters))
        held = graph.inputs[: 2 + len(frozen)]
        found = peak(fused(graph), graph.inputs[len(held) :], self.device.backend)
        weights = sum(x.nbytes for x in arrays)
        stays = sum(x.nbytes for _, x in frozen)
        return Need(weights, 0, found.most + stays - weights, found.least + stays)

    def _last_step(self, before: Sequence[int], size: int, batch: int, how: Generation) -> Need:
        """Of `size` tokens after steps of so many each."""
        from mlx_lm.models.cache import make_prompt_cache

        module = self.module
        caches = make_prompt_cache(module, how.max_kv_size)
        parameters = _flat(module.parameters())
        shapes: list[tuple[Any, mx.Dtype]] = []
        pieces = Pieces()

        def fill(tokens: Array) -> Array:
            for count in before:
                module(mx.broadcast_to(tokens, (batch, count)), cache=caches)
                _quantize(caches, how)
            shapes.extend((place.array.shape, place.array.dtype) for place in _arrays_of(caches))
            return tokens

        def call(tokens: Array, *arrays: Array) -> list[Array]:
            module.update(_unflattened(parameters, arrays))
            for place, x in zip(_arrays_of(caches), arrays[len(parameters) :], strict=True):
                place.array = x
            module(tokens, cache=caches)
            _quantize(caches, how)
            return [place.array for place in _arrays_of(caches)]

        tokens = mx.zeros((batch, size), mx.int32)
        try:
            with in_place(self.device, self.settings, training=False) as stand_ins:
                with refusing_to_compute(), marking(pieces):
                    mx.compile(fill)(mx.zeros((1, 1), mx.int32))
                    states = [mx.zeros(shape, dtype) for shape, dtype in shapes]
                    graph = trace(call, [tokens, *(x for _, x in parameters), *states])
                graph = filled_apart(pieces.put_into(stand_ins.put_into(graph)))
        finally:
            module.update(tree_unflatten(parameters))
        released = graph.inputs[1 + len(parameters) :]
        weights = sum(x.nbytes for _, x in parameters)
        cache = sum(place.array.nbytes for place in _arrays_of(caches))
        found = peak(graph, released, self.device.backend)
        return Need(weights, cache, found.most - cache, found.least + weights)


class NoSuchCache(Exception):
    """mlx-lm does not keep the model's cache as it is asked for; the message says what."""


@dataclass
class _Place:
    """Where a cache has an array."""

    owner: Any
    key: Any

    @property
    def array(self) -> Array:
        """The array that is there."""
        found: Array = self.owner[self.key]
        return found

    @array.setter
    def array(self, array: Array) -> None:
        self.owner[self.key] = array


def _arrays_of(caches: Sequence[Any]) -> list[_Place]:
    """Where caches of mlx-lm have arrays: in attributes, lists of them, and caches of their own."""
    found: list[_Place] = []
    waiting: list[Any] = [vars(cache) for cache in caches]
    while waiting:
        owner = waiting.pop(0)
        for key in list(owner) if isinstance(owner, dict) else range(len(owner)):
            value = owner[key]
            if isinstance(value, tuple):
                owner[key] = value = list(value)
            if isinstance(value, mx.array):
                found.append(_Place(owner, key))
            elif isinstance(value, (list, dict)):
                waiting.append(value)
            elif hasattr(value, "update_and_fetch"):
                waiting.append(vars(value))
    return found


def _quantize(caches: list[Any], how: Generation) -> None:
    """What mlx-lm does after each step, from the first token on."""
    if how.kv_bits is None:
        return
    for number, cache in enumerate(caches):
        if hasattr(cache, "to_quantized"):
            try:
                caches[number] = cache.to_quantized(group_size=64, bits=how.kv_bits)
            except NotImplementedError:
                raise NoSuchCache(
                    "mlx-lm quantizes no cache that lets go of old tokens: the model has windows, "
                    "or --max-kv-size was given"
                ) from None


def _flat(tree: Any) -> list[tuple[str, Array]]:
    """The arrays of a tree by their names."""
    flat: Any = tree_flatten(tree)
    return list(flat)


def _unflattened(named: Sequence[tuple[str, Array]], arrays: Sequence[Array]) -> Any:
    """A tree with other arrays in the places of the `named` ones."""
    return tree_unflatten([(name, x) for (name, _), x in zip(named, arrays, strict=False)])
