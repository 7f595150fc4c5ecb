"""The CUDA kernel for one kind of problem, and its launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import mlx.core as mx

from ...log import logger
from ...problem import Call, MaskKind, Problem
from . import cache
from .nvrtc import CompileError
from .source import Input, Source

MASKS: dict[MaskKind, str] = {"none": "NONE", "causal": "CAUSAL", "bool": "BOOLEAN", "additive": "ADDITIVE"}
_TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}

# Shared memory that every GPU of compute capability 8.0 and later gives to one block of threads.
_SHARED_MEMORY = 99 * 1024
_QUERIES = 16  # of one warp, as in products.cuh
_WARPS = 8
_KEYS = 32

_BODY = """
  const int head = blockIdx.y, batch = blockIdx.z, key_head = head / (q_shape[1] / k_shape[1]);
  flash::attention<{type}, {head_dim}, {value_head_dim}, {warps}, {keys}, flash::{mask}>(
      flash::Rows<{type}>{{q + batch * q_strides[0] + head * q_strides[1], q_strides[2], q_strides[3]}},
      flash::Rows<{type}>{{k + batch * k_strides[0] + key_head * k_strides[1], k_strides[2], k_strides[3]}},
      flash::Rows<{type}>{{v + batch * v_strides[0] + key_head * v_strides[1], v_strides[2], v_strides[3]}},
      flash::MaskArray<{mask_type}>{mask_array}, {sink}, *scale, q_shape[2], k_shape[2],
      out + (int64_t(batch) * q_shape[1] + head) * q_shape[2] * {value_head_dim});
"""
_MASK_ARRAY = "{mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]}"
_NO_MASK_ARRAY = "{nullptr, 0, 0}"


class Tiles(NamedTuple):
    """What a block of threads has in shared memory: 16 queries for each of its warps, and so many keys."""

    warps: int
    keys: int

    def memory(self, problem: Problem) -> int:
        """Bytes of queries, keys and values; rows are padded to whole products of 32 bytes, and by 16 bytes."""
        qk_row, v_row = (
            -(-dim * problem.item_bytes // 32) * 32 + 16 for dim in (problem.head_dim, problem.value_head_dim)
        )
        return (_QUERIES * self.warps + self.keys) * qk_row + self.keys * v_row


def tiles(problem: Problem) -> Tiles | None:
    """Those that fit, and are the fastest by measurement on an H200; None where none fit."""
    row = problem.item_bytes * max(problem.head_dim, problem.value_head_dim)
    few = problem.query_length <= _QUERIES * _WARPS // 2
    if problem.item_bytes == 2 and row <= 256:
        return Tiles(_WARPS // 2 if few or row > 128 else _WARPS, 2 * _KEYS)
    candidates = (
        Tiles(_WARPS // 2 if few else _WARPS, _KEYS),
        *(Tiles(_WARPS // 2, keys) for keys in (_KEYS, _KEYS // 2)),
    )
    return next((one for one in candidates if one.memory(problem) <= _SHARED_MEMORY), None)


def attention(call: Call, capability: tuple[int, int]) -> mx.array:
    """The call by the kernel on a GPU of that compute capability, `[B, H, L, D_v]`: a mask of the kinds in MASKS, q, k,
    v of one type; it has no gradient and no vmap of its own."""
    problem = call.problem
    cut = tiles(problem)
    assert cut is not None
    inputs = [call.q, call.k, call.v, _scale(call.scale)]
    if call.mask is not None:
        mask = call.mask if problem.mask == "bool" else call.mask.astype(call.q.dtype)
        inputs.append(mx.broadcast_to(mask, (*call.q.shape[:3], problem.key_length)))
    if call.sinks is not None:
        inputs.append(call.sinks.astype(mx.float32))
    blocks = -(-problem.query_length // (_QUERIES * cut.warps))
    (out,) = _kernel(source_of(problem, capability), cut.memory(problem))(
        inputs=inputs,
        output_shapes=[(*call.q.shape[:3], problem.value_head_dim)],
        output_dtypes=[call.q.dtype],
        grid=(blocks * 32 * cut.warps, problem.query_heads, problem.batch),
        threadgroup=(32 * cut.warps, 1, 1),
    )
    return out  # type: ignore[no-any-return]  # typed in MLX's stubs as an object


def source_of(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel for `problem`, which has `tiles`: type, head dims and mask are compiled in, the other sizes not."""
    cut = tiles(problem)
    assert cut is not None
    type = _TYPES[problem.dtype]
    mask_type = type if problem.mask == "additive" else "bool"
    inputs = [Input("q", type), Input("k", type), Input("v", type), Input("scale", "float")]
    if problem.has_array_mask:
        inputs.append(Input("mask", mask_type))
    if problem.sinks:
        inputs.append(Input("sinks", "float"))
    body = _BODY.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        warps=cut.warps,
        keys=cut.keys,
        mask=MASKS[problem.mask],
        mask_type=mask_type,
        mask_array=_MASK_ARRAY if problem.has_array_mask else _NO_MASK_ARRAY,
        sink="sinks + head" if problem.sinks else "nullptr",
    )
    # Two blocks of 8 warps at once on a multiprocessor, where that is just missed otherwise.
    registers = 128 if problem.item_bytes == 4 and 64 < problem.head_dim <= 128 else None
    return Source("flash_attention", capability, tuple(inputs), type, body, registers)


@lru_cache(maxsize=64)
def _scale(scale: float) -> mx.array:
    array = mx.array([scale], mx.float32)
    mx.eval(array)
    return array


@lru_cache(maxsize=256)
def _kernel(source: Source, memory: int) -> Any:
    try:
        cache.put(source)
    except (CompileError, OSError) as error:
        logger.warning("flash attention: MLX compiles the CUDA kernel itself, which takes it seconds: %s", error)
    return source.kernel(ensure_row_contiguous=False, shared_memory=memory)
