"""Our own kernel for the CPU, in C++: `kernels/cpu`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import mlx.core as mx

from .. import stock
from ..kernels.cpu import library
from ..problem import Device, Launch, Problem
from ..problem.masks import Causal, Prefix, Segments, Structure, Window
from .route import Route

# A window, prefix and starts of documents, as `Structure` in `primitive.h` has them.
Visible = tuple[int, int, list[int]]

_NO_WINDOW = 2**31 - 1
# Floating point operations of one call: a millisecond of MLX's unfused attention (Linux wheel).
_PRODUCTS_WORTH_A_BUILD = 2e6
_FEW_KEYS = 2


class CpuKernel(Route):
    """One operation of MLX, with a gradient that recomputes the scores."""

    name = "cpu_kernel"
    judges_the_rest = True  # of types; another device there is none where it is found by less

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any problem, on a CPU that the kernel is built for."""
        if device.backend != "cpu":
            return False, "this kernel is for the CPU"
        if not device.own_kernel:
            return False, "the CPU kernel is not built (mlx-flash doctor --build)"
        return True, "our own kernel for this CPU, where MLX has none"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """For more keys than two: MLX's unfused attention and blocks of its operations are slower
        at every size that was measured (benchmarks/cpu_kernel.py); one query on 16 to 64 keys, on
        which threads would lose time, takes 0.3 to 0.9 of MLX's time. With fewer, as for the
        frames of a still picture, a gradient is slower here: 0.6x with one key, 0.8x with two."""
        if problem.key_length <= _FEW_KEYS and problem.softcap is None:
            return False, "so few keys are no work for a kernel"
        return True, "nothing else is as fast on the CPU"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """Two numbers per query."""
        return 2 * 4 * problem.batch * problem.query_heads * problem.query_length

    def prepare(self, problem: Problem, device: Device, then: Callable[[], None]) -> None:
        """Has the kernel built where it is missing."""
        if is_missed(problem, device):
            library.want(then)

    def launch(
        self,
        problem: Problem,
        device: Device,
        block_size: int | None,
        in_gradient: Callable[[], Launch] | None = None,
    ) -> Launch:
        """The kernel, without a `Call`: short calls on a CPU take microseconds. What it is not for
        (other types, a scale that is no number) goes to MLX, which words the error."""
        visible, softcap = _visible(problem.visible), problem.softcap
        takes_mask = problem.has_array_mask and visible is None

        def run(q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
            array = mask if takes_mask else None
            try:
                return library.attention(q, k, v, scale, softcap, array, sinks, visible)
            except (TypeError, ValueError):
                return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)

        return run


def is_missed(problem: Problem, device: Device) -> bool:
    """Whether the kernel is worth a build that it does not have yet: not for a script of toy
    sizes."""
    products = 2 * problem.score_count * (problem.head_dim + problem.value_head_dim)
    is_absent = device.backend == "cpu" and not device.own_kernel
    return is_absent and products >= _PRODUCTS_WORTH_A_BUILD


def _visible(structure: Structure | None) -> Visible | None:
    """What the mask shows, where its structure says it."""
    match structure:
        case None:
            return None
        case Causal():
            return _NO_WINDOW, 0, []
        case Window(size):
            return size, 0, []
        case Prefix(length):
            return _NO_WINDOW, length, []
        case Segments(lengths):
            return _NO_WINDOW, 0, [0, *accumulate(lengths)]


cpu_kernel = CpuKernel()
