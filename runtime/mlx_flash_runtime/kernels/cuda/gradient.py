"""The CUDA kernels of the gradient for one kind of problem, and their launch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import mlx.core as mx

from ...ops.derivatives import of_sinks
from ...problem import Problem
from . import kernel
from .gradient_tiles import Made, gradient_tiles, kernels
from .source import Array, Source

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
_QUERY_HEADS = """
  const int head = blockIdx.x, key_head = head / group;
  const flash::Heads passing = {1, 0, 0};
"""
_KEY_HEADS = """
  const int key_head = blockIdx.x, head = key_head * group;
  const flash::Heads passing = {group, MASK_NEXT, padded};
"""
_SIDES = """
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
      {outputs});
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

    `arrays` and `outputs` are those of `kernel.attention` for the same problem, in training;
    `cotangent` is that of the attention, `[B, H, L, D_v]`.
    """
    out, logsumexp = outputs
    cotangent = cotangent.astype(out.dtype)
    (states,) = _states_launch(problem, capability)(inputs=[out, cotangent, logsumexp])
    inputs = [*kernel.typed(problem, arrays), cotangent, states]
    made: dict[str, mx.array] = {}
    for names, launch in _launches(problem, capability):
        made.update(zip(names, launch(inputs=inputs), strict=True))
    d_sinks = None
    if problem.sinks:
        of_queries = states[:, :, : problem.query_length]
        d_sinks = of_sinks(arrays[-1], of_queries[..., 0], of_queries[..., 1])
    return made["dq"], made["dk"], made["dv"], d_sinks


@lru_cache(maxsize=256)
def _launches(
    problem: Problem, capability: tuple[int, int]
) -> list[tuple[tuple[str, ...], kernel.Launch]]:
    """Each kernel, with the names of what it makes."""
    launches: list[tuple[tuple[str, ...], kernel.Launch]] = []
    for one in kernels(problem):
        cut = gradient_tiles(problem, capability, one)
        assert cut is not None
        heads, length = problem.query_heads, problem.query_length
        if one != "OF_QUERIES":
            heads, length = problem.key_heads, problem.key_length
        names = _MADE_OUTPUTS[one]
        launch = partial(
            kernel.launched(gradient_source(problem, capability, one), cut.memory),
            output_shapes=[(problem.batch, heads, length, _dim(problem, name)) for name in names],
            output_dtypes=[getattr(mx, problem.dtype)] * len(names),
            grid=(heads * cut.threads, problem.batch, -(-length // cut.rows)),
            threadgroup=(cut.threads, 1, 1),
        )
        launches.append((names, launch))
    return launches


@lru_cache(maxsize=256)
def is_there(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether all kernels of the gradient compile here; they are compiled, unless they were."""
    return all(kernel.compiles(source) for source in sources_of(problem, capability))


def sources_of(problem: Problem, capability: tuple[int, int]) -> list[Source]:
    """The kernels of the gradient of `problem`, which has `gradient_tiles`."""
    sources = [_states_source(problem, capability)]
    for one in kernels(problem):
        sources.append(gradient_source(problem, capability, one))
    return sources


def fits(problem: Problem, capability: tuple[int, int]) -> bool:
    """Whether each of the kernels has tiles."""
    return all(gradient_tiles(problem, capability, one) is not None for one in kernels(problem))


def gradient_source(problem: Problem, capability: tuple[int, int], made: Made) -> Source:
    """The kernel that makes gradients of `problem`."""
    cut = gradient_tiles(problem, capability, made)
    assert cut is not None
    type = kernel.TYPES[problem.dtype]
    reads_mask = kernel.reads_mask(problem)
    by_keys = made != "OF_QUERIES"
    outputs = _MADE_OUTPUTS[made]
    heads = _QUERY_HEADS
    if by_keys:
        heads = _KEY_HEADS.replace("MASK_NEXT", "mask_strides[1]" if reads_mask else "0")
    sides = _SIDES.format(
        type=type,
        head_dim=problem.head_dim,
        value_head_dim=problem.value_head_dim,
        consumers=cut.consumers,
        passing=cut.passing,
        mask=kernel.MASKS[problem.mask],
        mask_type=kernel.mask_type(problem),
        made=made,
        sides="of_keys, of_queries" if by_keys else "of_queries, of_keys",
        window=problem.window or 0,
        mask_array=kernel.MASK_ARRAY if reads_mask else kernel.NO_MASK_ARRAY,
        outputs=", ".join(
            _output(problem, made, name)
            for name in (_MADE_OUTPUTS[made][0] if made != "OF_VALUES" else "", "dv")
        ),
    )
    inputs = (*kernel.input_arrays(problem), Array("cotangent", type), Array("states", "float"))
    return Source(
        "flash_gradient",
        capability,
        inputs,
        tuple(Array(name, type) for name in outputs),
        _HEADS.format(step=_STEP) + heads + sides,
        cut.header,
        (cut.threads, cut.resident),
    )


def _output(problem: Problem, made: Made, name: str) -> str:
    """Where a block of threads writes the gradients of its head, a null pointer where it makes none
    of that name."""
    if name not in _MADE_OUTPUTS[made]:
        return "nullptr"
    head, heads, length = ("head", "q_shape[1]", "queries")
    if made != "OF_QUERIES":
        head, heads, length = ("key_head", "k_shape[1]", "keys")
    return f"{name} + (int64_t(batch) * {heads} + {head}) * {length} * {_dim(problem, name)}"


def _dim(problem: Problem, name: str) -> int:
    return problem.value_head_dim if name == "dv" else problem.head_dim


@lru_cache(maxsize=256)
def _states_launch(problem: Problem, capability: tuple[int, int]) -> kernel.Launch:
    """The logsumexp and `sum(out * cotangent)` of each query, `[B, H, padded L, 2]` in float32."""
    padded = -(-problem.query_length // _STEP) * _STEP
    blocks = -(-padded * _lanes(problem) // _STATE_THREADS)
    return partial(
        kernel.launched(_states_source(problem, capability), 0),
        output_shapes=[(problem.batch, problem.query_heads, padded, 2)],
        output_dtypes=[mx.float32],
        grid=(blocks * _STATE_THREADS, problem.query_heads, problem.batch),
        threadgroup=(_STATE_THREADS, 1, 1),
    )


def _states_source(problem: Problem, capability: tuple[int, int]) -> Source:
    type = kernel.TYPES[problem.dtype]
    body = _STATES_BODY.format(
        type=type, value_head_dim=problem.value_head_dim, lanes=_lanes(problem), step=_STEP
    )
    inputs = (Array("output", type), Array("cotangent", type), Array("logsumexp", "float"))
    return Source(
        "flash_query_states",
        capability,
        inputs,
        (Array("states", "float"),),
        body,
        "sides.cuh",
        (_STATE_THREADS, 1),
    )


def _lanes(problem: Problem) -> int:
    """Lanes of a warp for one query, each with 16 bytes of a row at a time."""
    chunks = -(-problem.value_head_dim * problem.item_bytes // 16)
    return min(32, 1 << (chunks - 1).bit_length())
