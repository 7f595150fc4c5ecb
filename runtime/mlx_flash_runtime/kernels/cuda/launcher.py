"""The CUDA kernel for one problem, launched again and again.

`mx.compile` makes the launch: what it replays costs a third of what describing a kernel costs in
Python. It also tells whether the arrays are those of a transformation (vmap, which no custom kernel
has, a gradient, a compilation): it then runs the Python function itself, each time, as it does else
only for the first call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx

from ... import stock
from ...problem import Problem
from ...stock import gradient
from . import kernel


class Launcher:
    """The kernel for calls of `problem` on a GPU of compute capability `capability`, as a function
    of MLX's own arguments.

    MLX's own attention runs instead inside the user's transformations, on the CPU where that is the
    default device, and where the kernel does not compile. `in_gradient` is called when a call turns
    out to be part of a gradient, which the kernel has none of.
    """

    def __init__(
        self,
        problem: Problem,
        capability: tuple[int, int],
        in_gradient: Callable[[], None] | None = None,
    ) -> None:
        self._problem = problem
        self._capability = capability
        self._in_gradient = in_gradient
        # Of each thread, as compiled functions are.
        self._of_thread = threading.local()

    def __call__(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: Any, sinks: Any
    ) -> mx.array:
        """The attention, `[batch, query_heads, query_length, value_head_dim]`."""
        replay = self._replay()
        if replay is not None:
            arrays = [q, k, v, scale_array(scale)]
            if self._problem.has_array_mask:
                arrays.append(mask)
            if sinks is not None:
                arrays.append(sinks)
            out = replay(arrays)
            if out is not None:
                return out
            if self._in_gradient is not None and gradient.is_traced():
                self._in_gradient()
        return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)

    def _replay(self) -> _Replay | None:
        """That of this thread and its default stream: what is compiled stays on the stream of its
        first call. None where the kernel can't run."""
        device = mx.default_device()
        stream = mx.default_stream(device)
        try:
            replays: list[tuple[mx.Stream, _Replay | None]] = self._of_thread.replays
        except AttributeError:
            replays = self._of_thread.replays = []
        for own, replay in replays:  # a list, as streams that are equal have different hashes
            if own == stream:
                return replay
        on_gpu = device.type == mx.DeviceType.gpu or not mx.cuda.is_available()
        found = None
        if on_gpu and kernel.is_there(self._problem, self._capability):
            found = _Replay(self._problem, self._capability)
        replays.append((stream, found))
        return found


class _Replay:
    """The kernel through `mx.compile`, on one stream and in one thread."""

    def __init__(self, problem: Problem, capability: tuple[int, int]) -> None:
        self._was_replayed = False
        self._ran_python = False

        def described(*arrays: mx.array) -> mx.array:
            self._ran_python = True
            return kernel.attention(problem, capability, arrays)

        self._compiled = mx.compile(described)

    def __call__(self, arrays: list[mx.array]) -> mx.array | None:
        """The attention; None inside a transformation of the user's."""
        for _ in range(1 if self._was_replayed else 2):
            self._ran_python = False
            out: mx.array = self._compiled(*arrays)
            if not self._ran_python:
                self._was_replayed = True
                return out
        return None


@lru_cache(maxsize=64)
def scale_array(scale: float) -> mx.array:
    """The scale as the kernel reads it: evaluated, and the same array for every call."""
    array = mx.array([scale], mx.float32)
    mx.eval(array)
    return array
