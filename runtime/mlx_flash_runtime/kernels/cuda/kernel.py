"""The CUDA kernel for one kind of problem, and its launch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx

from ...environment import private_files
from ...environment.log import logger
from ...problem import MaskKind, Problem
from . import cache
from .nvrtc import CompileError
from .source import Input, Source
from .tiles import tiles

MASKS: dict[MaskKind, str] = {
    "none": "NONE",
    "causal": "CAUSAL",
    "window": "WINDOW",
    "prefix": "BOOLEAN",
    "bool": "BOOLEAN",
    "additive": "ADDITIVE",
}
_TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}

_BODY = """
  const int head = blockIdx.y, batch = blockIdx.z, key_head = head / (q_shape[1] / k_shape[1]);
  flash::attention<{type}, {head_dim}, {value_head_dim}, {consumers}, {keys}, flash::{mask}>(
      flash::Rows<{type}>{{q + batch * q_strides[0] + head * q_strides[1],
                           q_strides[2], q_strides[3]}},
      flash::Rows<{type}>{{k + batch * k_strides[0] + key_head * k_strides[1],
                           k_strides[2], k_strides[3]}},
      flash::Rows<{type}>{{v + batch * v_strides[0] + key_head * v_strides[1],
                           v_strides[2], v_strides[3]}},
      flash::Mask<{mask_type}>{{{window}, {mask_array}}}, {sink}, *scale, q_shape[2], k_shape[2],
      out + (int64_t(batch) * q_shape[1] + head) * q_shape[2] * {value_head_dim});
"""
_MASK_ARRAY = (
    "mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]"
)
_NO_MASK_ARRAY = "nullptr, 0, 0"


def attention(
    problem: Problem, capability: tuple[int, int], arrays: Sequence[mx.array]
) -> mx.array:
    """The kernel on a GPU of that compute capability, `[B, H, L, D_v]`: a mask of the kinds in
    MASKS; it has no gradient and no vmap of its own.

    `arrays` are q, k, v, the scale as `[1]` in float32, then mask and sinks if any.
    """
    cut = tiles(problem, capability)
    assert cut is not None
    q, k, v, scale, *rest = arrays
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    inputs = [q.astype(dtype), k.astype(dtype), v.astype(dtype), scale]
    if _reads_mask(problem):
        mask = rest[0].astype(dtype) if problem.mask == "additive" else rest[0]
        inputs.append(mx.broadcast_to(mask, (*q.shape[:3], problem.key_length)))
    if problem.sinks:
        inputs.append(rest[-1].astype(mx.float32))
    blocks = -(-problem.query_length // cut.queries)
    (out,) = _kernel(source_of(problem, capability), cut.memory)(
        inputs=inputs,
        output_shapes=[(*q.shape[:3], problem.value_head_dim)],
        output_dtypes=[dtype],
        grid=(blocks * cut.threads, problem.query_heads, problem.batch),
        threadgroup=(cut.threads, 1, 1),
    )
    return out  # type: ignore[no-any-return]  # typed in MLX's stubs as an object


def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether the kernel for `problem`, which has `tiles`, compiles here; it is compiled, unless
    it was before. The first time that it does not, a warning says why."""
    return _is_there(source_of(problem, capability))


def source_of(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel for `problem`, which has `tiles`: type, head dims, the kind of mask and a window
    are compiled in, the other sizes not."""
    cut = tiles(problem, capability)
    assert cut is not None
    type = _TYPES[problem.dtype]
    mask_type = type if problem.mask == "additive" else "bool"
    inputs = [Input("q", type), Input("k", type), Input("v", type), Input("scale", "float")]
    if _reads_mask(problem):
        inputs.append(Input("mask", mask_type))
    if problem.sinks:
        inputs.append(Input("sinks", "float"))
    body = _BODY.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        consumers=cut.consumers,
        keys=cut.keys,
        mask=MASKS[problem.mask],
        mask_type=mask_type,
        window=problem.window or 0,
        mask_array=_MASK_ARRAY if _reads_mask(problem) else _NO_MASK_ARRAY,
        sink="sinks + head" if problem.sinks else "nullptr",
    )
    return Source(
        "flash_attention",
        capability,
        tuple(inputs),
        type,
        body,
        cut.header,
        (cut.threads, cut.resident),
    )


def _reads_mask(problem: Problem) -> bool:
    return problem.has_array_mask and problem.mask != "window"


@lru_cache(maxsize=256)
def _kernel(source: Source, memory: int) -> Any:
    _is_there(source)
    return source.kernel(ensure_row_contiguous=False, shared_memory=memory)


@lru_cache(maxsize=256)
def _is_there(source: Source) -> bool:
    try:
        cache.put(source)
    except CompileError as error:
        logger.warning(
            "flash attention: MLX's own attention, as the CUDA kernel does not compile: %s", error
        )
        return False
    except private_files.NotPrivate as error:
        logger.warning(
            "flash attention: MLX's own attention, as its folder for kernels is not used: %s", error
        )
        return False
    except OSError as error:
        logger.warning(
            "flash attention: MLX compiles the CUDA kernel itself, which takes it seconds: %s",
            error,
        )
    return True
