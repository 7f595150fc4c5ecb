"""The work of the workflows, on mlx-lm's own code: its loss, LoRA layers, evaluation, generation
and batches.

Each workload is prepared for one model and one length, and then runs once per call. Prompts and
data are random tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn

from .models import Model

TRAINING = ("lora", "qlora", "full")
WORKFLOWS = (*TRAINING, "chat", "batch", "evaluate")

_LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0}
_LEARNING_RATE = 1e-5
_EVALUATED_BATCHES = 2


class Sizes(NamedTuple):
    """`length`: tokens of a training row, of a prompt, of an evaluated text; `new_tokens`: of a
    reply."""

    length: int
    batch: int
    new_tokens: int


class Run(NamedTuple):
    """Seconds of one run, and until the first token of a reply."""

    seconds: float
    first_token: float | None = None


Work = Callable[[], Run]

nn: Any = mlx.nn  # whose stubs do not export all of it


def adapt(model: Model, workflow: str, checkpoint: bool) -> None:
    """Makes the model what the workflow works on: quantized, with LoRA layers, with its weights
    unfrozen. With `checkpoint`, activations are computed again in the backward pass."""
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.utils import linear_to_lora_layers

    module = model.module
    if workflow == "qlora" and not model.quantized:
        nn.quantize(module, group_size=32 if model.head_dim == 32 else 64, bits=4)
    if workflow in ("lora", "qlora"):
        module.freeze()
        linear_to_lora_layers(module, model.layers, _LORA)
    elif workflow == "full":
        module.unfreeze()
    if checkpoint and workflow in TRAINING:
        checkpoint_layers: Any = trainer.grad_checkpoint
        checkpoint_layers(module.layers[0])
    mx.eval(module.parameters())


def prepare(model: Model, workflow: str, sizes: Sizes) -> Callable[[], Work]:
    """A function that makes the work, to be called once for each kind of attention: a training
    step is compiled with the attention that is in place when it first runs."""
    if workflow in TRAINING:
        return _training(model, sizes)
    if workflow == "chat":
        return lambda: _chat(model, sizes)
    work: Work = partial({"batch": _batch, "evaluate": _evaluate}[workflow], model, sizes)
    return lambda: work


def tokens_of(workflow: str, sizes: Sizes) -> int:
    """Tokens that one run counts: trained or evaluated ones, or those of the replies."""
    if workflow in TRAINING:
        return sizes.batch * sizes.length
    if workflow == "evaluate":
        return _EVALUATED_BATCHES * sizes.batch * sizes.length
    return sizes.new_tokens * (sizes.batch if workflow == "batch" else 1)


def random_tokens(model: Model, *shape: int) -> mx.array:
    """Token ids, the same on every call."""
    return mx.random.randint(0, model.vocabulary, shape, key=mx.random.key(0))


def _training(model: Model, sizes: Sizes) -> Callable[[], Work]:
    """A step of mlx-lm's trainer: its loss and its way of compiling, with Adam."""
    from mlx import optimizers
    from mlx_lm.tuner.trainer import default_loss

    module = model.module
    optimizer = optimizers.Adam(learning_rate=_LEARNING_RATE)
    optimizer.init(module.trainable_parameters())
    tokens = random_tokens(model, sizes.batch, sizes.length + 1)
    lengths = mx.array([[0, sizes.length + 1]] * sizes.batch)
    state = [module.state, optimizer.state, mx.random.state]
    mx.eval(tokens, lengths, state)

    def make() -> Work:
        loss_and_gradient = nn.value_and_grad(module, default_loss)

        @partial(mx.compile, inputs=state, outputs=state)
        def step(tokens: mx.array, lengths: mx.array) -> mx.array:
            loss: mx.array
            (loss, _), gradient = loss_and_gradient(module, tokens, lengths)
            optimizer.update(module, gradient)
            return loss

        def work() -> Run:
            module.train()
            start = time.perf_counter()
            mx.eval(state, step(tokens, lengths))
            mx.synchronize()
            return Run(time.perf_counter() - start)

        return work

    return make


def _evaluate(model: Model, sizes: Sizes) -> Run:
    from mlx_lm.tuner.trainer import evaluate

    rows: Any = random_tokens(model, _EVALUATED_BATCHES * sizes.batch, sizes.length).tolist()
    start = time.perf_counter()
    evaluate(
        model.module, [(row, 0) for row in rows], sizes.batch, -1, max_seq_length=sizes.length + 1
    )
    return Run(time.perf_counter() - start)


def _chat(model: Model, sizes: Sizes) -> Work:
    """A reply to a prompt, greedy, of a length that this process had no prompt of before."""
    from mlx_lm.generate import generate_step

    tokens = random_tokens(model, sizes.length)
    lengths = _prompt_lengths(sizes.length)

    def work() -> Run:
        model.module.eval()
        prompt = tokens[: max(1, next(lengths))]
        mx.eval(prompt)
        start = time.perf_counter()
        first = None
        for _ in generate_step(prompt, model.module, max_tokens=sizes.new_tokens):
            first = first or time.perf_counter() - start
        mx.synchronize()
        return Run(time.perf_counter() - start, first)

    return work


@cache
def _prompt_lengths(longest: int) -> Iterator[int]:
    """Those of all prompts of up to `longest` tokens in this process, each a token shorter than the
    one before, as no two turns of a chat have one length: what MLX does once for a length is then
    part of every run, whatever ran before it and with which attention."""
    return count(longest, -1)


def _batch(model: Model, sizes: Sizes) -> Run:
    """Replies to prompts of different lengths, from half of `length` up to it, at once."""
    from mlx_lm.generate import BatchGenerator

    model.module.eval()
    shortest, others = sizes.length // 2, max(1, sizes.batch - 1)
    tokens: Any = random_tokens(model, sizes.length).tolist()
    prompts = [tokens[: sizes.length - i * shortest // others] for i in range(sizes.batch)]
    start = time.perf_counter()
    first = None
    generator: Any = BatchGenerator(model.module, max_tokens=sizes.new_tokens)
    generator.insert(prompts)
    running = sizes.batch
    while running:
        replies = generator.next_generated()
        first = first or time.perf_counter() - start
        running -= sum(reply.finish_reason is not None for reply in replies)
    generator.close()
    mx.synchronize()
    return Run(time.perf_counter() - start, first)
