"""Exact attention over blocks, forward and backward, in memory linear in the length.

The forward pass is the online softmax (Milakov and Gimelshein, "Online normalizer calculation for
softmax", 2018). The backward pass recomputes each block's weights (Dao et al., "FlashAttention",
2022, algorithm 4) from two numbers per query: its largest score `row_max` and `row_sum =
sum(exp(score - row_max))`. The pair is kept rather than the logsumexp `row_max + log(row_sum)`,
which would lose the second term for a query whose keys are all masked. row_max cancels from the
output, so every derivative takes it as a constant, here and in the gradient alike.

Shapes: q [B, H_kv, G, L, D], k [B, H_kv, S, D], v [B, H_kv, S, D_v]: the G query heads that share
a key head are folded into the rows of one product, so that keys and values are never repeated.
`mask` is None or has 5 axes, each of them 1 or that of the scores [B, H_kv, G, L, S]. `sinks` is
None or [H_kv, G]. q is float32 and carries the scale already.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from ..problem import Call
from .blocks import Blocks, Skipped, blocks_of, cuts
from .ordering import after
from .written_out import by_key_head, masked, softcapped

# What a masked score becomes, here as in MLX's unfused attention: a query that sees no key gets
# the mean of all values.
MASKED = mx.finfo(mx.float32).min


class Arrays(NamedTuple):
    """Those of a call in the shapes of this module, or their gradients."""

    q: mx.array
    k: mx.array
    v: mx.array
    mask: mx.array | None
    sinks: mx.array | None


def forward(
    arrays: Arrays, blocks: Blocks, softcap: float | None = None
) -> tuple[mx.array, mx.array, mx.array]:
    """The output [B, H_kv, G, L, D_v] and each query's row_max and row_sum, [B, H_kv, G, L, 1],
    all in float32."""
    parts: list[tuple[mx.array, mx.array, mx.array]] = []
    skipped = Skipped([arrays.v[:, :, columns] for columns in blocks.columns])
    for rows in blocks.rows:
        # After the output alone: it needs the rest, and row_max is a constant, of which MLX 0.31
        # has no jvp.
        before = [part[0] for part in parts[-1:]]
        queries = after(_fold(arrays.q, rows), *before)
        nothing = skipped.times_zero([blocks.skips(rows, columns) for columns in blocks.columns])
        parts.append(_forward_rows(arrays, queries, blocks, softcap, rows, nothing))
    out, row_max, row_sum = (
        mx.concatenate(list(part), axis=3) for part in zip(*parts, strict=True)
    )
    return out, row_max, row_sum


def _forward_rows(
    arrays: Arrays,
    queries: mx.array,
    blocks: Blocks,
    softcap: float | None,
    rows: slice,
    nothing: mx.array,
) -> tuple[mx.array, mx.array, mx.array]:
    _, k, v, mask, sinks = arrays
    batch, heads, folded, _ = queries.shape
    length = rows.stop - rows.start
    if sinks is None:
        row_max = mx.full((batch, heads, folded, 1), MASKED, mx.float32)
        row_sum = mx.zeros((batch, heads, folded, 1), mx.float32)
    else:
        column = mx.broadcast_to(sinks[None, :, :, None, None], (batch, *sinks.shape, length, 1))
        column = _fold(column, slice(None))
        row_max = mx.maximum(mx.stop_gradient(column), MASKED)
        row_sum = mx.exp(column - row_max)
    out = mx.zeros((batch, heads, folded, v.shape[-1]), mx.float32) + nothing
    for columns in blocks.columns:
        if blocks.skips(rows, columns):
            continue
        scores = softcapped(queries @ _transposed(k, columns), softcap)
        scores = _masked(scores, mask, blocks, rows, columns)
        largest = mx.max(mx.stop_gradient(scores), axis=-1, keepdims=True)
        larger = mx.maximum(row_max, largest)
        weights = mx.exp(scores - larger)
        shrink = mx.exp(row_max - larger)
        row_max = larger
        row_sum = row_sum * shrink + mx.sum(weights, axis=-1, keepdims=True)
        out = out * shrink + weights @ v[:, :, columns].astype(mx.float32)
        queries = after(queries, out, row_sum)
    return _unfold(out / row_sum, length), _unfold(row_max, length), _unfold(row_sum, length)


def sink_weight(call: Call, rows_at_once: int) -> mx.array:
    """The share of each query's weight that its sink takes, [B, H, L] in float32."""
    q, k, _, mask, sinks = folded(call)
    assert sinks is not None
    blocks = blocks_of(call.problem, call.problem.key_length)
    columns = slice(0, call.problem.key_length)
    weights = []
    for rows in cuts(call.problem.query_length, rows_at_once):
        scores = _masked(_fold(q, rows) @ _transposed(k, columns), mask, blocks, rows, columns)
        others = mx.unflatten(mx.logsumexp(scores, axis=-1), 2, (-1, rows.stop - rows.start))
        weights.append(mx.sigmoid(sinks[None, :, :, None] - others))
    return mx.flatten(mx.concatenate(weights, axis=3), 1, 2)


