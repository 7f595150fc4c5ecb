"""Which calls MLX fuses on this machine, asked of MLX and held against this package's table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...problem import Device, MaskKind, Phase, Problem
from ...stock import asked
from ...stock.fused import is_chosen

HEAD_DIMS = (32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256, 512)
DTYPES = ("float32", "float16", "bfloat16")
PHASES: tuple[Phase, ...] = ("prefill", "decode", "training")
MASKS: tuple[MaskKind, ...] = ("none", "causal", "bool")
# Keys, and the queries of prefill and training: a length that every backward pass takes.
_LENGTH = 1024
_HEADS = (32, 8)


@dataclass(frozen=True)
class Answer:
    """Whether MLX takes a fused kernel for attention of this kind, by MLX's answer and by this
    package's table."""

    phase: Phase
    mask: MaskKind
    dtype: str
    head_dim: int
    fused: bool
    expected: bool


class Unanswered(Exception):
    """What this MLX does with a call can't be read in its graph."""


def answers(device: Device) -> Iterator[Answer]:
    """MLX's answers for every phase, mask, type and head dim. Nothing is computed.

    `device` is the current one. Raises Unanswered where MLX can't be asked.
    """
    as_recorded = replace(device, here=False)
    for phase in PHASES:
        for mask in MASKS:
            for dtype in DTYPES:
                for head_dim in HEAD_DIMS:
                    problem = _problem(phase, mask, dtype, head_dim)
                    fused, expected = asked.is_fused(problem), is_chosen(problem, as_recorded)
                    if fused is None:
                        raise Unanswered("MLX's graphs don't tell which kernel it takes")
                    yield Answer(phase, mask, dtype, head_dim, fused, expected)


def _problem(phase: Phase, mask: MaskKind, dtype: str, head_dim: int) -> Problem:
    queries = 1 if phase == "decode" else _LENGTH
    training = phase == "training"
    sizes = (1, *_HEADS, queries, _LENGTH, head_dim, head_dim)
    return Problem(*sizes, dtype=dtype, mask=mask, training=training)
