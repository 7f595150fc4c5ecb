"""The CUDA kernel for one kind of problem, and its launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx

from ...environment import private_files
from ...environment.log import logger
from ...problem import MaskKind, Problem
from . import cache
from .nvrtc import CompileError
from .source import Array, Source
from .tiles import tiles

MASKS: dict[MaskKind, str] = {
    "none": "NONE",
    "causal": "CAUSAL",
    "window": "WINDOW",
    "prefix": "BOOLEAN",
    "bool": "BOOLEAN",
    "additive": "ADDITIVE",
}
TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}

# A kernel as a function of its `inputs`.
Launch = Callable[..., list[mx.array]]

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
      out + (int64_t(batch) * q_shape[1] + head) * q_shape[2] * {value_head_dim}, {logsumexp});
"""
MASK_ARRAY = (
    "mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]"
)
NO_MASK_ARRAY = "nullptr, 0, 0"
_LOGSUMEXP = "logsumexp + (int64_t(batch) * q_shape[1] + head) * q_shape[2]"


def attention(
    problem: Problem, capability: tuple[int, int], arrays: Sequence[mx.array]
) -> list[mx.array]:
    """The kernel on a GPU of that compute capability, `[B, H, L, D_v]`: a mask of the kinds in
    MASKS; it has no gradient and no vmap of its own. In training also what the gradient needs, the
    logarithm to base two of the sum of each query's weights, `[B, H, L]` in float32.

    `arrays` are q, k, v, the scale as `[1]` in float32, then mask and sinks if any.
    """
    inputs = typed(problem, arrays)
    if problem.sinks:
        inputs.append(arrays[-1].astype(mx.float32))
    return _launch(problem, capability)(inputs=inputs)


@lru_cache(maxsize=256)  # what it is made of takes as long as a short call
def _launch(problem: Problem, capability: tuple[int, int]) -> Launch:
    cut = tiles(problem, capability)
    assert cut is not None
    rows = problem.batch, problem.query_heads, problem.query_length
    shapes: list[tuple[int, ...]] = [(*rows, problem.value_head_dim)]
    dtypes: list[mx.Dtype] = [getattr(mx, problem.dtype)]
    if problem.training:
        shapes.append(rows)
        dtypes.append(mx.float32)
    blocks = -(-problem.query_length // cut.queries)
    return partial(
        launched(source_of(problem, capability), cut.memory),
        output_shapes=shapes,
        output_dtypes=dtypes,
        grid=(blocks * cut.threads, problem.query_heads, problem.batch),
        threadgroup=(cut.threads, 1, 1),
    )


def typed(problem: Problem, arrays: Sequence[mx.array]) -> list[mx.array]:
    """q, k, v, the scale and the mask, if the kernel reads one, as it takes them: of one type, the
    mask of all axes. What follows in `arrays` is left out."""
    q, k, v, scale, *rest = arrays
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    inputs = [q.astype(dtype), k.astype(dtype), v.astype(dtype), scale]
    if reads_mask(problem):
        mask = rest[0].astype(dtype) if problem.mask == "additive" else rest[0]
        inputs.append(mx.broadcast_to(mask, (*q.shape[:3], problem.key_length)))
    return inputs


@lru_cache(maxsize=256)
def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether the kernel for `problem`, which has `tiles`, compiles here; it is compiled, unless
    it was before. The first time that it does not, a warning says why."""
    return compiles(source_of(problem, capability))


def source_of(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel for `problem`, which has `tiles`: type, head dims, the kind of mask and a window
    are compiled in, the other sizes not."""
    cut = tiles(problem, capability)
    assert cut is not None
    type = TYPES[problem.dtype]
    inputs = input_arrays(problem)
    if problem.sinks:
        inputs.append(Array("sinks", "float"))
    outputs = [Array("out", type)]
    if problem.training:
        outputs.append(Array("logsumexp", "float"))
    body = _BODY.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        consumers=cut.consumers,
        keys=cut.keys,
        mask=MASKS[problem.mask],
        mask_type=mask_type(problem),
        window=problem.window or 0,
        mask_array=MASK_ARRAY if reads_mask(problem) else NO_MASK_ARRAY,
        sink="sinks + head" if problem.sinks else "nullptr",
        logsumexp=_LOGSUMEXP if problem.training else "nullptr",
    )
    return Source(
        "flash_attention",
        capability,
        tuple(inputs),
        tuple(outputs),
        body,
        cut.header,
        (cut.threads, cut.resident),
    )


def input_arrays(problem: Problem) -> list[Array]:
    """What `typed` gives, as a kernel declares it."""
    type = TYPES[problem.dtype]
    inputs = [Array("q", type), Array("k", type), Array("v", type), Array("scale", "float")]
    if reads_mask(problem):
        inputs.append(Array("mask", mask_type(problem)))
    return inputs


def mask_type(problem: Problem) -> str:
    """The type of a mask's elements in CUDA."""
    return TYPES[problem.dtype] if problem.mask == "additive" else "bool"


def reads_mask(problem: Problem) -> bool:
    """Whether the mask is an array for the kernel, too."""
    return problem.has_array_mask and problem.mask != "window"


@lru_cache(maxsize=256)
def launched(source: Source, memory: int) -> Any:
    """The kernel, compiled, with so many bytes of shared memory: its launch, as a function of the
    options of `mx.fast.cuda_kernel`."""
    compiles(source)
    return source.kernel(ensure_row_contiguous=False, shared_memory=memory)


@lru_cache(maxsize=256)
def compiles(source: Source) -> bool:
    """Whether it does, here; it is compiled, unless it was before. The first time that it does not,
    a warning says why."""
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
