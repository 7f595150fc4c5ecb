"""Problems of a language model of 16 heads on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import Window


def problem(length: int = 8192, **changes: Any) -> Problem:
    """Causal prefill of so many tokens in bfloat16, but for `changes`."""
    return replace(
        Problem(1, 16, 8, length, length, 64, 64, dtype="bfloat16", mask="causal"), **changes
    )


def decode(head_dim: int) -> Problem:
    """One query with a window of 1,024 of the 8,192 keys."""
    return problem(
        1,
        key_length=8192,
        head_dim=head_dim,
        value_head_dim=head_dim,
        mask="window",
        structure=Window(1024),
    )
