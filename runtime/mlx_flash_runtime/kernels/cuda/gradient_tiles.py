"""How the kernels of gradients cut a problem up: what a block of threads has of it in shared
memory.

A block of threads computes the gradients of `rows` rows of one head: of queries, or of keys and
values. Its rows stay in shared memory; those of the other side pass through it, `passing` of them
at a time. The gradients stay in registers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...problem import Problem
from .tiles import has_warpgroups, padded_row, panel_bytes

# What one kernel makes, see `Gradients` in sides.cuh.
Made = Literal["OF_QUERIES", "OF_KEYS", "OF_VALUES", "OF_KEYS_AND_VALUES"]

_BY_WARPS, _BY_WARPGROUPS = "gradient.cuh", "warpgroup_gradient.cuh"
# Numbers in registers, of the 16 rows of a warp of 32 threads, are (head dim + value head dim) / 2
# for each thread: with 128 of them, of the 255 that there are, scores fit beside them.
_TOGETHER = 256

# KiB of shared memory for one block of threads, by compute capability; 99 for others, see tiles.py.
_SHARED_MEMORY = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
_LEAST_SHARED_MEMORY = 99

# Warps, and passing rows: the first that fits. Up to a head dim of 64, scores of 64 rows fit the
# registers beside the gradients.
_SIZES = ((8, 32), (4, 32), (4, 16), (2, 16))
_SIZES_OF_SMALL_ROWS = ((8, 64), *_SIZES)
_SMALL_ROWS = 128  # head dim + value head dim
_WARP, _WARP_ROWS = 32, 16  # threads, and the rows of a product

_WARPGROUP, _WARPGROUP_ROWS = 128, 64  # threads, and the rows of a product
_PASSING = 64  # the columns of one, as in warpgroup_gradient.cuh
_STATES = 1024  # bytes of what its queries left, in whole swizzles
_FEW_BLOCKS = 3 * 132  # of 64 rows, for the multiprocessors of an H100 or H200


class GradientTiles(NamedTuple):
    """Sizes of the kernel in `header`, as those of `Tiles`."""

    header: str
    consumers: int
    rows: int
    passing: int
    threads: int
    memory: int
    resident: int


def kernels(problem: Problem) -> tuple[Made, ...]:
    """What is made by a kernel each. Keys and values share the scores, where they fit."""
    if problem.head_dim + problem.value_head_dim <= _TOGETHER:
        return "OF_QUERIES", "OF_KEYS_AND_VALUES"
    return "OF_QUERIES", "OF_KEYS", "OF_VALUES"


def gradient_tiles(
    problem: Problem, capability: tuple[int, int], made: Made
) -> GradientTiles | None:
    """Those that are the fastest by measurement on an H200; None where none fit."""
    in_chunks = problem.head_dim % 8 == problem.value_head_dim % 8 == 0
    if has_warpgroups(capability) and problem.item_bytes == 2 and in_chunks:
        return _of_warpgroups(problem, made)
    most = 1024 * _SHARED_MEMORY.get(capability, _LEAST_SHARED_MEMORY)
    is_small = problem.head_dim + problem.value_head_dim <= _SMALL_ROWS
    for warps, passing in _SIZES_OF_SMALL_ROWS if is_small else _SIZES:
        cut = _of_warps(problem, made, warps, passing)
        if cut.memory <= most:
            return cut
    return None


def _of_warps(problem: Problem, made: Made, warps: int, passing: int) -> GradientTiles:
    rows, threads = _WARP_ROWS * warps, _WARP * warps
    row = padded_row(problem.head_dim, problem.item_bytes)
    v_row = padded_row(problem.value_head_dim, problem.item_bytes)
    memory = (rows + passing) * row + passing * v_row
    if made != "OF_VALUES":
        memory += rows * v_row
    if made != "OF_QUERIES":
        memory += 8 * passing
    return GradientTiles(_BY_WARPS, warps, rows, passing, threads, memory, 1)


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
    heads, length = (
        (problem.key_heads, problem.key_length)
        if by_keys
        else (problem.query_heads, problem.query_length)
    )
    # Two consumers share what passes by. One makes twice as many blocks of threads: where there
    # are few, the multiprocessors are done at more nearly the same time, and of small ones two are
    # on a multiprocessor at once.
    small_blocks = problem.batch * heads * -(-length // _WARPGROUP_ROWS)
    is_small = not by_keys and max(row, v_row) <= 256
    consumers = 1 if is_small or small_blocks < _FEW_BLOCKS else 2
    rows, threads = _WARPGROUP_ROWS * consumers, _WARPGROUP * (1 + consumers)
    memory = rows * row + 2 * (_PASSING * row + (_STATES if by_keys else 0))
    memory += _PASSING * v_row * (1 if made in ("OF_QUERIES", "OF_KEYS") else 2)
    if made != "OF_VALUES":
        memory += rows * v_row
    # As many registers for every thread as setmaxnreg counts on: see warpgroup_products.cuh.
    resident = 2 if consumers == 1 else 1
    return GradientTiles(_BY_WARPGROUPS, consumers, rows, _PASSING, threads, memory, resident)
