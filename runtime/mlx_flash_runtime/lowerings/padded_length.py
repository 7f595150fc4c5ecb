"""A gradient at a length that MLX's fused backward pass does not take, padded to the next one that
it takes: on CUDA to whole blocks of queries, on Metal to more than the few queries whose kernels
have no backward pass, such as those of a short document in a packed row.

The padding comes last: a causal query does not see keys behind it, and without a mask only the
queries are padded.
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from ..ops.padding import pad
from ..problem import Attend, Call, Device, Problem
from ..stock.fused import CUDA_BACKWARD_ROWS
from ..stock.table import FEW_QUERIES

DOES = "its length padded"

# Below this length the padding is most of the work, by measurement on an H200.
_LENGTH = 256


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """The problem with more queries, and with as many more keys if it is causal."""
    if device.backend == "cpu" or not problem.training:
        return "no gradient asks for another length"
    padding = _padding(problem, device)
    if not padding:
        return "its length needs no padding"
    shape = problem.mask_shape
    if len(shape) >= 2 and shape[-2] > 1:
        shape = (*shape[:-2], shape[-2] + padding, shape[-1])
    queries, keys = problem.query_length + padding, problem.key_length
    if problem.mask == "causal":
        keys += padding
    return (replace(problem, query_length=queries, key_length=keys, mask_shape=shape),)


def _padding(problem: Problem, device: Device) -> int:
    """The queries that are missing to the next length."""
    if device.backend == "metal":
        return max(0, FEW_QUERIES + 1 - problem.query_length)
    return -problem.query_length % CUDA_BACKWARD_ROWS


def pays(problem: Problem, device: Device) -> bool:
    """From some length on."""
    return problem.query_length >= _LENGTH


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """q and the output as padded, and keys and values if the mask is causal."""
    dims = problem.head_dim + problem.value_head_dim
    padding = _padding(problem, device)
    rows = problem.query_heads * (problem.query_length + padding)
    if problem.mask == "causal":
        rows += problem.key_heads * (problem.key_length + padding)
    return problem.item_bytes * problem.batch * rows * dims


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Pad, attend, cut off what the padding answered."""
    (padded,) = calls
    queries = padded.query_length - call.problem.query_length
    keys = padded.key_length - call.problem.key_length
    q, k, v = pad(call.q, 2, 0, queries), pad(call.k, 2, 0, keys), pad(call.v, 2, 0, keys)
    mask = call.mask
    if mask is not None and mask.ndim >= 2 and mask.shape[-2] > 1:
        mask = pad(mask, -2, 0, queries)
    out = attend(replace(call, problem=padded, q=q, k=k, v=v, mask=mask))
    return out[:, :, : call.problem.query_length]
