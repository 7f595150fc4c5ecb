"""MLX's own kernel for many queries, which skips the keys that a window, packed documents, a prefix
or a bool mask hide: see `steel`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from ...problem import Problem
from . import gradient, mask_tiles, steel
from .intervals import keys_of_queries

# Queries and keys of a block, simdgroups of a threadgroup: as MLX has them.
BLOCK = 32
_SIMDGROUPS, _LANES = 4, 32
_THREADGROUP_BYTES = 2**15
_LARGE_HEAD_DIM = 128

# For which MLX has its kernel, too, and those of DeepSeek's prefill.
HEAD_DIMS = {(64, 64), (72, 72), (80, 80), (96, 96), (128, 128), (96, 64), (192, 128)}

_BEFORE = """
  using MaskType = bool;
  using AccumType = float;
  constexpr int WM = {simdgroups}, WN = 1;
  constexpr bool do_causal = false, save_lse = {save_lse};
  constexpr bool has_mask = {has_mask}, has_sinks = {has_sinks};
  const uint simd_lane_id = thread_index_in_simdgroup;
  const uint simd_group_id = simdgroup_index_in_threadgroup;
  const uint3 tid = threadgroup_position_in_grid;
  const uint3 lid = thread_position_in_threadgroup;
  {no_lse}
  {no_mask}
  {no_sinks}
  AttnMaskParams own_mask_params;
  {mask_strides}
  const thread AttnMaskParams* mask_params = &own_mask_params;
  AttnParams own_params;
  own_params.B = Q_shape[0];
  own_params.H = Q_shape[1];
  own_params.D = BD;
  own_params.qL = Q_shape[2];
  own_params.kL = K_shape[2];
  own_params.gqa_factor = Q_shape[1] / K_shape[1];
  own_params.scale = factor[0];
  own_params.NQ = (own_params.qL + BQ - 1) / BQ;
  own_params.NK = (own_params.kL + BK - 1) / BK;
  own_params.NQ_aligned = own_params.qL / BQ;
  own_params.NK_aligned = own_params.kL / BK;
  own_params.qL_rem = own_params.qL % BQ;
  own_params.kL_rem = own_params.kL % BK;
  own_params.qL_off = own_params.kL - own_params.qL;
  own_params.Q_strides[2] = BD;
  own_params.K_strides[2] = BD;
  own_params.V_strides[2] = BV;
  own_params.O_strides[2] = int64_t(own_params.H) * BV;
  own_params.Q_strides[1] = int64_t(own_params.qL) * BD;
  own_params.K_strides[1] = int64_t(own_params.kL) * BD;
  own_params.V_strides[1] = int64_t(own_params.kL) * BV;
  own_params.O_strides[1] = BV;
  own_params.Q_strides[0] = Q_shape[1] * own_params.Q_strides[1];
  own_params.K_strides[0] = K_shape[1] * own_params.K_strides[1];
  own_params.V_strides[0] = K_shape[1] * own_params.V_strides[1];
  own_params.O_strides[0] = own_params.qL * own_params.O_strides[2];
  const thread AttnParams* params = &own_params;
"""
_MASK_STRIDES = """
  own_mask_params.M_strides[2] = mask_shape[3];
  own_mask_params.M_strides[1] = mask_shape[1] == 1 ? 0 : int64_t(mask_shape[2]) * mask_shape[3];
  own_mask_params.M_strides[0] =
      mask_shape[0] == 1 ? 0 : int64_t(mask_shape[1]) * mask_shape[2] * mask_shape[3];
"""


def keys_of_block(head_dim: int) -> int:
    """The keys that a threadgroup takes at once, as in MLX."""
    return BLOCK if head_dim < _LARGE_HEAD_DIM else BLOCK // 2


def why_not(problem: Problem) -> str:
    """Why the kernel is not for a problem; empty where it is. Reads MLX's headers."""
    if problem.query_length > problem.key_length:
        return "it is for as many keys as queries or more"
    if problem.visible is None and problem.mask != "bool":
        return "its mask is not known by what it says"
    if (problem.head_dim, problem.value_head_dim) not in HEAD_DIMS:
        return "it is for other head dims"
    if _memory(problem) > _THREADGROUP_BYTES:
        return "a threadgroup's memory is too small for this head dim in float32"
    if problem.training and (why := gradient.why_not(problem)):
        return why
    try:
        steel.text()
    except steel.Unknown as error:
        return str(error)
    return ""


