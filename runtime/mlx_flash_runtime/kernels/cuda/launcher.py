"""The CUDA kernel for one problem, launched again and again.

`mx.compile` makes the launch: what it replays costs a third of what describing a kernel costs in
Python. It also tells whether the arrays are those of a transformation (vmap, which no custom kernel
has, a gradient, a compilation): it then runs the Python function itself, each time, as it does else
only for the first call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import mlx.core as mx

from ... import stock
from ...problem import Launch, Problem, as_float, promoted
from ...stock import gradient
from ..quantization import Bits
from . import attention, few_queries

# The attention of q, k, v, then mask and sinks if any; None where it is not for the kernel.
Replay = Callable[..., "mx.array | None"]


class _OfStream(NamedTuple):
    """The launch of calls on one stream, with one scale."""

    stream: mx.Stream
    scale: float
    replay: Replay | None


# Scales that a thread has launches for at a time; a model has one or two.
_MOST_REPLAYS = 16


class Launcher:
    """The kernel for calls of `problem` on a GPU of compute capability `capability`, as a function
    of MLX's own arguments: `run`.

    MLX's own attention runs instead inside the user's transformations, on the CPU where that is the
    default device, for arrays of other types, and where the kernel does not compile. `in_gradient`
    is called when a call turns out to be part of a gradient, and gives the function for it. With
    `bits` keys and values are quantized, and calls go to `replayed`.
    """

    def __init__(
        self,
        problem: Problem,
        capability: tuple[int, int],
        in_gradient: Callable[[], Launch] | None = None,
        bits: Bits | None = None,
    ) -> None:
        self._problem = problem
        self._capability = capability
        self._in_gradient = in_gradient
        self._bits = bits
        self._takes_mask = problem.has_array_mask
        # Of each thread, as compiled functions are.
        self._of_thread = threading.local()

    def run(self, q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
        """The attention, `[batch, query_heads, query_length, value_head_dim]`."""
        factor = scale if scale.__class__ is float else as_float(scale)
        if factor is not None:
            arrays = [q, k, v]
            if self._takes_mask:
                arrays.append(mask)
            if sinks is not None:
                arrays.append(sinks)
            out = self.replayed(factor, arrays)
            if out is not None:
                return out
            if self._in_gradient is not None and gradient.is_traced():
                return self._in_gradient()(q, k, v, scale=scale, mask=mask, sinks=sinks)
        return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)

    def replayed(self, scale: float, arrays: Sequence[mx.array]) -> mx.array | None:
        """The attention of q, k and v, each three arrays where they are quantized, then mask and
        sinks if any; None where it is not for the kernel."""
        stream = mx.default_stream(mx.default_device())
        # What is compiled stays on the stream of its first call. This is a list, as streams that
        # are equal have different hashes; there is hardly ever more than one.
        replays: list[_OfStream] = getattr(self._of_thread, "replays", [])
        for one in replays:
            if one.scale == scale and one.stream == stream:
                return None if one.replay is None else one.replay(*arrays)
        replay = self._new_replay(stream, scale)
        return None if replay is None else replay(*arrays)

    def _new_replay(self, stream: mx.Stream, scale: float) -> Replay | None:
        """That of this thread for a stream and a scale; None where the kernel can't run."""
        # Without a GPU this is a test, whose kernel is none.
        on_gpu = stream.device.type == mx.DeviceType.gpu or not mx.cuda.is_available()
        replay = None
        if on_gpu and _is_there(self._problem, self._capability, self._bits):
            replay = _replay(self._problem, self._capability, scale, self._bits)
        known = getattr(self._of_thread, "replays", ())
        self._of_thread.replays = [_OfStream(stream, scale, replay), *known][:_MOST_REPLAYS]
        return replay


def _is_there(problem: Problem, capability: tuple[int, int], bits: Bits | None) -> bool:
    if few_queries.is_for(problem):
        return few_queries.is_there(problem, capability, bits)
    return attention.is_there(problem, capability)


def _attention(
    problem: Problem, capability: tuple[int, int], arrays: Sequence[mx.array], bits: Bits | None
) -> mx.array:
    if few_queries.is_for(problem):
        return few_queries.attention(problem, capability, arrays, bits)[0]
    return attention.attention(problem, capability, arrays)[0]


class _NotTheProblem(Exception):
    """The arrays promote to another type than that of the problem, or the values do not match the
    keys."""


def _replay(
    problem: Problem, capability: tuple[int, int], scale: float, bits: Bits | None
) -> Replay:
    """The kernel through `mx.compile`, for one thread, stream and scale."""
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    values = problem.batch, problem.key_heads, problem.key_length, problem.value_head_dim
    was_replayed = ran_python = False

    def described(*arrays: mx.array) -> mx.array:
        nonlocal ran_python
        ran_python = True
        count = 3
        if bits is not None:
            count = 7
        elif promoted(*(x.dtype for x in arrays[:3])) != dtype or arrays[2].shape != values:
            raise _NotTheProblem
        inputs = [*arrays[:count], scale_array(scale), *arrays[count:]]
        return _attention(problem, capability, inputs, bits)

    compiled = mx.compile(described)

    def replay(*arrays: mx.array) -> mx.array | None:
        nonlocal was_replayed, ran_python
        for _ in range(1 if was_replayed else 2):
            ran_python = False
            try:
                out: mx.array = compiled(*arrays)
            except (_NotTheProblem, ValueError):  # or no arrays: MLX's own function says so best
                return None
            if not ran_python:
                was_replayed = True
                return out
        return None

    return replay


@lru_cache(maxsize=64)
def scale_array(scale: float) -> mx.array:
    """The scale as the kernels read it, `[1]`: evaluated, and the same array for every call. It is
    part of a larger one, as MLX keeps an array of up to eight bytes in the host's memory
    (`SmallSizePool` in its sources for CUDA), where all blocks of a kernel would read it, for 2 to
    15 us (H200)."""
    array = mx.full((4,), scale, mx.float32)[:1]
    mx.eval(array)
    return array
