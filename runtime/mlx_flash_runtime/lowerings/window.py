"""A sliding window, folded into the batch: each chunk of queries becomes a row of its own, with
the keys it can see.

With chunks of C queries and a window of W keys, a chunk needs its own keys and those of the
ceil((W - 1) / C) chunks before it: L x (W + C) scores in place of L x S, the same band of them for
every chunk.
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from ..ops.padding import pad
from ..problem import Attend, Call, Device, Problem
from ..problem.masks import Window, between
from ..stock.fused import CUDA_BACKWARD_ROWS

DOES = "its window folded into the batch"

# Queries per chunk: more of them share a copy of the window's keys, and look at more keys outside
# of it. Half a window was the fastest on an H200, for windows of 1024 and 4096, within these.
_SMALLEST_CHUNK, _LARGEST_CHUNK = 128, 1024
# Chunks that a chunk looks back at, at most, whatever block size is asked for: with 32, cuDNN's
# backward pass asked for more memory than an H200 has.
_MOST_BEFORE = 8
# Below this many times the keys that a chunk looks at, the copies cost what they save.
_SAVING = 2


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """One problem, whose batch is made of the chunks."""
    if not isinstance(problem.structure, Window):
        return "its mask is not known to be a window"
    if problem.query_length > problem.key_length:
        return "its window starts before the first key"
    chunk, chunks, before = _cut(problem, block_size)
    batch, keys = problem.batch * chunks, (before + 1) * chunk
    shape = (batch if _left_padding(problem, chunk, before) else 1, 1, chunk, keys)
    folded = replace(problem, batch=batch, query_length=chunk, key_length=keys)
    return (replace(folded, mask="bool", mask_shape=shape, structure=None),)


def block_size(problem: Problem) -> int:
    """Queries per chunk: half the window's size, in steps that a fused backward pass takes."""
    assert problem.window is not None
    chunk = -(-problem.window // (2 * CUDA_BACKWARD_ROWS)) * CUDA_BACKWARD_ROWS
    return min(max(chunk, _SMALLEST_CHUNK), _LARGEST_CHUNK)


def pays(problem: Problem, device: Device) -> bool:
    """For keys many times those of a window, and queries that fill a chunk."""
    chunk, _, before = _cut(problem, None)
    return problem.query_length >= chunk and problem.key_length >= _SAVING * (before + 1) * chunk


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """Copies of q and of the output by chunks, each key and value once for every chunk that looks
    at it, the mask."""
    chunk, chunks, before = _cut(problem, block_size)
    rows = problem.batch * chunks
    heads = problem.query_heads * chunk * (problem.head_dim + problem.value_head_dim)
    keys = problem.key_heads * (before + 1) * chunk * (problem.head_dim + problem.value_head_dim)
    return problem.item_bytes * rows * (heads + keys) + rows * chunk * (before + 1) * chunk


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Fold, attend, unfold."""
    (folded,) = calls
    problem, chunk = call.problem, folded.query_length
    chunks, before = folded.batch // problem.batch, folded.key_length // chunk - 1
    q = _fold(call.q, 0, chunks, chunk)
    k = _windows(call.k, problem, chunk, chunks, before)
    v = _windows(call.v, problem, chunk, chunks, before)
    mask = _mask(problem, chunk, chunks, before)
    out = attend(replace(call, problem=folded, q=q, k=k, v=v, mask=mask))
    return _unfold(out, chunks)[:, :, : problem.query_length]


def _cut(problem: Problem, size: int | None) -> tuple[int, int, int]:
    """Queries per chunk, chunks, and the chunks before a chunk's own whose keys it looks at."""
    assert problem.window is not None
    chunk = block_size(problem) if size is None else size
    if chunk * _MOST_BEFORE < problem.window:  # the smallest that does not look further back
        chunk = -(-problem.window // (_MOST_BEFORE * CUDA_BACKWARD_ROWS)) * CUDA_BACKWARD_ROWS
    return chunk, -(-problem.query_length // chunk), -(-(problem.window - 1) // chunk)


def _left_padding(problem: Problem, chunk: int, before: int) -> int:
    """The keys that the first chunk looks for in vain."""
    return max(0, before * chunk - (problem.key_length - problem.query_length))


def _mask(problem: Problem, chunk: int, chunks: int, before: int) -> mx.array:
    """Which keys each query of a chunk sees, [1, 1, chunk, keys], or one for each row where
    padding is to be hidden."""
    assert problem.structure is not None
    keys = range((before + 1) * chunk)
    band = between(problem.structure, range(before * chunk, (before + 1) * chunk), keys)[None, None]
    padding = _left_padding(problem, chunk, before)
    if not padding:
        return band
    starts = mx.arange(chunks)[:, None, None, None] * chunk
    own = band & (mx.arange(len(keys)) + starts >= padding)
    return mx.flatten(mx.broadcast_to(own, (problem.batch, *own.shape)), 0, 1)


def _fold(x: mx.array, left: int, chunks: int, chunk: int) -> mx.array:
    """[B, heads, length, dim] to [B * chunks, heads, chunk, dim]; what is missing at the end is
    zeros."""
    x = pad(x, 2, left, chunks * chunk - left - x.shape[2])
    return mx.flatten(mx.swapaxes(mx.unflatten(x, 2, (chunks, chunk)), 1, 2), 0, 1)


def _unfold(x: mx.array, chunks: int) -> mx.array:
    """[B * chunks, heads, chunk, dim] to [B, heads, chunks * chunk, dim]."""
    return mx.flatten(mx.swapaxes(mx.unflatten(x, 0, (-1, chunks)), 1, 2), 2, 3)


def _windows(x: mx.array, problem: Problem, chunk: int, chunks: int, before: int) -> mx.array:
    """Keys or values to [B * chunks, heads, (before + 1) * chunk, dim]: each chunk's own and those
    before it."""
    x = x[:, :, max(0, problem.key_length - problem.query_length - before * chunk) :]
    padding = _left_padding(problem, chunk, before)
    folded = mx.unflatten(_fold(x, padding, before + chunks, chunk), 0, (-1, before + chunks))
    parts = [folded[:, start : start + chunks] for start in range(before + 1)]
    return mx.flatten(mx.concatenate(parts, axis=3), 0, 1)
