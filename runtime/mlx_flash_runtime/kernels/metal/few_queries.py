"""The Metal kernel for few queries, and its launch: `few_queries.metal`, then `combined.metal`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

import mlx.core as mx

from ...problem import MaskKind, Problem
from ..quantization import Bits
from ..rounding import ceil_div, rounded_up
from ..split_keys import rows_of, seen_keys, splits_of

HERE = Path(__file__).parent
MASKS: dict[MaskKind, str] = {
    "none": "NONE",
    "causal": "BAND",
    "window": "BAND",
    "prefix": "BOOLEAN",
    "segments": "BOOLEAN",
    "bool": "BOOLEAN",
    "additive": "ADDITIVE",
}

# As in few_queries.metal.
_ROWS, _TILE, _SIMDGROUPS, _LANES = 8, 32, 4, 32
# A lane has 4 bytes of a register for each 4 dims of the values: of more than these the rest is
# another threadgroup's, which computes the scores again.
_MOST_VALUE_DIMS = 256
# Bytes of the queries that a threadgroup keeps: half of its memory, so that a core has two of them.
_QUERY_BYTES = 2**14
# Simdgroups that are to be there at once, on any of Apple's GPUs; but a part of fewer keys would
# cost more to put together than it saves.
_SIMDGROUPS_AT_ONCE, _FEWEST_KEYS = 1024, 128
# The window of a causal mask: more than any array has keys.
_NO_WINDOW = 2**30

_BODY = Template("""
  constexpr int MASK = flash::$kind;
  constexpr int DIMS = flash::Part<D, RUN, VALUE_DIMS, VALUE_RUN>::DIMS;
  threadgroup T queries[TILES * flash::ROWS * DIMS];
  const int heads = q_shape[1], length = q_shape[2], keys = k_shape[2], last = keys - 1;
  const int group = heads / k_shape[1], rows = group * length;
  const int key_head = threadgroup_position_in_grid.y % k_shape[1];
  const int block = threadgroup_position_in_grid.y / k_shape[1];
  const int batch = threadgroup_position_in_grid.z % q_shape[0];
  const int start = threadgroup_position_in_grid.z / q_shape[0] * VALUE_DIMS;
  const int end = metal::min(start + VALUE_DIMS, DV);

  // The queries of this threadgroup, with zeros where there are none.
  const int first_row = block * TILES * flash::ROWS;
  for (int i = thread_index_in_threadgroup; i < TILES * flash::ROWS * DIMS;
       i += flash::SIMDGROUPS * 32) {
    const int row = first_row + i / DIMS, dim = i % DIMS;
    const int head = key_head * group + row / length;
    queries[i] = row < rows && dim < D
        ? T(q[batch * q_strides[0] + head * q_strides[1] + row % length * q_strides[2] +
              dim * q_strides[3]])
        : T(0.0f);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  const uint lane = thread_index_in_simdgroup;
  const int tile = simdgroup_index_in_threadgroup % TILES;
  if (first_row + tile * flash::ROWS >= rows) return;
  const int row = metal::min(first_row + tile * flash::ROWS + flash::row_of(lane), rows - 1);
  const int head = key_head * group + row / length, query = row % length;
  const bool is_own = row == first_row + tile * flash::ROWS + flash::row_of(lane);
  const auto mask_row = flash::mask_of($mask_row, $mask_stride, keys - length + query, WINDOW);
  const auto own_keys = $keys;
  const auto own_values = $values;

  // The keys of this part; those that a window hides from all queries are not looked at.
  constexpr int PARTS = flash::SIMDGROUPS / TILES;
  const int parts = threadgroups_per_grid.x * PARTS;
  const int number = threadgroup_position_in_grid.x * PARTS +
      simdgroup_index_in_threadgroup / TILES;
  const int seen = MASK == flash::BAND ? metal::max(0, keys - length - WINDOW + 1) : 0;
  const int tiles = (keys - seen + flash::TILE - 1) / flash::TILE;
  const int tiles_of_part = (tiles + parts - 1) / parts;
  const int first = seen + number * tiles_of_part * flash::TILE;
  const int stop = metal::min(keys, first + tiles_of_part * flash::TILE);

  flash::Part<D, RUN, VALUE_DIMS, VALUE_RUN> part;
  part.largest = flash::HIDDEN;
  part.sum = 0;
  UNROLL for (int i = 0; i < VALUE_DIMS / 8; ++i) part.out[i] = float2(0.0f);
  for (int key = first; key < stop; key += flash::TILE) {
    const threadgroup T* own_queries = queries + tile * flash::ROWS * DIMS;
    flash::multiply_keys(part, own_queries, own_keys, key, last, lane);
    flash::weigh<MASK, SOFTCAP>(part, mask_row, scale[0], scale[1], key, last, lane);
    flash::multiply_values<DV % VALUE_DIMS == 0>(
        part, own_values, start, end, key, last, lane);
  }
  part.sum = flash::sum_of_row(part.sum);
  if (is_own) {
    const int64_t at = (int64_t(batch * heads + head) * length + query) * parts + number;
    flash::write(part, out + at * DV, start, end, lane);
    if (start == 0 && flash::column_of(lane) == 0) {
      sums[2 * at] = part.largest;
      sums[2 * at + 1] = part.sum;
    }
  }
""")
_MASK_ROW = "mask + batch * mask_strides[0] + head * mask_strides[1] + query * mask_strides[2]"
_MATRIX = Template(
    "flash::matrix($name + batch * ${name}_strides[0] + key_head * ${name}_strides[1],"
    " ${name}_strides[2], ${name}_strides[3])"
)
_COMBINED = Template("""
  const int dim = thread_position_in_grid.x, parts = parts_out_shape[1];
  const int64_t row =
      thread_position_in_grid.y + int64_t(thread_position_in_grid.z) * threads_per_grid.y;
  if (dim < DV) {
    out[row * DV + dim] = T(flash::combined(
        parts_out + row * parts * DV + dim, DV, sums + 2 * row * parts, parts, $sink));
  }
""")


@dataclass(frozen=True)
class Cut:
    """How a problem is cut for the kernel: `run` and `value_run` are the dims of keys and values
    that are neighbours in a lane. The rows, all queries of a key head, are in `blocks` of `tiles`
    of 8, the values' dims in `slices` of `value_dims`, the keys in `splits`, all of them for
    threadgroups of their own."""

    run: int
    value_run: int
    value_dims: int
    slices: int
    tiles: int
    blocks: int
    splits: int

    @property
    def rows(self) -> int:
        """The rows of a tile."""
        return _ROWS

    @property
    def parts(self) -> int:
        """The parts of the keys, each of one simdgroup."""
        return self.splits * (_SIMDGROUPS // self.tiles)


@lru_cache(maxsize=256)
def cut_of(problem: Problem) -> Cut:
    """The cut for a problem of any sizes."""
    p = problem
    run, value_run = _run(p.head_dim, 8), _run(p.value_head_dim, 4)
    step = 4 * value_run
    slices = ceil_div(rounded_up(p.value_head_dim, step), _MOST_VALUE_DIMS)
    value_dims = rounded_up(ceil_div(p.value_head_dim, slices), step)
    all_tiles = ceil_div(rows_of(p), _ROWS)
    tile_bytes = _ROWS * rounded_up(p.head_dim, 8 * run) * p.item_bytes
    # Simdgroups of one threadgroup read the same keys at about the same time; but no tile is to be
    # computed for nothing.
    fitting = [count for count in (4, 2, 1) if count == 1 or count * tile_bytes <= _QUERY_BYTES]
    tiles = min(fitting, key=lambda count: rounded_up(all_tiles, count))
    blocks = ceil_div(all_tiles, tiles)
    threadgroups = p.batch * p.key_heads * blocks * slices
    wanted = _SIMDGROUPS_AT_ONCE // (threadgroups * _SIMDGROUPS)
    splits = splits_of(seen_keys(p), wanted, _FEWEST_KEYS * (_SIMDGROUPS // tiles))
    return Cut(run, value_run, value_dims, slices, tiles, blocks, splits)


def reads_mask(problem: Problem) -> bool:
    """Whether the mask is an array for the kernel, too."""
    return MASKS[problem.mask] in ("BOOLEAN", "ADDITIVE")


def _run(dims: int, lanes: int) -> int:
    """Neighbours that a lane reads, as many as 8, where `lanes` of them take no more than an eighth
    of `dims` beyond those that are there."""
    for run in (8, 4, 2):
        if rounded_up(dims, run * lanes) <= dims * 9 / 8:
            return run
    return 1 if lanes == 8 else 2


def attention(problem: Problem, arrays: Sequence[mx.array], bits: Bits | None = None) -> mx.array:
    """The kernels, `[B, H, L, D_v]`; they have no gradient and no vmap of their own.

    `arrays` are q, k, v, the scale and the softcap as `[2]` in float32, then the mask if it is an
    array, broadcast to the scores, and sinks if any. With `bits` each of k and v is three arrays,
    as `mx.quantize` gives them.
    """
    cut = cut_of(problem)
    rest = list(arrays)
    sinks = rest.pop() if problem.sinks else None
    p, dtype = problem, getattr(mx, problem.dtype)
    rows = p.batch * p.query_heads * p.query_length
    threads = _LANES * _SIMDGROUPS
    parts_out, sums = _first(MASKS[p.mask], bits)(
        inputs=rest,
        template=[
            ("T", dtype),
            ("D", p.head_dim),
            ("RUN", cut.run),
            ("DV", p.value_head_dim),
            ("VALUE_DIMS", cut.value_dims),
            ("VALUE_RUN", cut.value_run),
            ("TILES", cut.tiles),
            ("WINDOW", p.window or _NO_WINDOW),
            ("SOFTCAP", p.softcap is not None),
        ],
        output_shapes=[(rows, cut.parts, p.value_head_dim), (rows, cut.parts, 2)],
        output_dtypes=[mx.float32, mx.float32],
        grid=(cut.splits * threads, p.key_heads * cut.blocks, p.batch * cut.slices),
        threadgroup=(threads, 1, 1),
    )
    inputs = [parts_out, sums] if sinks is None else [parts_out, sums, sinks]
    (out,) = _second(sinks is not None)(
        inputs=inputs,
        template=[("T", dtype), ("DV", p.value_head_dim), ("HEADS", p.query_heads)],
        output_shapes=[(p.batch, p.query_heads, p.query_length, p.value_head_dim)],
        output_dtypes=[dtype],
        grid=(rounded_up(p.value_head_dim, _LANES), p.query_length, p.batch * p.query_heads),
        threadgroup=(_LANES, 1, 1),
    )
    return out  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _first(mask: str, bits: Bits | None) -> Any:
    """The kernel for all parts of the keys."""
    names = ["q", *_array_names("k", bits), *_array_names("v", bits), "scale"]
    is_array = mask in ("BOOLEAN", "ADDITIVE")  # as reads_mask has it
    if is_array:
        names.append("mask")
    body = _BODY.substitute(
        kind=mask,
        mask_row=_MASK_ROW if is_array else "q",
        mask_stride="mask_strides[3]" if is_array else "0",
        keys=_rows_of("k", bits),
        values=_rows_of("v", bits),
    )
    how = f"_{bits.bits}_bits_{bits.group_size}" if bits else ""
    return mx.fast.metal_kernel(
        name=f"flash_few_queries_{mask.lower()}{how}",
        input_names=names,
        output_names=["out", "sums"],
        source=body,
        header=_text("few_queries.metal"),
        ensure_row_contiguous=False,
    )


@lru_cache(maxsize=2)
def _second(sinks: bool) -> Any:
    """The kernel that puts the parts together."""
    sink = "float(sinks[thread_position_in_grid.z % HEADS])" if sinks else "-INFINITY"
    return mx.fast.metal_kernel(
        name=f"flash_combined{'_sinks' if sinks else ''}",
        input_names=["parts_out", "sums", *(["sinks"] if sinks else [])],
        output_names=["out"],
        source=_COMBINED.substitute(sink=sink),
        header=_text("combined.metal"),
    )


def _array_names(name: str, bits: Bits | None) -> list[str]:
    return [name] if bits is None else [name, f"{name}_scales", f"{name}_biases"]


def _rows_of(name: str, bits: Bits | None) -> str:
    """Keys or values of one head, in Metal."""
    matrices = [_MATRIX.substitute(name=one) for one in _array_names(name, bits)]
    if bits is None:
        return matrices[0]
    type = f"flash::Quantized<T, {bits.bits}, {bits.group_size}>"
    return f"{type}{{{', '.join(matrices)}}}"


@lru_cache(maxsize=8)
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
