"""Which attention kernels of MLX answer on this machine, asked of MLX itself and held against
`fused`.

With `force_fused=True` MLX refuses a call that it has no fused kernel for, when the call is made
and before anything is computed. Inside a gradient it answers for the forward kernel that keeps
what the fused backward pass needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from .. import stock
from ..problem import Device, Phase, Problem
from . import gradient
from .fused import CUDA_BACKWARD_ROWS, is_fused, is_fused_if_forced

HEAD_DIMS = (32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256)
DTYPES = ("float32", "float16", "bfloat16")
ASKED_PHASES: tuple[Phase, ...] = ("prefill", "decode", "training")
# Keys, and the queries of prefill and training: the length that CUDA's backward pass takes.
_LENGTH = CUDA_BACKWARD_ROWS


@dataclass(frozen=True)
class Answer:
    """Whether MLX has a fused kernel for causal attention of this kind, by MLX's answer and by
    this package's table."""

    phase: Phase
    dtype: str
    head_dim: int
    fused: bool
    expected: bool


def answers(device: Device) -> Iterator[Answer]:
    """MLX's answers for every head dim, type and phase; of training only where MLX tells it apart.
    Nothing is computed.

    `device` is the current one. Raises Unanswered on a release of MLX without `force_fused`.
    """
    for phase in ASKED_PHASES:
        if phase == "training" and not gradient.shows():
            continue
        for dtype in DTYPES:
            for head_dim in HEAD_DIMS:
                problem = _problem(phase, dtype, head_dim)
                expected = is_fused(problem, device)[0] or is_fused_if_forced(problem, device)
                yield Answer(phase, dtype, head_dim, _is_fused(problem), expected)


class Unanswered(Exception):
    """This MLX cannot be asked."""


def _problem(phase: Phase, dtype: str, head_dim: int) -> Problem:
    queries = 1 if phase == "decode" else _LENGTH
    training = phase == "training"
    return Problem(
        1, 4, 2, queries, _LENGTH, head_dim, head_dim, dtype=dtype, mask="causal", training=training
    )


def _is_fused(problem: Problem) -> bool:
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    q = mx.zeros((1, problem.query_heads, problem.query_length, problem.head_dim), dtype)
    k = mx.zeros((1, problem.key_heads, problem.key_length, problem.head_dim), dtype)
    answer: list[bool] = []

    def ask(q: mx.array) -> mx.array:
        answer.append(_answer(q, k))
        return q.sum()

    if problem.training:
        mx.grad(ask)(q)
    else:
        ask(q)
    return answer[0]


def _answer(q: mx.array, k: mx.array) -> bool:
    try:
        stock.attention(q, k, k, scale=1.0, mask="causal", force_fused=True)
    except ValueError:
        return False
    except TypeError as error:  # a release before that argument
        raise Unanswered(
            "this release of MLX cannot be asked for its fused kernels (0.32.2 can)"
        ) from error
    return True
