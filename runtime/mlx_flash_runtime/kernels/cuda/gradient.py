"""The CUDA kernels of the gradient for one kind of problem, and their launch: `device/gradient.cuh`
and `device/warpgroup_gradient.cuh`.

The first leaves two numbers for each query (`_states_source`). Of these the others make the weights
of the softmax again, and of the weights the gradients: of queries by one kernel, of keys and values
by one or two more (`_gradient_source`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import mlx.core as mx

from ...ops.derivatives import of_sinks
from ...problem import Problem
from ..rounding import ceil_div, rounded_up
from .arguments import (
    MASKS,
    TYPES,
    declared,
    mask_array,
    mask_of_next_head,
    mask_type,
    result_rows,
    typed,
)
from .compiling.loading import Kernel, compiles, kernel_of
from .compiling.source import Array, Source
from .gradient_tiles import GradientTiles, Made, made_by_kernels, tiles_of

# Queries in whole blocks of any kernel: what is kept of each is there for so many.
_STEP = 128
_STATE_THREADS = 128

_STATES_BODY = """
  const int head = blockIdx.y, batch = blockIdx.z, queries = output_shape[2];
  const int64_t number = int64_t(batch) * output_shape[1] + head;
  const int padded = (queries + {step} - 1) / {step} * {step};
  flash::query_states<{type}, {value_head_dim}, {lanes}>(
      flash::Rows<{type}>{{output + batch * output_strides[0] + head * output_strides[1],
                           output_strides[2], output_strides[3]}},
      flash::Rows<{type}>{{cotangent + batch * cotangent_strides[0] + head * cotangent_strides[1],
                           cotangent_strides[2], cotangent_strides[3]}},
      logsumexp + number * queries, queries, padded,
      reinterpret_cast<float2*>(states) + number * padded);
"""

_HEADS = """
  const int batch = blockIdx.y, queries = q_shape[2], keys = k_shape[2];
  const int group = q_shape[1] / k_shape[1];
  const int padded = (queries + {step} - 1) / {step} * {step};
"""
# Past the queries of a head go the keys of one head; past those of a key head the queries of all
# heads that share it.
_ONE_PASSING_HEAD = """
  const int head = blockIdx.x, key_head = head / group;
  const flash::Heads passing = {{1, 0, 0}};
"""
_PASSING_QUERY_HEADS = """
  const int key_head = blockIdx.x, head = key_head * group;
  const flash::Heads passing = {{group, {next_mask}, padded}};
"""
_CALL = """
  const flash::Side<{type}> of_queries = {{
      {{{{q + batch * q_strides[0] + head * q_strides[1], q_strides[2], q_strides[3]}},
        q_strides[1]}},
      {{{{cotangent + batch * cotangent_strides[0] + head * cotangent_strides[1],
          cotangent_strides[2], cotangent_strides[3]}}, cotangent_strides[1]}}}};
  const flash::Side<{type}> of_keys = {{
      {{{{k + batch * k_strides[0] + key_head * k_strides[1], k_strides[2], k_strides[3]}}, 0}},
      {{{{v + batch * v_strides[0] + key_head * v_strides[1], v_strides[2], v_strides[3]}}, 0}}}};
  flash::gradient<{type}, {head_dim}, {value_head_dim}, {consumers}, {passing}, flash::{mask},
                  {mask_type}, flash::{made}>(
      {sides}, flash::Mask<{mask_type}>{{{window}, {mask_array}}}, passing, *scale, queries, keys,
      reinterpret_cast<const float2*>(states)
          + (int64_t(batch) * q_shape[1] + head) * padded,
      flash::ResultRows<{type}>{{{d_of_d}}}, flash::ResultRows<{type}>{{{d_of_dv}}});
"""
_MADE_OUTPUTS: dict[Made, tuple[str, ...]] = {
    "OF_QUERIES": ("dq",),
    "OF_KEYS": ("dk",),
    "OF_VALUES": ("dv",),
    "OF_KEYS_AND_VALUES": ("dk", "dv"),
}


def gradients(
    problem: Problem,
    capability: tuple[int, int],
    arrays: Sequence[mx.array],
    outputs: Sequence[mx.array],
    cotangent: mx.array,
) -> tuple[mx.array, mx.array, mx.array, mx.array | None]:
    """Those of q, k, v, in the type of the problem, and of the sinks in float32 (None without).

    `arrays` and `outputs` are those of `attention.attention` for the same problem, in training;
    `cotangent` is that of the attention, `[B, H, L, D_v]`.
    """
    out, logsumexp = outputs
    cotangent = cotangent.astype(out.dtype)
    (states,) = _states_launch(problem, capability)(inputs=[out, cotangent, logsumexp])
    inputs = [*typed(problem, arrays), cotangent, states]
    found: dict[str, mx.array] = {}
    for made in made_by_kernels(problem):
        launched = _gradient_launch(problem, capability, made)(inputs=inputs)
        for name, rows in zip(_MADE_OUTPUTS[made], launched, strict=True):
            found[name] = rows.swapaxes(1, 2)
    d_sinks = None
    if problem.sinks:
        of_queries = states[:, :, : problem.query_length]
        d_sinks = of_sinks(arrays[-1], of_queries[..., 0], of_queries[..., 1])
    return found["dq"], found["dk"], found["dv"], d_sinks


def fits(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether each of the kernels has tiles."""
    return all(tiles_of(problem, capability, made) for made in made_by_kernels(problem))


