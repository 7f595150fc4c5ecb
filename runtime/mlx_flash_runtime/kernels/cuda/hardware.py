"""What the kernels count on in an NVIDIA GPU, and how rows lie in its shared memory."""

from __future__ import annotations

from ...problem import Problem
from ..rounding import rounded_up

WARP = 32  # threads
WARP_ROWS = 16  # of a product of one warp, as in device/rows.cuh
WARPGROUP = 128  # threads
WARPGROUP_ROWS = 64  # of a product of one warpgroup, as in device/rows.cuh
_WITH_WARPGROUPS = (9, 0)  # no GPU before or since has these products

# A multiprocessor of every GPU of compute capability 8.0 and later has so many registers, which
# the threads of the blocks that are on it at once share.
REGISTERS = 64 * 1024
MULTIPROCESSORS = 132  # of an H100 or H200

# KiB of shared memory that a GPU gives to one block of threads, by compute capability. All others
# have 99 at least: those of 8.6, 8.9 and 12.0 have 100 for a multiprocessor, of which CUDA keeps 1
# for itself.
_SHARED_MEMORY = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
LEAST_SHARED_MEMORY = 99 * 1024

_PANEL = 64  # elements, 128 bytes, as in device/warpgroup_products.cuh


def shared_memory(capability: tuple[int, int]) -> int:
    """Bytes for one block of threads."""
    if capability in _SHARED_MEMORY:
        return 1024 * _SHARED_MEMORY[capability]
    return LEAST_SHARED_MEMORY


def has_warpgroups(capability: tuple[int, int]) -> bool:
    """Whether GPUs of that compute capability have products of warpgroups."""
    return capability == _WITH_WARPGROUPS


def multiplies_by_warpgroups(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether its products are those of warpgroups: they take 16-bit elements, in chunks of 16
    bytes."""
    in_chunks = problem.head_dim % 8 == problem.value_head_dim % 8 == 0
    return has_warpgroups(capability) and problem.item_bytes == 2 and in_chunks


def padded_row(dim: int, item_bytes: int) -> int:
    """Bytes from one row of a tile to the next, for products of warps: whole products of 32 bytes,
    and 16 bytes more, by which rows begin in different banks of shared memory (`row_stride` in
    device/products.cuh)."""
    return rounded_up(dim * item_bytes, 32) + 16


def panel_bytes(dim: int) -> int:
    """Bytes of a row of 16-bit elements in whole panels, for products of warpgroups
    (device/warpgroup_products.cuh)."""
    return 2 * rounded_up(dim, _PANEL)