def _memory(problem: Problem) -> int:
    """Bytes of a threadgroup's memory: `Q_smem` and `KV_smem`."""
    pad, keys = 16 // problem.item_bytes, keys_of_block(problem.head_dim)
    queries = BLOCK * (problem.head_dim + pad)
    both = (keys + pad) * problem.head_dim, keys * (problem.value_head_dim + pad)
    return problem.item_bytes * (queries + max(both))


def reads_mask(problem: Problem) -> bool:
    """Whether the mask is an array for the kernel, too."""
    return problem.mask == "bool"


def attention(problem: Problem, arrays: Sequence[mx.array]) -> list[mx.array]:
    """The kernel, `[B, H, L, D_v]`, for problems that `why_not` has nothing against, in training
    also each query's logsumexp, `[B, H, L]` in float32; it has no vmap of its own.

    `arrays` are q, k, v, the scale and the softcap as `[2]` in float32, then the mask where it is
    read, `[B or 1, H or 1, L, S]`, and sinks if any.
    """
    p, dtype = problem, getattr(mx, problem.dtype)
    q, k, v, factor, *rest = arrays
    keys = keys_of_block(p.head_dim)
    if reads_mask(p):
        mask, *sinks = rest
        said = [mask, mask_tiles.of(mask, BLOCK, keys)]
    else:
        said, sinks = [*keys_of_queries(p)], rest
    threads = _SIMDGROUPS * _LANES
    blocks = -(-p.query_length // BLOCK)
    # As MLX's own lie: models go on with the heads of a position side by side, without a copy.
    shapes: list[tuple[int, ...]] = [(p.batch, p.query_length, p.query_heads, p.value_head_dim)]
    dtypes = [dtype]
    if p.training:
        shapes.append((p.batch, p.query_heads, p.query_length))
        dtypes.append(mx.float32)
    out, *logsumexp = _kernel(reads_mask(p), p.sinks, p.training)(
        inputs=[q, k, v, factor, *said, *(one.astype(dtype) for one in sinks)],
        template=[
            ("T", dtype),
            ("BQ", BLOCK),
            ("BK", keys),
            ("BD", p.head_dim),
            ("BV", p.value_head_dim),
            ("align_Q", p.query_length % BLOCK == 0),
            ("align_K", p.key_length % keys == 0),
            ("SOFTCAP", p.softcap is not None),
        ],
        output_shapes=shapes,
        output_dtypes=dtypes,
        grid=(blocks * threads, p.query_heads, p.batch),
        threadgroup=(threads, 1, 1),
    )
    return [out.swapaxes(1, 2), *logsumexp]


@lru_cache(maxsize=6)
def _kernel(masked: bool, sinks: bool, training: bool) -> Any:
    kernel = steel.text(by_tiles=masked)
    before = _BEFORE.format(
        simdgroups=_SIMDGROUPS,
        has_mask=str(masked).lower(),
        no_mask="" if masked else "const device bool* mask = nullptr;",
        mask_strides=_MASK_STRIDES if masked else "",
        has_sinks=str(sinks).lower(),
        save_lse=str(training).lower(),
        no_lse="" if training else "device float* lse = nullptr;",
        no_sinks="" if sinks else "const device T* sinks = Q;",
    )
    said = ["mask", "tiles"] if masked else ["first", "last"]
    kind = (
        f"{'_mask' if masked else ''}{'_sinks' if sinks else ''}{'_training' if training else ''}"
    )
    return mx.fast.metal_kernel(
        name=f"flash_tile_skipping{kind}",
        input_names=["Q", "K", "V", "factor", *said, *(["sinks"] if sinks else [])],
        output_names=["O", "lse"] if training else ["O"],
        source=before + kernel.body,
        header=kernel.header,
    )
