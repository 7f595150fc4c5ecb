"""Which calls MLX runs on fused attention kernels of its own: asked of MLX where the device is this
machine's, read in the tables of its releases where it is another one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..problem import Device, Problem
from . import asked
from .table import FEW_QUERIES, newest, why_not

CUDA_BACKWARD_ROWS = 128  # the fused backward pass takes query lengths in steps of this


def is_fused(problem: Problem, device: Device) -> tuple[bool, str]:
    """Whether MLX has a fused kernel for `problem` and takes it by itself, backward too if it is
    `training`, and the reason in a phrase. A call that ends in an error counts as not fused, see
    `error_of`."""
    if device.backend == "cpu":
        return False, "MLX has no fused kernel on the CPU"
    if problem.softcap is not None:
        return False, "MLX has no fused kernel for softcapped scores"
    error = error_of(problem, device)
    if error is not None:
        return False, f"MLX raises an error for it: {error}"
    if is_chosen(problem, device):
        return True, "MLX has a fused kernel"
    return False, f"MLX has no fused kernel for {_missing(problem, device) or 'such a call'}"


def is_chosen(problem: Problem, device: Device) -> bool:
    """Whether MLX chooses a fused kernel for `problem`, be it for an error."""
    if problem.softcap is not None:
        return False
    chosen = asked.is_fused(problem) if device.here else None
    return _missing(problem, device) is None if chosen is None else chosen


def error_of(problem: Problem, device: Device) -> str | None:
    """What MLX's error says for a gradient that its fused kernels are chosen for and do not have;
    None where there is no such error. It comes when the gradient is computed: this is known from
    the tables alone, the newest for a release that is newer."""
    if not problem.training:
        return None
    for row in newest(device).raises:
        if why_not([row], problem, device) is None:
            return row.error if is_chosen(problem, device) else None
    return None


def is_fused_if_forced(problem: Problem, device: Device) -> bool:
    """Whether MLX has a fused kernel for `problem` that it runs with `force_fused=True` alone: on
    Metal it takes the unfused way for some large head dims, as the faster one."""
    if device.backend == "cpu" or problem.training or problem.softcap is not None:
        return False
    if device.here:
        exists = asked.is_fused_if_forced(problem)
    else:
        exists = why_not(newest(device).forced, problem, device) is None
    return exists and not is_fused(problem, device)[0]


@lru_cache(maxsize=64)
def fused_head_dims(device: Device) -> tuple[int, ...]:
    """The head dims of MLX's fused kernels for many queries of any length and mask, smallest
    first."""
    some = Problem(1, 1, 1, 16, 16, 0, 0, "float16", mask="bool")
    sizes = {size for row in newest(device).fused for pair in row.head_dims or () for size in pair}
    return tuple(
        size
        for size in sorted(sizes)
        if is_fused(replace(some, head_dim=size, value_head_dim=size), device)[0]
    )


def _missing(problem: Problem, device: Device) -> str | None:
    """What MLX has no fused kernel for; None where it has one."""
    table = newest(device)
    forward = why_not(table.fused, problem, device)
    missing = why_not(table.training, problem, device) if problem.training else forward
    if missing is None:
        return None
    only_in_training = problem.training and missing != forward
    if only_in_training and not table.training:
        return "a gradient"
    if problem.query_length <= FEW_QUERIES and missing != "few queries":
        missing += " with few queries"
    return f"a gradient with {missing}" if only_in_training else missing
