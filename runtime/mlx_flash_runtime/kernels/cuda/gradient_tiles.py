"""How the kernels of gradients cut a problem up: what a block of threads has of it in shared
memory.

A block of threads computes the gradients of `rows` rows of one head: of queries, or of keys and
values. Its rows stay in shared memory; those of the other side pass through it, `passing` of them
at a time. The gradients stay in registers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...problem import Problem
from ..rounding import ceil_div
from .hardware import (
    MULTIPROCESSORS,
    WARP,
    WARP_ROWS,
    WARPGROUP,
    WARPGROUP_ROWS,
    multiplies_by_warpgroups,
    padded_row,
    panel_bytes,
    shared_memory,
)

# What one kernel makes, see `Gradients` in device/sides.cuh.
Made = Literal["OF_QUERIES", "OF_KEYS", "OF_VALUES", "OF_KEYS_AND_VALUES"]

_BY_WARPS, _BY_WARPGROUPS = "gradient.cuh", "warpgroup_gradient.cuh"
# Numbers in registers, of the 16 rows of a warp of 32 threads, are (head dim + value head dim) / 2
# for each thread: with 128 of them, of the 255 that there are, scores fit beside them.
_TOGETHER = 256

# Warps, and passing rows: the first that fits. Up to a head dim of 64, scores of 64 rows fit the
# registers beside the gradients.
_SIZES = ((8, 32), (4, 32), (4, 16), (2, 16))
_SIZES_OF_SMALL_ROWS = ((8, 64), *_SIZES)
_SMALL_ROWS = 128  # head dim + value head dim
_STATE = 8  # bytes of what the forward pass left of a query, `QueryState` in device/weights.cuh

_PASSING = 64  # the columns of a warpgroup's product, as in device/warpgroup_gradient.cuh
_STATES = 1024  # bytes of what its queries left, in whole swizzles
_FEW_BLOCKS = 3 * MULTIPROCESSORS  # of 64 rows


class GradientTiles(NamedTuple):
    """Sizes of the kernel in `header`, as those of `Tiles`."""

    header: str
    consumers: int
    rows: int
    passing: int
    threads: int
    shared_memory: int
    resident: int


def made_by_kernels(problem: Problem) -> tuple[Made, ...]:
    """What is made by a kernel each. Keys and values share the scores, where they fit."""
    if problem.head_dim + problem.value_head_dim <= _TOGETHER:
        return "OF_QUERIES", "OF_KEYS_AND_VALUES"
    return "OF_QUERIES", "OF_KEYS", "OF_VALUES"


def tiles_of(problem: Problem, capability: tuple[int, int], made: Made) -> GradientTiles | None:
    """Those that are the fastest by measurement on an H200; None where none fit."""
    if multiplies_by_warpgroups(problem, capability):
        return _of_warpgroups(problem, made)
    is_small = problem.head_dim + problem.value_head_dim <= _SMALL_ROWS
    for warps, passing in _SIZES_OF_SMALL_ROWS if is_small else _SIZES:
        tiles = _of_warps(problem, made, warps, passing)
        if tiles.shared_memory <= shared_memory(capability):
            return tiles
    return None


def _of_warps(problem: Problem, made: Made, warps: int, passing: int) -> GradientTiles:
    rows = WARP_ROWS * warps
    row = padded_row(problem.head_dim, problem.item_bytes)
    v_row = padded_row(problem.value_head_dim, problem.item_bytes)
    memory = (rows + passing) * row + passing * v_row
    if made != "OF_VALUES":
        memory += rows * v_row
    if made != "OF_QUERIES":
        memory += passing * _STATE
    return GradientTiles(
        header=_BY_WARPS,
        consumers=warps,
        rows=rows,
        passing=passing,
        threads=WARP * warps,
        shared_memory=memory,
        resident=1,
    )


def _of_warpgroups(problem: Problem, made: Made) -> GradientTiles:
    """In KiB of shared memory, own rows + passing ones, each of head dim + of value head dim, for
    two consumers:

    - 64, keys and values: (16 + 16) + (2 x 9 + 2 x 8) = 66;
    - 128, keys and values: (32 + 32) + (2 x 17 + 2 x 16) = 130;
    - 256, keys: (64 + 64) + (2 x 33 + 32) = 226, of the 227 that there are;
    - 256, values: 64 + (2 x 33 + 2 x 32) = 194.
    """
    row, v_row = panel_bytes(problem.head_dim), panel_bytes(problem.value_head_dim)
    by_keys = made != "OF_QUERIES"
    consumers = _consumers(problem, by_keys, max(row, v_row))
    rows = WARPGROUP_ROWS * consumers
    memory = rows * row + 2 * (_PASSING * row + (_STATES if by_keys else 0))
    memory += _PASSING * v_row * (1 if made in ("OF_QUERIES", "OF_KEYS") else 2)
    if made != "OF_VALUES":
        memory += rows * v_row
    return GradientTiles(
        header=_BY_WARPGROUPS,
        consumers=consumers,
        rows=rows,
        passing=_PASSING,
        threads=WARPGROUP * (1 + consumers),
        shared_memory=memory,
        # As many registers for every thread as setmaxnreg counts on, see
        # device/warpgroup_products.cuh.
        resident=2 if consumers == 1 else 1,
    )


def _consumers(problem: Problem, by_keys: bool, row_bytes: int) -> int:
    """Warpgroups with rows of their own, besides the producer. Two share what passes by. One makes
    twice as many blocks of threads: where there are few, the multiprocessors are done at more
    nearly the same time, and of small ones two are on a multiprocessor at once."""
    heads, length = problem.query_heads, problem.query_length
    if by_keys:
        heads, length = problem.key_heads, problem.key_length
    small_blocks = problem.batch * heads * ceil_div(length, WARPGROUP_ROWS)
    is_small = not by_keys and row_bytes <= 256
    return 1 if is_small or small_blocks < _FEW_BLOCKS else 2
