"""Our own kernel for the CPU, in C++: `kernels/cpu`."""

from __future__ import annotations

from itertools import accumulate

import mlx.core as mx

from ..kernels.cpu import library
from ..masks import Causal, Prefix, Segments, Structure, Window
from ..problem import Call, Device, Problem

NAME = "cpu_kernel"

_NO_WINDOW = 2**31 - 1
# Floating point operations of one call: a millisecond of MLX's unfused attention (Linux wheel).
_PRODUCTS_WORTH_A_BUILD = 2e6
_FEW_KEYS = 2


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any problem, on a CPU that the kernel is built for."""
    if device.backend != "cpu":
        return False, "this kernel is for the CPU"
    if not device.own_kernel:
        return False, "the CPU kernel is not built (mlx-flash doctor --build)"
    return True, "our own kernel for this CPU, where MLX has none"


def is_missed(problem: Problem, device: Device) -> bool:
    """Whether the kernel is worth a build that it does not have yet: not for a script of toy sizes."""
    products = 2 * problem.score_count * (problem.head_dim + problem.value_head_dim)
    return device.backend == "cpu" and not device.own_kernel and products >= _PRODUCTS_WORTH_A_BUILD


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """For more keys than two: MLX's unfused attention and blocks of its operations are slower at every size that was
    measured (benchmarks/cpu_kernel.py). With fewer, as for the frames of a still picture, a gradient is slower here:
    0.6x with one key, 0.8x with two."""
    if problem.key_length <= _FEW_KEYS and problem.softcap is None:
        return False, "so few keys are no work for a kernel"
    return True, "nothing else is as fast on the CPU"


def block_size(problem: Problem, device: Device) -> int | None:
    """None: its blocks are those of the machine's caches."""
    return None


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Two numbers per query."""
    return 2 * 4 * problem.batch * problem.query_heads * problem.query_length


def run(call: Call, block_size: int | None) -> mx.array:
    """One operation of MLX, with a gradient that recomputes the scores."""
    problem = call.problem
    structure = Causal() if problem.mask == "causal" else problem.structure
    visible = None if structure is None else _visible(structure)
    mask = None if visible else call.mask
    return library.attention(call.q, call.k, call.v, call.scale, problem.softcap, mask, call.sinks, visible)


def _visible(structure: Structure) -> tuple[int, int, list[int]]:
    """Window, prefix and starts of documents, as `Structure` in `primitive.h` has them."""
    match structure:
        case Causal():
            return _NO_WINDOW, 0, []
        case Window(size):
            return size, 0, []
        case Prefix(length):
            return _NO_WINDOW, length, []
        case Segments(lengths):
            return _NO_WINDOW, 0, [0, *accumulate(lengths)]
