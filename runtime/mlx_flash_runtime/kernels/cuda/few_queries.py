"""The CUDA kernel of few queries for one kind of problem, and its launch:
`device/few_queries.cuh`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import mlx.core as mx

from ...problem import Problem
from ..quantization import Bits
from ..rounding import ceil_div, rounded_up
from ..split_keys import rows_of, seen_keys, splits_of
from .arguments import (
    MASKS,
    TYPES,
    declared_mask,
    mask_array,
    mask_of_next_head,
    mask_type,
    reads_mask,
    typed_mask,
)
from .compiling.loading import Kernel, compiles, kernel_of
from .compiling.source import Array, Source
from .hardware import WARP, WARP_ROWS

# Dims of a step along keys and along values, as in device/few_queries.cuh and device/parts.cuh.
_KEY_DIMS, _VALUE_DIMS = 32, 64
# Steps along keys and values that a warp has registers for: 8 and 32 of a thread's for each step.
_KEY_STEPS, _VALUE_STEPS = 6, 2
# Warps that a multiprocessor has registers for, each thread 168 of 65,536.
_RESIDENT_WARPS = 12
# By measurement on an H200, as all that follows: warps of a block of threads; blocks that read as
# fast as its memory gives, half as many as it has multiprocessors (more of them are slower, with
# their results to put together); and the fewest keys for a warp.
_WARPS = 4
_BLOCKS = 64
_FEWEST_KEYS = 64
# So many queries fill products of a head of their own.
_MANY_QUERIES = 9
# A draft of a few tokens, or the heads that share the latent keys of MLA.
MOST_ROWS = 128
LARGEST_HEAD_DIMS = (576, 512)
STEP = 8  # of head dims: 16 bytes

_BODY = """
  const int group = q_shape[1] / k_shape[1], batch = blockIdx.z;
  const int key_head = blockIdx.y % k_shape[1], block = blockIdx.y / k_shape[1];
  const int head = key_head * group;  // the first one
  const int64_t row = (int64_t(batch) * q_shape[1] + head) * q_shape[2];
  // What is left for the last block: parts of all rows, then their sums, then flags.
  const int64_t all = int64_t(q_shape[0]) * q_shape[1] * q_shape[2] * gridDim.x;
  flash::few_queries<{type}, {head_dim}, {value_head_dim}, {slices}, {tiles}, {warps},
                     flash::{mask}>(
      flash::HeadRows<{type}>{{{{q + batch * q_strides[0] + head * q_strides[1],
                                q_strides[2], q_strides[3]}}, q_strides[1]}},
      {keys}, {values}, flash::Mask<{mask_type}>{{{window}, {mask_array}}}, {next_mask}, *scale,
      {{group * q_shape[2], q_shape[2]}}, k_shape[2], block,
      flash::Results<{type}>{{
          out + row * {value_head_dim}, left + row * gridDim.x * {value_head_dim},
          reinterpret_cast<float2*>(left + all * {value_head_dim}) + row * gridDim.x,
          reinterpret_cast<uint64_t*>(left + all * ({value_head_dim} + 2)) +
              (int64_t(batch) * gridDim.y + blockIdx.y) * gridDim.x,
          {sinks}}});