@lru_cache(maxsize=256)
def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether all kernels of the gradient compile here; they are compiled, unless they were."""
    return all(compiles(source) for source in sources_of(problem, capability))


def sources_of(problem: Problem, capability: tuple[int, int]) -> list[Source]:
    """The kernels of the gradient of `problem`, which `fits`."""
    sources = [_states_source(problem, capability)]
    for made in made_by_kernels(problem):
        sources.append(_gradient_source(problem, capability, made))
    return sources


@lru_cache(maxsize=256)
def _gradient_launch(problem: Problem, capability: tuple[int, int], made: Made) -> Kernel:
    """One kernel with everything but its `inputs`."""
    tiles = _tiles_of(problem, capability, made)
    heads, length = problem.query_heads, problem.query_length
    if made != "OF_QUERIES":
        heads, length = problem.key_heads, problem.key_length
    dims = [_dim(problem, name) for name in _MADE_OUTPUTS[made]]
    return partial(
        kernel_of(_gradient_source(problem, capability, made), tiles.shared_memory),
        output_shapes=[(problem.batch, length, heads, dim) for dim in dims],
        output_dtypes=[getattr(mx, problem.dtype)] * len(dims),
        grid=(heads * tiles.threads, problem.batch, ceil_div(length, tiles.rows)),
        threadgroup=(tiles.threads, 1, 1),
    )


def _gradient_source(problem: Problem, capability: tuple[int, int], made: Made) -> Source:
    """The kernel that makes these gradients of `problem`."""
    tiles = _tiles_of(problem, capability, made)
    type = TYPES[problem.dtype]
    heads, sides = _ONE_PASSING_HEAD, "of_queries, of_keys"
    if made != "OF_QUERIES":
        heads, sides = _PASSING_QUERY_HEADS, "of_keys, of_queries"
    body = (_HEADS + heads + _CALL).format(
        step=_STEP,
        next_mask=mask_of_next_head(problem),
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        consumers=tiles.consumers,
        passing=tiles.passing,
        mask=MASKS[problem.mask],
        mask_type=mask_type(problem),
        made=made,
        sides=sides,
        window=problem.window or 0,
        mask_array=mask_array(problem),
        d_of_d=_output(problem, made, "dq" if made == "OF_QUERIES" else "dk"),
        d_of_dv=_output(problem, made, "dv"),
    )
    outputs = [Array(name, type) for name in _MADE_OUTPUTS[made]]
    return Source(
        label="flash_gradient",
        capability=capability,
        inputs=(*declared(problem), Array("cotangent", type), Array("states", "float")),
        outputs=tuple(outputs),
        body=body,
        include=tiles.header,
        bounds=(tiles.threads, tiles.resident),
    )


def _tiles_of(problem: Problem, capability: tuple[int, int], made: Made) -> GradientTiles:
    """Those of a problem that `fits`."""
    tiles = tiles_of(problem, capability, made)
    assert tiles is not None
    return tiles


def _output(problem: Problem, made: Made, name: str) -> str:
    """Where a block of threads writes the gradients of its head, a null pointer where it makes none
    of that name."""
    if name not in _MADE_OUTPUTS[made]:
        return "nullptr, 0"
    of, head = ("q", "head") if made == "OF_QUERIES" else ("k", "key_head")
    return result_rows(name, of, head, _dim(problem, name))


def _dim(problem: Problem, name: str) -> int:
    """The head dim of the gradient of that name."""
    return problem.value_head_dim if name == "dv" else problem.head_dim


@lru_cache(maxsize=256)
def _states_launch(problem: Problem, capability: tuple[int, int]) -> Kernel:
    """The logsumexp and `sum(out * cotangent)` of each query, `[B, H, padded L, 2]` in float32."""
    padded = rounded_up(problem.query_length, _STEP)
    blocks = ceil_div(padded * _lanes(problem), _STATE_THREADS)
    return partial(
        kernel_of(_states_source(problem, capability), 0),
        output_shapes=[(problem.batch, problem.query_heads, padded, 2)],
        output_dtypes=[mx.float32],
        grid=(blocks * _STATE_THREADS, problem.query_heads, problem.batch),
        threadgroup=(_STATE_THREADS, 1, 1),
    )


def _states_source(problem: Problem, capability: tuple[int, int]) -> Source:
    """The kernel of those numbers, `query_states` of device/sides.cuh."""
    type = TYPES[problem.dtype]
    body = _STATES_BODY.format(
        type=type, value_head_dim=problem.value_head_dim, lanes=_lanes(problem), step=_STEP
    )
    return Source(
        label="flash_query_states",
        capability=capability,
        inputs=(Array("output", type), Array("cotangent", type), Array("logsumexp", "float")),
        outputs=(Array("states", "float"),),
        body=body,
        include="sides.cuh",
        bounds=(_STATE_THREADS, 1),
    )


def _lanes(problem: Problem) -> int:
    """Lanes of a warp for one query, each with 16 bytes of a row at a time: a power of two, as
    their sums are put together in pairs."""
    chunks = ceil_div(problem.value_head_dim * problem.item_bytes, 16)
    return min(32, 1 << (chunks - 1).bit_length())
