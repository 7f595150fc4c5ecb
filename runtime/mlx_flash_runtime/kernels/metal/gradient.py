"""The Metal kernels of the gradient, and their launch: see `gradient.metal`. One makes that of the
queries, the other those of keys and values: neither adds to what another threadgroup does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...ops.derivatives import of_sinks
from ...problem import Problem
from . import steel
from .intervals import keys_of_queries, queries_of_keys

HERE = Path(__file__).parent
# Rows and threads of a threadgroup, as in gradient.metal.
_ROWS, _THREADS = 32, 128
# Columns of a tile: half as many where both sides' rows leave a lane few registers.
_COLUMNS = 32
_LARGE_HEAD_DIM = 128
_LOG2E = math.log2(math.e)

_BEFORE = """
  threadgroup T scored[COLUMNS * flash::stride<T>(D)];
  threadgroup T weighted[COLUMNS * flash::stride<T>(DV)];
  const int queries = Q_shape[2], keys = K_shape[2];
  const int heads = Q_shape[1], key_heads = K_shape[1], group = heads / key_heads;
  const int batch = threadgroup_position_in_grid.z, own_head = threadgroup_position_in_grid.y;
  const short2 at = BaseMMAFrag<float, 8, 8>::get_coord(thread_index_in_simdgroup);
  const flash::Lane lane = {
      at, ushort(simdgroup_index_in_threadgroup), ushort(thread_index_in_simdgroup)};
  const int block = threadgroup_position_in_grid.x * flash::ROWS;
  const int row = block + 8 * lane.simdgroup + at.y;
  const int last_row = metal::min(block + flash::ROWS, OF_KEYS ? keys : queries) - 1;
  const flash::Seen seen = {row <= last_row ? first[row] : 0, row <= last_row ? last[row] : -1};
  const flash::Tiles<T> tiles = {
      scored, weighted, first[block] / COLUMNS,
      (last[last_row] + COLUMNS) / COLUMNS};  // no tile where no row sees any
  const flash::Scores scores = {factor[0] * M_LOG2E_F, factor[1] * M_LOG2E_F};
  flash::Held<T, D> own_scored;
  flash::Held<T, DV> own_weighted;
  flash::Sums<D> scored_sums;
  flash::Sums<DV> weighted_sums;
  scored_sums.clear();
"""
_OF_QUERIES = """
  const int64_t head = int64_t(batch) * heads + own_head;
  const int64_t key_head = int64_t(batch) * key_heads + own_head / group;
  const int64_t result = int64_t(batch) * queries * heads + own_head;
  flash::hold<D>(own_scored, {Q + head * queries * D, D}, row, queries, at);
  flash::hold<DV>(own_weighted, {d_out + result * DV, heads * DV}, row, queries, at);
  flash::Held<T, DV> own_out;
  flash::hold<DV>(own_out, {out + result * DV, heads * DV}, row, queries, at);
  flash::OfRow state = {{row <= last_row ? logsumexp[head * queries + row] : 0, 0}};
  flash::add_products<DV>(state.state.delta, own_out, own_weighted);
  if (at.x == 0 && row <= last_row) delta[head * queries + row] = state.state.delta;
  const flash::Side<T> columns = {
      {K + key_head * keys * D, D}, {V + key_head * keys * DV, DV}, keys};
  flash::over_tiles<OF_KEYS, SOFTCAP, COLUMNS, D, DV>(
      scored_sums, weighted_sums, own_scored, own_weighted, columns, tiles, seen,
      scores, state, lane);
  flash::store<D>(scored_sums, factor[0], dq + result * D, heads * D, row, queries, at);
"""
_OF_KEYS = """
  weighted_sums.clear();
  const int64_t key_head = int64_t(batch) * key_heads + own_head;
  flash::hold<D>(own_scored, {K + key_head * keys * D, D}, row, keys, at);
  flash::hold<DV>(own_weighted, {V + key_head * keys * DV, DV}, row, keys, at);
  for (int i = 0; i < group; ++i) {
    const int64_t head = int64_t(batch) * heads + own_head * group + i;
    const int64_t result = int64_t(batch) * queries * heads + own_head * group + i;
    const flash::Side<T> columns = {
        {Q + head * queries * D, D}, {d_out + result * DV, heads * DV}, queries};
    const flash::OfColumns states = {logsumexp + head * queries, delta + head * queries};
    flash::over_tiles<OF_KEYS, SOFTCAP, COLUMNS, D, DV>(
        scored_sums, weighted_sums, own_scored, own_weighted, columns, tiles, seen,
        scores, states, lane);
  }
  const int64_t result = int64_t(batch) * keys * key_heads + own_head;
  flash::store<D>(scored_sums, factor[0], dk + result * D, key_heads * D, row, keys, at);
  flash::store<DV>(weighted_sums, 1, dv + result * DV, key_heads * DV, row, keys, at);
