"""The CUDA kernel for one kind of problem, and its launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

from ...log import logger
from ...problem import Call, Device, MaskKind, Problem
from . import cache
from .nvrtc import CompileError
from .source import Input, Source
from .tiles import tiles

_MASKS: dict[MaskKind, str] = {
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
  flash::attention<{type}, {head_dim}, {value_head_dim}, {groups}, {keys}, flash::{mask}>(
      flash::Rows<{type}>{{q + batch * q_strides[0] + head * q_strides[1], q_strides[2], q_strides[3]}},
      flash::Rows<{type}>{{k + batch * k_strides[0] + key_head * k_strides[1], k_strides[2], k_strides[3]}},
      flash::Rows<{type}>{{v + batch * v_strides[0] + key_head * v_strides[1], v_strides[2], v_strides[3]}},
      flash::Mask<{mask_type}>{{{window}, {mask_array}}}, {sink}, *scale, q_shape[2], k_shape[2],
      out + (int64_t(batch) * q_shape[1] + head) * q_shape[2] * {value_head_dim});
"""
_MASK_ARRAY = "mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]"
_NO_MASK_ARRAY = "nullptr, 0, 0"

_CAPABILITY = (8, 0)  # of the first GPUs with these tensor core instructions
_LARGEST_HEAD_DIM = 256
# Fewer queries would leave most of a product's rows empty; MLX has kernels for matrices times vectors.
_FEWEST_QUERIES = 9
# float32 rows in steps of this: where MLX's own products are not TF32 ones, ours must not be either.
_TF32_STEP = 8


def refusal(problem: Problem, device: Device) -> str:
    """Why the kernel cannot run `problem` on `device`, in a phrase; empty where it can."""
    if device.backend != "cuda":
        return "it is a kernel for CUDA"
    if device.capability < _CAPABILITY:
        return "this GPU has no tensor cores of the kind that the CUDA kernel uses"
    if not device.own_kernel:
        return "the CUDA kernel cannot be compiled here (mlx-flash doctor says why)"
    if problem.training:
        return "the CUDA kernel has no gradient"
    if problem.softcap is not None or problem.mask not in _MASKS:
        return "the CUDA kernel has no such mask or softcap"
    if problem.mask == "window" and problem.query_length > problem.key_length:
        return "its window starts before the first key"
    if problem.query_length < _FEWEST_QUERIES:
        return "the CUDA kernel is one for many queries"
    in_steps = problem.head_dim % _TF32_STEP == problem.value_head_dim % _TF32_STEP == 0
    if problem.dtype == "float32" and not (device.tf32 and in_steps):
        return "the CUDA kernel's TF32 products are less exact than MLX's for it"
    largest = max(problem.head_dim, problem.value_head_dim)
    if largest > _LARGEST_HEAD_DIM or tiles(problem, device.capability) is None:
        return "its head dim is too large for the CUDA kernel"
    return ""


def attention(call: Call, capability: tuple[int, int]) -> mx.array:
    """The call by the kernel on a GPU of that compute capability, `[B, H, L, D_v]`: one that it does not refuse, with
    q, k, v of one type; it has no gradient and no vmap of its own."""
    problem = call.problem
    cut = tiles(problem, capability)
    assert cut is not None
    inputs = [call.q, call.k, call.v, _scale(call.scale)]
    if _reads_mask(problem):
        assert call.mask is not None
        mask = call.mask.astype(call.q.dtype) if problem.mask == "additive" else call.mask
        inputs.append(mx.broadcast_to(mask, (*call.q.shape[:3], problem.key_length)))
    if call.sinks is not None:
        inputs.append(call.sinks.astype(mx.float32))
    blocks = -(-problem.query_length // cut.queries)
    (out,) = _kernel(source_of(problem, capability), cut.memory)(
        inputs=inputs,
        output_shapes=[(*call.q.shape[:3], problem.value_head_dim)],
        output_dtypes=[call.q.dtype],
        grid=(blocks * cut.threads, problem.query_heads, problem.batch),
        threadgroup=(cut.threads, 1, 1),
    )
    return out  # type: ignore[no-any-return]  # typed in MLX's stubs as an object


def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether the kernel for `problem`, which it does not refuse, compiles here; it is compiled, unless it was before.
    The first time that it is not, a warning says why."""
    return _is_there(source_of(problem, capability))


def source_of(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel for `problem`, which has `tiles`: type, head dims, the kind of mask and a window are compiled in, the
    other sizes not."""
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
        groups=cut.groups,
        keys=cut.keys,
        mask=_MASKS[problem.mask],
        mask_type=mask_type,
        window=problem.window or 0,
        mask_array=_MASK_ARRAY if _reads_mask(problem) else _NO_MASK_ARRAY,
        sink="sinks + head" if problem.sinks else "nullptr",
    )
    return Source("flash_attention", capability, tuple(inputs), type, body, cut.header, (cut.threads, cut.resident))


def _reads_mask(problem: Problem) -> bool:
    return problem.has_array_mask and problem.mask != "window"


@lru_cache(maxsize=64)
def _scale(scale: float) -> mx.array:
    array = mx.array([scale], mx.float32)
    mx.eval(array)
    return array


@lru_cache(maxsize=256)
def _kernel(source: Source, memory: int) -> Any:
    _is_there(source)
    return source.kernel(ensure_row_contiguous=False, shared_memory=memory)


@lru_cache(maxsize=256)
def _is_there(source: Source) -> bool:
    try:
        cache.put(source)
    except CompileError as error:
        logger.warning("flash attention: MLX's own attention, as the CUDA kernel does not compile: %s", error)
        return False
    except OSError as error:
        logger.warning("flash attention: MLX compiles the CUDA kernel itself, which takes it seconds: %s", error)
    return True