def folded(call: Call) -> Arrays:
    """The arrays of a call in the shapes of this module; the mask is None where its structure is
    known."""
    heads, groups = call.k.shape[1], call.q.shape[1] // call.k.shape[1]
    q = call.scale * mx.unflatten(call.q.astype(mx.float32), 1, (heads, groups))
    mask = None if call.problem.structure is not None else call.mask
    if mask is not None:
        mask = by_key_head(mask, heads)
    sinks = (
        None
        if call.sinks is None
        else mx.unflatten(call.sinks.astype(mx.float32), 0, (heads, groups))
    )
    return Arrays(q, call.k, call.v, mask, sinks)


def backward(
    arrays: Arrays,
    blocks: Blocks,
    outputs: list[mx.array],
    cotangents: list[mx.array],
    softcap: float | None = None,
) -> Arrays:
    """Gradients of q, k, v, of an additive mask and of the sinks (None where there is none), in
    float32.

    `outputs` and `cotangents` are those of `forward`. With d = dout / row_sum and w = exp(score -
    row_max), dv = w^T d and dscore = w (d v^T + shift), where shift = drow_sum - sum(d * out).
    row_max cancels from the output, so it counts as a constant.
    """
    q, k, v, mask, sinks = arrays
    out, row_max, row_sum = outputs
    row_max = mx.stop_gradient(row_max)
    d = cotangents[0] / row_sum
    # NaN for an infinite d: over the values its terms have both signs.
    shift = cotangents[2] - mx.sum(d * out + 0 * d, axis=-1, keepdims=True)
    # The scores of a query without keys are constants: its weights reach v, but what reaches q and
    # k is times zero.
    sees = (row_max > MASKED).astype(mx.float32)
    q_seeing = q * sees
    skipped_keys = Skipped([k[:, :, columns] for columns in blocks.columns])
    skipped_queries = Skipped([_fold(0 * shift * q, rows) for rows in blocks.rows])
    skipped_d = Skipped([_fold(d, rows) for rows in blocks.rows])

    dq: dict[int, mx.array] = {}
    for rows in blocks.rows:
        skipped = [blocks.skips(rows, columns) for columns in blocks.columns]
        dq[rows.start] = skipped_keys.times_zero(skipped)
    dk: list[mx.array] = []
    dv: list[mx.array] = []
    dmask = _MaskGradient(mask)
    done: list[mx.array] = []
    for columns in blocks.columns:
        keys, values = _transposed(k, columns), _transposed(v, columns)
        skipped = [blocks.skips(rows, columns) for rows in blocks.rows]
        dk_block = mx.zeros((*k.shape[:2], columns.stop - columns.start, k.shape[-1]), mx.float32)
        dv_block = mx.zeros((*v.shape[:2], columns.stop - columns.start, v.shape[-1]), mx.float32)
        dk_block = dk_block + skipped_queries.times_zero(skipped)
        dv_block = dv_block + skipped_d.times_zero(skipped)
        for rows in blocks.rows:
            if blocks.skips(rows, columns):
                continue
            queries, d_rows = after(_fold(q, rows), *done), _fold(d, rows)
            scores = softcapped(queries @ keys, softcap)
            weights = mx.exp(_masked(scores, mask, blocks, rows, columns) - _fold(row_max, rows))
            dmasked = weights * (d_rows @ values + _fold(shift, rows))
            dscores = dmasked if softcap is None else dmasked * (1 - mx.square(scores / softcap))
            dq_block = dscores @ k[:, :, columns].astype(mx.float32)
            dq[rows.start] = dq[rows.start] + dq_block
            dk_block = dk_block + mx.swapaxes(dscores, -1, -2) @ _fold(q_seeing, rows)
            dv_block = dv_block + mx.swapaxes(weights, -1, -2) @ d_rows
            done = [dq[rows.start], dk_block, dv_block]
            done += dmask.add(_unfold(dmasked, rows.stop - rows.start), rows, columns)
        dk.append(dk_block)
        dv.append(dv_block)

    dq_all = mx.concatenate(
        [_unfold(dq[rows.start], rows.stop - rows.start) for rows in blocks.rows], axis=3
    )
    dq_all = dq_all * sees
    dsinks = None
    if sinks is not None:
        dsinks = mx.sum(mx.exp(sinks[None, :, :, None, None] - row_max) * shift, axis=(0, 3, 4))
    dk_all, dv_all = mx.concatenate(dk, axis=2), mx.concatenate(dv, axis=2)
    return Arrays(dq_all, dk_all, dv_all, dmask.result(), dsinks)


