"""Which attention calls MLX runs on a fused kernel on this machine's GPU, asked of MLX itself.

MLX decides between its fused kernel and a graph of products and a softmax when a call is made,
before anything is computed. So a call on arrays of zeros, which are never made, tells by the names
of the operations in its graph what this release does on this chip; and the graph of its gradient
tells whether the backward pass is fused, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from typing import Any, TypeVar

import mlx.core as mx

from .. import stock
from ..problem import MaskKind, Problem
from . import gradient

_FUSED, _FUSED_BACKWARD = "ScaledDotProductAttention", "ScaledDotProductAttentionVJP"
_UNFUSED = "Softmax"
_Answer = TypeVar("_Answer")
_CPU = mx.Device(mx.cpu)
_LABEL = re.compile(r'label ="(\w+)"')  # of an operation, in a graph that MLX has drawn


def is_fused(problem: Problem) -> bool | None:
    """Whether MLX takes a fused kernel for `problem` on the default device by itself, backward too
    if it is `training`; whether or not a gradient is traced now. None where its graph can't be
    read."""
    return _is_fused(_as_asked(problem), mx.default_device() == _CPU)


def is_fused_if_forced(problem: Problem) -> bool:
    """Whether MLX has a fused kernel for `problem`, outside of a gradient, that it runs with
    `force_fused=True`. False before that argument came."""
    return _is_fused_if_forced(_as_asked(problem), mx.default_device() == _CPU)


@lru_cache(maxsize=1)
def can_be_read() -> bool:
    """Whether a call's graph tells what MLX does with it, on the default device."""
    some = Problem(1, 1, 1, 16, 16, 64, 64)
    return None not in (is_fused(some), is_fused(replace(some, training=True)))


def _as_asked(problem: Problem) -> Problem:
    """The problem as far as MLX's decision depends on it, so that like ones are asked about once:
    of a mask that it is an array, and of the keys that few queries are decoded from the length to
    a power of two."""
    if problem.has_array_mask:
        kind: MaskKind = "additive" if problem.mask == "additive" else "bool"
        problem = replace(problem, mask=kind, mask_shape=(), structure=None)
    if problem.phase == "decode":
        power = 1 << problem.key_length.bit_length() - 1
        problem = replace(problem, key_length=max(power, problem.query_length))
    return problem


@lru_cache(maxsize=4096)
def _is_fused(problem: Problem, on_cpu: bool) -> bool | None:
    stream = mx.default_stream(mx.default_device())
    try:
        if problem.training:
            names = _names_in_gradient(problem, stream)
        else:
            names = _outside_of_gradients(stream, _names, problem) or set()
    except (RuntimeError, ValueError):  # MLX refuses the call
        return False
    if not names & {_FUSED, _UNFUSED}:
        return None
    return _FUSED in names and (_FUSED_BACKWARD in names or not problem.training)


@lru_cache(maxsize=1024)
def _is_fused_if_forced(problem: Problem, on_cpu: bool) -> bool:
    stream = mx.default_stream(mx.default_device())
    try:
        found = _outside_of_gradients(stream, _attention, problem, force_fused=True)
    except (TypeError, ValueError):  # no such argument, no such kernel
        return False
    return found is not None


def _names(problem: Problem, stream: mx.Stream) -> set[str]:
    """The operations of a call."""
    return _drawn(_attention(problem, stream))


def _names_in_gradient(problem: Problem, stream: mx.Stream) -> set[str]:
    """The operations of a call and of its gradients for queries, keys and values."""

    def attend(*arrays: mx.array) -> mx.array:
        return _attention(problem, stream, arrays)

    towards = _zeros(problem, stream, problem.query_heads, problem.query_length, value=True)
    outputs, gradients = mx.vjp(attend, list(_arrays(problem, stream)), [towards])
    return _drawn(*outputs, *gradients)


def _outside_of_gradients(
    stream: mx.Stream, ask: Callable[..., _Answer], problem: Problem, **more: Any
) -> _Answer | None:
    """The answer of a function that is called outside of the gradient that may be traced now: in a
    thread of its own, since tracing belongs to a thread. None where a gradient is traced even
    there: before 0.32, it belongs to all of them."""
    if gradient.shows() and not gradient.is_traced():
        return ask(problem, stream, **more)

    def ask_in_thread() -> _Answer | None:
        return None if gradient.is_traced(stream) else ask(problem, stream, **more)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(ask_in_thread).result()


def _drawn(*outputs: mx.array) -> set[str]:
    """The names of the operations that lead to `outputs`; none where MLX does not draw them."""
    text = StringIO()
    try:
        mx.export_to_dot(text, *outputs)
    except (AttributeError, TypeError):  # another release's
        return set()
    return set(_LABEL.findall(text.getvalue()))


def _attention(
    problem: Problem,
    stream: mx.Stream,
    arrays: Sequence[mx.array] | None = None,
    **options: bool,
) -> mx.array:
    """A call of MLX's own function, on zeros unless `arrays` are given."""
    q, k, v = _arrays(problem, stream) if arrays is None else arrays
    dtype = getattr(mx, problem.dtype)
    mask: Any = None if problem.mask == "none" else "causal"
    if problem.has_array_mask:
        kind = dtype if problem.mask == "additive" else mx.bool_
        mask = mx.zeros((problem.query_length, problem.key_length), kind, stream=stream)
    sinks = mx.zeros((problem.query_heads,), dtype, stream=stream) if problem.sinks else None
    return stock.attention(q, k, v, scale=1.0, mask=mask, sinks=sinks, stream=stream, **options)


def _arrays(problem: Problem, stream: mx.Stream) -> tuple[mx.array, mx.array, mx.array]:
    """Queries, keys and values of zeros."""
    p = problem
    q = _zeros(p, stream, p.query_heads, p.query_length)
    k = _zeros(p, stream, p.key_heads, p.key_length)
    return q, k, _zeros(p, stream, p.key_heads, p.key_length, value=True)


def _zeros(
    problem: Problem, stream: mx.Stream, heads: int, length: int, value: bool = False
) -> mx.array:
    size = problem.value_head_dim if value else problem.head_dim
    shape = (problem.batch, heads, length, size)
    return mx.zeros(shape, getattr(mx, problem.dtype), stream=stream)