"""
_ROWS = (
    "flash::Rows<{type}>{{{name} + batch * {name}_strides[0] + key_head * {name}_strides[1],"
    " {name}_strides[2], {name}_strides[3]}}"
)


@dataclass(frozen=True)
class Cut:
    """How a problem is cut for the kernel. A warp has 16 rows and one of `slices` parts of the head
    dims, a block of threads `tiles` times 16 rows; the rows are in `blocks` of those, the keys in
    `splits`. `shared_memory` are bytes for a block."""

    slices: int
    tiles: int
    blocks: int
    splits: int
    shared_memory: int


@lru_cache(maxsize=1024)  # decoding has a new problem with each token
def cut_of(problem: Problem) -> Cut:
    """The cut for a problem that `why_not` has nothing against."""
    p = problem
    slices = _slices_of(p)
    all_tiles = ceil_div(rows_of(p), WARP_ROWS)
    # Warps of one block read the same keys at about the same time, and so nearly once.
    tiles = 1
    while 2 * tiles * slices <= _WARPS and tiles < all_tiles:
        tiles *= 2
    blocks = ceil_div(all_tiles, tiles)
    parts = _WARPS // (slices * tiles)
    wanted = ceil_div(_BLOCKS, p.batch * p.key_heads * blocks)
    splits = splits_of(seen_keys(p), wanted, _FEWEST_KEYS * parts)
    return Cut(slices, tiles, blocks, splits, _shared_memory(p, slices, tiles))


def _slices_of(problem: Problem) -> int:
    """Into how many slices the head dims are cut: the fewest for which a warp has registers."""
    key_steps = ceil_div(problem.head_dim, _KEY_DIMS)
    value_steps = ceil_div(problem.value_head_dim, _VALUE_DIMS)
    slices = 1
    while key_steps > slices * _KEY_STEPS or value_steps > slices * _VALUE_STEPS:
        slices *= 2
    return slices


def _shared_memory(problem: Problem, slices: int, tiles: int) -> int:
    """Bytes for a block: of its queries, beside which slices exchange their scores, and then, in
    the same place, of what its warps leave for each other."""
    row_bytes = rounded_up(problem.head_dim, _KEY_DIMS) * 2
    row_bytes += 64 if row_bytes % 128 == 0 else 0  # `query_row`
    queries = tiles * WARP_ROWS * row_bytes
    lane_floats = 4 * WARP * _WARPS  # bytes of a float of each lane
    exchanged = lane_floats * 2 * 8 if slices > 1 else 0  # `add_slices`
    value_steps = ceil_div(problem.value_head_dim, _VALUE_DIMS)
    left = lane_floats * (32 * ceil_div(value_steps, slices) + 4)  # `put_together`
    return max(queries + exchanged, left)


@lru_cache(maxsize=1024)
def is_for(problem: Problem) -> bool:
    """Whether the problem is for this kernel rather than for that of many queries."""
    return problem.query_length < _MANY_QUERIES and not why_not(problem)


def why_not(problem: Problem) -> str:
    """Why there is no kernel for a problem; empty where there is one."""
    if problem.training:
        return "the CUDA kernel for few queries has no gradient"
    if problem.softcap is not None or problem.mask not in MASKS:
        return "the CUDA kernel has no such mask or softcap"
    if problem.dtype == "float32":
        return "the CUDA kernel for few queries is for 16 bits"
    if rows_of(problem) > MOST_ROWS:
        return "the CUDA kernel for few queries is for fewer"
    if problem.key_length < problem.query_length:
        return "the CUDA kernel for few queries is for more keys"
    dims = problem.head_dim, problem.value_head_dim
    if any(dim % STEP or dim > most for dim, most in zip(dims, LARGEST_HEAD_DIMS, strict=True)):
        return "the CUDA kernel for few queries is for other head dims"
    return ""


def attention(
    problem: Problem,
    capability: tuple[int, int],
    arrays: Sequence[mx.array],
    bits: Bits | None = None,
) -> list[mx.array]:
    """The kernel, `[B, H, L, D_v]`, and what its blocks of threads leave for each other; it has no
    gradient and no vmap of its own.

    `arrays` are q, k, v, the scale as `[1]` in float32, then mask and sinks if any. With `bits`
    each of k and v is three arrays, as `mx.quantize` gives them.
    """
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    rest = list(arrays)
    sinks = [rest.pop().astype(mx.float32)] if problem.sinks else []
    if bits is None:
        q, k, v, scale, *masks = rest
        inputs = [q.astype(dtype), k.astype(dtype), v.astype(dtype), scale]
    else:  # q, two times three arrays, the scale
        inputs, masks = rest[:8], rest[8:]
    if reads_mask(problem):
        inputs.append(typed_mask(problem, masks[0]))
    return _launch(problem, capability, bits)(inputs=[*inputs, *sinks])


@lru_cache(maxsize=1024)  # decoding has a new problem with each token
def is_there(problem: Problem, capability: tuple[int, int], bits: Bits | None = None) -> bool:
    """Whether the kernel for `problem` compiles here; it is compiled, unless it was before. The
    first time that it does not, a warning says why."""
    return compiles(source_of(problem, capability, bits))


@lru_cache(maxsize=1024)
def _launch(problem: Problem, capability: tuple[int, int], bits: Bits | None) -> Kernel:
    """The kernel with everything but its `inputs`."""
    p, cut = problem, cut_of(problem)
    rows = p.batch * p.query_heads * p.query_length
    groups = p.batch * p.key_heads * cut.blocks
    # For the last block of each group, see `_BODY`: of each row and split a sum of values, a
    # largest score and a sum of weights, then of each group and split a flag of 64 bits.
    left = cut.splits * (rows * (p.value_head_dim + 2) + groups * 2)
    return partial(
        kernel_of(source_of(p, capability, bits), cut.shared_memory),
        output_shapes=[(p.batch, p.query_heads, p.query_length, p.value_head_dim), (left,)],
        output_dtypes=[getattr(mx, p.dtype), mx.float32],
        grid=(cut.splits * _WARPS * WARP, p.key_heads * cut.blocks, p.batch),
        threadgroup=(_WARPS * WARP, 1, 1),
    )


def source_of(problem: Problem, capability: tuple[int, int], bits: Bits | None = None) -> Source:
    """The kernel for `problem`: type, head dims, the kind of mask, a window and how rows and head
    dims are cut are compiled in, other sizes not."""
    cut = cut_of(problem)
    kind = replace(
        problem,
        batch=1,
        query_heads=1,
        key_heads=1,
        query_length=1,
        key_length=0,
        mask_shape=(),
    )
    return _source(kind, cut.slices, cut.tiles, capability, bits)


@lru_cache(maxsize=256)
def _source(
    problem: Problem, slices: int, tiles: int, capability: tuple[int, int], bits: Bits | None
) -> Source:
    """The kernel for all problems that differ from `problem` in sizes that are not compiled in."""
    type = TYPES[problem.dtype]
    inputs = [Array("q", type), *_packed("k", type, bits), *_packed("v", type, bits)]
    inputs += [Array("scale", "float"), *declared_mask(problem)]
    if problem.sinks:
        inputs.append(Array("sinks", "float"))
    body = _BODY.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        slices=slices,
        tiles=tiles,
        warps=_WARPS,
        mask=MASKS[problem.mask],
        mask_type=mask_type(problem),
        keys=_reader("k", type, bits),
        values=_reader("v", type, bits),
        window=problem.window or 0,
        mask_array=mask_array(problem),
        next_mask=mask_of_next_head(problem),
        sinks="sinks + head" if problem.sinks else "nullptr",
    )
    return Source(
        label="flash_few_queries",
        capability=capability,
        inputs=tuple(inputs),
        outputs=(Array("out", type), Array("left", "float")),
        body=body,
        include="few_queries.cuh",
        bounds=(_WARPS * WARP, _RESIDENT_WARPS // _WARPS),
    )


def _packed(name: str, type: str, bits: Bits | None) -> list[Array]:
    """Keys or values as the kernel declares them: one array, or the three of `mx.quantize`."""
    if bits is None:
        return [Array(name, type)]
    return [Array(name, "uint32_t"), Array(f"{name}_scales", type), Array(f"{name}_biases", type)]


def _reader(name: str, type: str, bits: Bits | None) -> str:
    """What reads keys or values of one head, in CUDA: see device/key_readers.cuh."""
    rows = [_ROWS.format(name=one.name, type=one.type) for one in _packed(name, type, bits)]
    if bits is None:
        return rows[0]
    return f"flash::Quantized<{type}, {bits.bits}, {bits.group_size}>{{{', '.join(rows)}}}"
