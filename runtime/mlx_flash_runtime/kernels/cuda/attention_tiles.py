"""How the CUDA kernel of many queries cuts a problem up: what a block of threads has of it in
shared memory.

A block of threads computes the answers of `queries` queries of one head. Its queries stay in shared
memory; keys and values pass through it, `keys` of them at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from ...problem import Problem
from ..rounding import ceil_div
from .hardware import (
    LEAST_SHARED_MEMORY,
    MULTIPROCESSORS,
    REGISTERS,
    WARP,
    WARP_ROWS,
    WARPGROUP,
    WARPGROUP_ROWS,
    multiplies_by_warpgroups,
    padded_row,
    panel_bytes,
)

_BY_WARPS, _BY_WARPGROUPS = "attention.cuh", "warpgroup_attention.cuh"

# By measurement on an H200, as all that follows: warps in a block of threads, keys at a time.
_WARPS = 8
_KEYS = 32
_STAGES = 2  # tiles of keys, and of values, as in device/warpgroup_attention.cuh


class Tiles(NamedTuple):
    """Sizes of the kernel in `header`, for its `consumers`: the warps of a block, or the warpgroups
    besides the producer. A block of so many `threads` has `queries` and, in turn, `keys` in
    `shared_memory` bytes.

    The compiler is told that `resident` blocks at least are to be on one multiprocessor at once:
    a thread then gets no more than 65,536 / (resident x threads) registers. Shared memory may let
    fewer of them.
    """

    header: str
    consumers: int
    queries: int
    keys: int
    threads: int
    shared_memory: int
    resident: int

    @property
    def by_warpgroups(self) -> bool:
        """Whether it is the kernel of a Hopper GPU's products, about as fast as cuDNN."""
        return self.header == _BY_WARPGROUPS


def tiles_of(problem: Problem, capability: tuple[int, int]) -> Tiles | None:
    """Those that are the fastest by measurement on an H200; None where none fit."""
    if multiplies_by_warpgroups(problem, capability):
        return _of_warpgroups(problem)
    return _of_warps(problem)


def _of_warps(problem: Problem) -> Tiles | None:
    """For products of warps: the most that fits.

    The largest of the usual head dims, in bytes of shared memory, queries + keys + values:
    - 16 bits, 64: (128 + 64) x 144 + 64 x 144 = 36,864, or (64 + 64) x 144 + 64 x 144 = 27,648
      for few queries;
    - 16 bits, 128: (64 + 64) x 272 + 64 x 272 = 52,224;
    - 16 bits, 256, as float32, 128: (128 + 32) x 528 + 32 x 528 = 101,376, all of the 99 KiB;
    - float32, 256: (64 + 16) x 1,040 + 16 x 1,040 = 99,840; with 32 keys it would be 133,120.
    """
    half = _WARPS // 2
    row = _row_bytes(problem)
    few = problem.query_length <= WARP_ROWS * half
    if problem.item_bytes == 2 and row <= 256:
        return _by_warps(problem, half if few or row > 128 else _WARPS, 2 * _KEYS)
    for warps, keys in ((half if few else _WARPS, _KEYS), (half, _KEYS), (half, _KEYS // 2)):
        tiles = _by_warps(problem, warps, keys)
        if tiles.shared_memory <= LEAST_SHARED_MEMORY:
            return tiles
    return None


def _by_warps(problem: Problem, warps: int, keys: int) -> Tiles:
    queries, threads = WARP_ROWS * warps, WARP * warps
    qk_row = padded_row(problem.head_dim, problem.item_bytes)
    v_row = padded_row(problem.value_head_dim, problem.item_bytes)
    return Tiles(
        header=_BY_WARPS,
        consumers=warps,
        queries=queries,
        keys=keys,
        threads=threads,
        shared_memory=(queries + keys) * qk_row + keys * v_row,
        resident=_resident_by_warps(problem, threads),
    )


def _resident_by_warps(problem: Problem, threads: int) -> int:
    """Asked for where the compiler, left alone, takes a few registers too many for one more block:
    128 for a thread in float32, 168 (65,536 / (3 x 128), by eights) in 16 bits."""
    if problem.item_bytes == 4 and 64 < problem.head_dim <= 128:
        return REGISTERS // 128 // threads
    if problem.item_bytes == 2 and 128 < _row_bytes(problem) <= 256:
        return 3
    return 1


def _row_bytes(problem: Problem) -> int:
    """Of a query, key or value, whichever is the longest."""
    return problem.item_bytes * max(problem.head_dim, problem.value_head_dim)


def _of_warpgroups(problem: Problem) -> Tiles:
    """For products of warpgroups, on a GPU with 227 KiB for a block and 228 for a multiprocessor.

    In KiB of shared memory, queries + two tiles of keys + two of values:
    - head dim 64, one consumer, 128 keys: 8 + 32 + 32 = 72, twice on a multiprocessor;
    - 128, two consumers, 128 keys: 32 + 64 + 64 = 160;
    - 256, two consumers, 64 keys: 64 + 64 + 64 = 192; with 128 keys it would be 320.
    """
    qk_row, v_row = panel_bytes(problem.head_dim), panel_bytes(problem.value_head_dim)
    keys = 128 if max(qk_row, v_row) <= 256 else 64
    # One consumer makes more blocks of threads, to spread over the GPU where there are few, and
    # smaller ones, of which several fit a multiprocessor. Two share the keys that are read.
    blocks_of_head = ceil_div(problem.query_length, WARPGROUP_ROWS)
    small_blocks = problem.batch * problem.query_heads * blocks_of_head
    is_alone = small_blocks <= MULTIPROCESSORS or max(qk_row, v_row) <= 128
    consumers = 1 if is_alone else 2
    queries = WARPGROUP_ROWS * consumers
    return Tiles(
        header=_BY_WARPGROUPS,
        consumers=consumers,
        queries=queries,
        keys=keys,
        threads=WARPGROUP * (1 + consumers),
        shared_memory=queries * qk_row + _STAGES * keys * (qk_row + v_row),
        # As many registers for every thread as setmaxnreg counts on, see
        # device/warpgroup_products.cuh.
        resident=2 if is_alone else 1,
    )
