"""The kernel for a problem: `few_queries`, or `tile_skipping` for more of them."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ...problem import Problem
from ..quantization import Bits
from . import few_queries, tile_skipping

# A draft of a few dozen tokens that is verified; more queries fill the tiles of a kernel that
# shares the keys among more of them.
MOST_QUERIES = 48
# Arrays of fewer numbers would be constants for Metal, and rows of fewer would leave most of a
# product empty.
_FEWEST_KEYS = 8
_SMALLEST_HEAD_DIM, _LARGEST_HEAD_DIM = 8, 576


def is_for_few(problem: Problem) -> bool:
    """Whether it is `few_queries` that the problem is for."""
    return problem.query_length <= MOST_QUERIES


def why_not(problem: Problem) -> str:
    """Why there is no kernel for a problem; empty where there is one."""
    if problem.training and is_for_few(problem):
        return "the Metal kernel for few queries has no gradient of its own"
    if not is_for_few(problem):
        why = tile_skipping.why_not(problem)
        return (
            f"the Metal kernel for many queries skips what a mask hides, and {why}" if why else ""
        )
    if problem.key_length < max(_FEWEST_KEYS, problem.query_length):
        return "the Metal kernel for few queries is for more keys"
    head_dims = problem.head_dim, problem.value_head_dim
    if min(head_dims) < _SMALLEST_HEAD_DIM or max(head_dims) > _LARGEST_HEAD_DIM:
        return "the Metal kernel for few queries is for other head dims"
    return ""


def reads_mask(problem: Problem) -> bool:
    """Whether the mask is an array for the kernel, too."""
    if is_for_few(problem):
        return few_queries.reads_mask(problem)
    return tile_skipping.reads_mask(problem)


def broadcast(mask: mx.array, problem: Problem) -> mx.array:
    """A mask that is read with all its axes: of `[B, H, L, S]` for few queries, whose kernel takes
    any strides; for many an axis of batches or heads that are alike stays 1."""
    axes = [problem.batch, problem.query_heads, problem.query_length, problem.key_length]
    if not is_for_few(problem):
        axes[:2] = [1, 1, *mask.shape[:-2]][-2:]
    return mx.broadcast_to(mask, axes)


def attention(
    problem: Problem, arrays: Sequence[mx.array], bits: Bits | None = None
) -> list[mx.array]:
    """The kernel, `[B, H, L, D_v]`, for problems that `why_not` has nothing against, in training
    also each query's logsumexp. `arrays` are those of `few_queries.attention`, without a mask where
    it is not read."""
    if is_for_few(problem):
        return [few_queries.attention(problem, arrays, bits)]
    return tile_skipping.attention(problem, arrays)