class _MaskGradient:
    """Sums the gradients of the scores over the axes along which an additive mask was broadcast."""

    def __init__(self, mask: mx.array | None) -> None:
        self._shape = None if mask is None or mask.dtype == mx.bool_ else mask.shape
        self._parts: dict[tuple[int, int], mx.array] = {}

    def add(self, dscores: mx.array, rows: slice, columns: slice) -> list[mx.array]:
        """Takes the part of one block, [B, H_kv, G, rows, columns]; returns what it was added
        to."""
        if self._shape is None:
            return []
        part = mx.sum(
            dscores, axis=[axis for axis in range(5) if self._shape[axis] == 1], keepdims=True
        )
        key = (rows.start if self._shape[3] > 1 else 0, columns.start if self._shape[4] > 1 else 0)
        self._parts[key] = self._parts[key] + part if key in self._parts else part
        return [self._parts[key]]

    def result(self) -> mx.array | None:
        """The gradient in the mask's own 5 axes, or None where there is no additive mask."""
        if self._shape is None:
            return None
        starts = sorted({row for row, _ in self._parts})
        bands = [
            [part for (row, _), part in sorted(self._parts.items()) if row == start]
            for start in starts
        ]
        return mx.concatenate([mx.concatenate(band, axis=4) for band in bands], axis=3)


def _masked(
    scores: mx.array, mask: mx.array | None, blocks: Blocks, rows: slice, columns: slice
) -> mx.array:
    """The masked scores of one block, [B, H_kv, G * rows, columns]."""
    block = blocks.visible(rows, columns)
    if mask is not None:
        all_of = slice(None)
        block = mask[
            ..., rows if mask.shape[3] > 1 else all_of, columns if mask.shape[4] > 1 else all_of
        ]
    if block is None:
        return scores
    scores = _unfold(scores, rows.stop - rows.start)
    return mx.flatten(masked(scores, block), 2, 3)


def _fold(x: mx.array, rows: slice) -> mx.array:
    """The rows of one block, the query heads of a key head one below the other: [B, H_kv, G *
    rows, ...]."""
    return mx.flatten(x[:, :, :, rows], 2, 3)


def _unfold(x: mx.array, length: int) -> mx.array:
    return mx.unflatten(x, 2, (-1, length))


def _transposed(x: mx.array, columns: slice) -> mx.array:
    """One block of keys or values as [B, H_kv, D, columns], in float32."""
    # The BLAS of MLX's CPU wheel takes the product with a transposed copy faster than with a
    # transposed view.
    return mx.contiguous(mx.swapaxes(x[:, :, columns].astype(mx.float32), -1, -2))
