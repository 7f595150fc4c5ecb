"""The memory of MLX's unfused attention."""

from __future__ import annotations

from ..problem import Device, Problem

# Above this share of the memory the scores of one call do not fit next to everything else. A Mac's
# memory is the programs' as well as the GPU's, and models are chosen to fill it: a prefill of
# 32,768 tokens at head dim 256 was reported to end in an error on one of 128 GiB, by 16 GiB of
# scores and their softmax (MLX's pull request 3293).
_MEMORY_SHARE = {"metal": 1 / 10, "cuda": 1 / 4, "cpu": 1 / 4}


def scores_fit(problem: Problem, device: Device) -> bool:
    """Whether the scores of MLX's unfused attention fit in memory next to everything else, and in
    one array."""
    largest = device.largest_array
    if largest is not None and problem.item_bytes * problem.score_count > largest:
        return False
    return unfused_memory(problem) <= _MEMORY_SHARE[device.backend] * device.memory


def unfused_memory(problem: Problem) -> int:
    """Bytes of MLX's unfused forward pass at its peak, beyond inputs and output: the scores and
    their softmax."""
    return 2 * problem.item_bytes * problem.score_count
