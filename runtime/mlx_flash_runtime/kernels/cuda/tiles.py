"""How the CUDA kernel cuts a problem up: what a block of threads has of it in shared memory."""

from __future__ import annotations

from typing import NamedTuple

from ...problem import Problem

_BY_WARPS, _BY_WARPGROUPS = "attention.cuh", "warpgroup_attention.cuh"

# Shared memory that every GPU of compute capability 8.0 and later gives to one block of threads.
_SHARED_MEMORY = 99 * 1024
_WARP = 32
_WARP_QUERIES = 16  # as in products.cuh
_WARPS = 8
_KEYS = 32

_WITH_WARPGROUPS = (9, 0)  # no GPU before or since has these products
_WARPGROUP = 128  # threads
_WARPGROUP_QUERIES = 64  # as in warpgroup_attention.cuh
_MULTIPROCESSORS = 132  # of an H100, about


class Tiles(NamedTuple):
    """Sizes of the kernel in `header`, for its `groups`: the warps of a block, or the warpgroups
    besides the producer. A block of so many threads has `queries` and, in turn, `keys` in `memory`
    bytes; `resident` of them at least are on one multiprocessor at once."""

    header: str
    groups: int
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
    def of(warps: int, keys: int) -> Tiles:
        # Rows are padded to whole products of 32 bytes, and by 16 bytes.
        qk_row, v_row = (
            -(-dim * problem.item_bytes // 32) * 32 + 16
            for dim in (problem.head_dim, problem.value_head_dim)
        )
        queries, threads = _WARP_QUERIES * warps, _WARP * warps
        # More of them are just missed otherwise.
        resident = 1
        if problem.item_bytes == 4 and 64 < problem.head_dim <= 128:
            resident = 512 // threads
        elif problem.item_bytes == 2 and 128 < row <= 256:
            resident = 3
        memory = (queries + keys) * qk_row + keys * v_row
        return Tiles(_BY_WARPS, warps, queries, keys, threads, memory, resident)

    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    few = problem.query_length <= _WARP_QUERIES * _WARPS // 2
    if problem.item_bytes == 2 and row <= 256:
        return of(_WARPS // 2 if few or row > 128 else _WARPS, 2 * _KEYS)
    candidates = (
        of(_WARPS // 2 if few else _WARPS, _KEYS),
        *(of(_WARPS // 2, keys) for keys in (_KEYS, _KEYS // 2)),
    )
    return next((one for one in candidates if one.memory <= _SHARED_MEMORY), None)


def _of_warpgroups(problem: Problem) -> Tiles:
    # Rows in panels of 128 bytes; two blocks each of keys and values.
    qk_row, v_row = (-(-dim // 64) * 128 for dim in (problem.head_dim, problem.value_head_dim))
    keys = 128 if max(qk_row, v_row) <= 256 else 64
    # One has more blocks of threads to spread, or two on a multiprocessor; two share what is read.
    small_blocks = (
        problem.batch * problem.query_heads * -(-problem.query_length // _WARPGROUP_QUERIES)
    )
    groups = 1 if small_blocks <= _MULTIPROCESSORS or max(qk_row, v_row) <= 128 else 2
    queries, threads = _WARPGROUP_QUERIES * groups, _WARPGROUP * (1 + groups)
    # As many registers for every thread as setmaxnreg counts on.
    resident = 2 if groups == 1 else 1
    memory = queries * qk_row + 2 * keys * (qk_row + v_row)
    return Tiles(_BY_WARPGROUPS, groups, queries, keys, threads, memory, resident)
