"""The memory of MLX's unfused attention."""

from __future__ import annotations

from ..problem import Device, Problem

# Above this share of the memory the scores of one call do not fit next to everything else.
_MEMORY_SHARE = 1 / 4


def scores_fit(problem: Problem, device: Device) -> bool:
    """Whether the scores of MLX's unfused attention fit in memory next to everything else."""
    return unfused_memory(problem) <= _MEMORY_SHARE * device.memory


def unfused_memory(problem: Problem) -> int:
    """Bytes of MLX's unfused forward pass at its peak, beyond inputs and output: the scores and
    their softmax."""
    return 2 * problem.item_bytes * problem.score_count
