"""How the CUDA kernel cuts a problem up: what a block of threads has of it in shared memory.

A block of threads computes the answers of `queries` queries of one head. Its queries stay in shared
memory; keys and values pass through it, `keys` of them at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from ...problem import Problem

_BY_WARPS, _BY_WARPGROUPS = "attention.cuh", "warpgroup_attention.cuh"

# A multiprocessor of every GPU of compute capability 8.0 and later has so many registers, which
# the threads of the blocks that are on it at once share.
_REGISTERS = 64 * 1024
# What every such GPU gives to one block of threads: those of 8.6, 8.9 and 12.0 have 100 KiB for a
# multiprocessor, of which CUDA keeps 1 KiB for itself (8.0 has 163 KiB for a block, 9.0 227).
_SHARED_MEMORY = 99 * 1024
_WARP = 32  # threads
_WARP_QUERIES = 16  # the rows of a product, as in rows.cuh
# By measurement on an H200, as all that follows: warps in a block of threads, keys at a time.
_WARPS = 8
_KEYS = 32

_WITH_WARPGROUPS = (9, 0)  # no GPU before or since has these products
_WARPGROUP = 128  # threads
_WARPGROUP_QUERIES = 64  # the rows of a product, as in rows.cuh
_STAGES = 2  # tiles of keys, and of values, as in warpgroup_products.cuh
_PANEL = 64  # elements, 128 bytes, as in warpgroup_products.cuh
_MULTIPROCESSORS = 132  # of an H100 or H200


class Tiles(NamedTuple):
    """Sizes of the kernel in `header`, for its `consumers`: the warps of a block, or the warpgroups
    besides the producer. A block of so many `threads` has `queries` and, in turn, `keys` in
    `memory` bytes of shared memory.

    The compiler is told that `resident` blocks at least are to be on one multiprocessor at once:
    a thread then gets no more than 65,536 / (resident x threads) registers. Shared memory may let
    fewer of them.
    """

    header: str
    consumers: int
    queries: int
    keys: int
    threads: int
    memory: int
    resident: int

    @property
    def by_warpgroups(self) -> bool:
        """Whether it is the kernel of a Hopper GPU's products, about as fast as cuDNN."""
        return self.header == _BY_WARPGROUPS


def has_warpgroups(capability: tuple[int, int]) -> bool:
    """Whether GPUs of that compute capability have products of warpgroups."""
    return capability == _WITH_WARPGROUPS


def tiles(problem: Problem, capability: tuple[int, int]) -> Tiles | None:
    """Those that are the fastest by measurement on an H200; None where none fit."""
    in_chunks = problem.head_dim % 8 == problem.value_head_dim % 8 == 0
    if has_warpgroups(capability) and problem.item_bytes == 2 and in_chunks:
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
    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    few = problem.query_length <= _WARP_QUERIES * _WARPS // 2
    if problem.item_bytes == 2 and row <= 256:
        return _by_warps(problem, _WARPS // 2 if few or row > 128 else _WARPS, 2 * _KEYS)
    sizes = (
        (_WARPS // 2 if few else _WARPS, _KEYS),
        (_WARPS // 2, _KEYS),
        (_WARPS // 2, _KEYS // 2),
    )
    for warps, keys in sizes:
        cut = _by_warps(problem, warps, keys)
        if cut.memory <= _SHARED_MEMORY:
            return cut
    return None


def _by_warps(problem: Problem, warps: int, keys: int) -> Tiles:
    queries, threads = _WARP_QUERIES * warps, _WARP * warps
    qk_row = padded_row(problem.head_dim, problem.item_bytes)
    v_row = padded_row(problem.value_head_dim, problem.item_bytes)
    memory = (queries + keys) * qk_row + keys * v_row
    return Tiles(
        _BY_WARPS, warps, queries, keys, threads, memory, _resident_by_warps(problem, threads)
    )


def padded_row(dim: int, item_bytes: int) -> int:
    """Bytes from one row of a tile to the next: whole products of 32 bytes, and 16 bytes more, by
    which rows begin in different banks of shared memory (`row_stride` in products.cuh)."""
    return -(-dim * item_bytes // 32) * 32 + 16


def _resident_by_warps(problem: Problem, threads: int) -> int:
    """Asked for where the compiler, left alone, takes a few registers too many for one more block:
    128 for a thread in float32, 168 (65,536 / (3 x 128), by eights) in 16 bits."""
    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    if problem.item_bytes == 4 and 64 < problem.head_dim <= 128:
        return _REGISTERS // 128 // threads
    if problem.item_bytes == 2 and 128 < row <= 256:
        return 3
    return 1


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
    small_blocks = (
        problem.batch * problem.query_heads * -(-problem.query_length // _WARPGROUP_QUERIES)
    )
    consumers = 1 if small_blocks <= _MULTIPROCESSORS or max(qk_row, v_row) <= 128 else 2
    queries, threads = _WARPGROUP_QUERIES * consumers, _WARPGROUP * (1 + consumers)
    # As many registers for every thread as setmaxnreg counts on: see warpgroup_attention.cuh.
    resident = 2 if consumers == 1 else 1
    memory = queries * qk_row + _STAGES * keys * (qk_row + v_row)
    return Tiles(_BY_WARPGROUPS, consumers, queries, keys, threads, memory, resident)


def panel_bytes(dim: int) -> int:
    """Bytes of a row of 16-bit elements in whole panels."""
    return -(-dim // _PANEL) * 2 * _PANEL
