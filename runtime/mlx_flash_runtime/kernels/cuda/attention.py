"""The CUDA kernel of many queries for one kind of problem, and its launch: `device/attention.cuh`
and `device/warpgroup_attention.cuh`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import mlx.core as mx

from ...problem import Problem
from ..rounding import ceil_div
from .arguments import MASKS, TYPES, declared, mask_array, mask_type, result_rows, typed
from .attention_tiles import Tiles, tiles_of
from .compiling.loading import Kernel, compiles, kernel_of
from .compiling.source import Array, Source

# A block of threads has queries of one head of one batch row, see `_launch`.
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
      flash::ResultRows<{type}>{{{out}}}, {logsumexp});
"""
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
    out, *logsumexp = _launch(problem, capability)(inputs=inputs)
    return [out.swapaxes(1, 2), *logsumexp]


@lru_cache(maxsize=256)
def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether the kernel for `problem`, which has tiles, compiles here; it is compiled, unless it
    was before. The first time that it does not, a warning says why."""
    return compiles(source_of(problem, capability))


@lru_cache(maxsize=256)  # what it is made of takes as long as a short call
def _launch(problem: Problem, capability: tuple[int, int]) -> Kernel:
    """The kernel with everything but its `inputs`."""
    p, tiles = problem, _tiles_of(problem, capability)
    shapes: list[tuple[int, ...]] = [(p.batch, p.query_length, p.query_heads, p.value_head_dim)]
    dtypes: list[mx.Dtype] = [getattr(mx, p.dtype)]
    if p.training:
        shapes.append((p.batch, p.query_heads, p.query_length))
        dtypes.append(mx.float32)
    blocks = ceil_div(p.query_length, tiles.queries)
    return partial(
        kernel_of(source_of(p, capability), tiles.shared_memory),
        output_shapes=shapes,
        output_dtypes=dtypes,
        grid=(blocks * tiles.threads, p.query_heads, p.batch),
        threadgroup=(tiles.threads, 1, 1),
    )


def source_of(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel for `problem`, which has tiles: type, head dims, the kind of mask and a window are
    compiled in, the other sizes not."""
    tiles = _tiles_of(problem, capability)
    type = TYPES[problem.dtype]
    inputs, outputs = declared(problem), [Array("out", type)]
    if problem.sinks:
        inputs.append(Array("sinks", "float"))
    if problem.training:
        outputs.append(Array("logsumexp", "float"))
    body = _BODY.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        consumers=tiles.consumers,
        keys=tiles.keys,
        mask=MASKS[problem.mask],
        mask_type=mask_type(problem),
        window=problem.window or 0,
        mask_array=mask_array(problem),
        out=result_rows("out", "q", "head", problem.value_head_dim),
        sink="sinks + head" if problem.sinks else "nullptr",
        logsumexp=_LOGSUMEXP if problem.training else "nullptr",
    )
    return Source(
        label="flash_attention",
        capability=capability,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        body=body,
        include=tiles.header,
        bounds=(tiles.threads, tiles.resident),
    )


def _tiles_of(problem: Problem, capability: tuple[int, int]) -> Tiles:
    """Those of a problem that has some."""
    tiles = tiles_of(problem, capability)
    assert tiles is not None
    return tiles