"""


def why_not(problem: Problem) -> str:
    """Why there are no such kernels for a problem that `tile_skipping` takes; empty where there
    are."""
    if problem.visible is None:
        return "its gradient is for masks that are known by what they say"
    if max(problem.head_dim, problem.value_head_dim) > _LARGE_HEAD_DIM:
        return "its gradient is for head dims up to 128"
    return ""


def gradients(
    problem: Problem,
    arrays: Sequence[mx.array],
    outputs: Sequence[mx.array],
    cotangent: mx.array,
) -> list[mx.array]:
    """Those of q, k, v, in the type of the problem, then of the sinks if any, in float32.

    `arrays` and `outputs` are those of `tile_skipping.attention` for the same problem, in training;
    `cotangent` is that of the attention, `[B, H, L, D_v]`.
    """
    p, dtype = problem, getattr(mx, problem.dtype)
    q, k, v, factor, *sinks = arrays
    out, logsumexp = outputs
    # Results, and what comes back for them, lie with the heads of a position side by side.
    out, d_out = (x.astype(dtype).swapaxes(1, 2) for x in (out, cotangent))
    template = [
        ("T", dtype),
        ("D", p.head_dim),
        ("DV", p.value_head_dim),
        ("COLUMNS", _COLUMNS // 2 if p.head_dim == _LARGE_HEAD_DIM else _COLUMNS),
        ("SOFTCAP", p.softcap is not None),
    ]
    dq, delta = _of_queries()(
        inputs=[q, k, v, out, d_out, logsumexp, factor, *keys_of_queries(p)],
        template=[*template, ("OF_KEYS", False)],
        output_shapes=[q.swapaxes(1, 2).shape, logsumexp.shape],
        output_dtypes=[dtype, mx.float32],
        grid=(_blocks(p.query_length) * _THREADS, p.query_heads, p.batch),
        threadgroup=(_THREADS, 1, 1),
    )
    dk, dv = _of_keys()(
        inputs=[q, k, v, d_out, logsumexp, delta, factor, *queries_of_keys(p)],
        template=[*template, ("OF_KEYS", True)],
        output_shapes=[x.swapaxes(1, 2).shape for x in (k, v)],
        output_dtypes=[dtype, dtype],
        grid=(_blocks(p.key_length) * _THREADS, p.key_heads, p.batch),
        threadgroup=(_THREADS, 1, 1),
    )
    found = [x.swapaxes(1, 2) for x in (dq, dk, dv)]
    if p.sinks:
        found.append(of_sinks(sinks[0], logsumexp * _LOG2E, delta))
    return found


def _blocks(rows: int) -> int:
    return -(-rows // _ROWS)


@lru_cache(maxsize=1)
def _of_queries() -> Any:
    names = ["Q", "K", "V", "out", "d_out", "logsumexp", "factor", "first", "last"]
    return _kernel("queries", names, ["dq", "delta"], _OF_QUERIES)


@lru_cache(maxsize=1)
def _of_keys() -> Any:
    names = ["Q", "K", "V", "d_out", "logsumexp", "delta", "factor", "first", "last"]
    return _kernel("keys", names, ["dk", "dv"], _OF_KEYS)


def _kernel(name: str, inputs: list[str], outputs: list[str], body: str) -> Any:
    return mx.fast.metal_kernel(
        name=f"flash_gradient_of_{name}",
        input_names=inputs,
        output_names=outputs,
        source=_BEFORE + body,
        header=steel.text().header + _text(),
    )


@lru_cache(maxsize=1)
def _text() -> str:
    return (HERE / "gradient.metal").read_text(encoding="utf-8")
