"""The CUDA kernel: attention on tensor cores, for what MLX has no fused kernel for. Compiled by MLX (NVRTC, about a
second) when it first runs in a process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from ...problem import Call, MaskKind, Problem

MASKS: dict[MaskKind, str] = {"none": "NONE", "causal": "CAUSAL", "bool": "BOOLEAN", "additive": "ADDITIVE"}

# Shared memory that every GPU of compute capability 8.0 and later gives to one block of threads.
_SHARED_MEMORY = 99 * 1024
_QUERIES = 16  # of one warp, as in attention.cuh
_WARPS = 8
_KEYS = 32

_SOURCE = """
  const int head = blockIdx.y, batch = blockIdx.z, key_head = head / (q_shape[1] / k_shape[1]);
  flash::attention<T, D, DV, WARPS, KEYS, flash::{mask}>(
      flash::Rows<T>{{q + batch * q_strides[0] + head * q_strides[1], q_strides[2], q_strides[3]}},
      flash::Rows<T>{{k + batch * k_strides[0] + key_head * k_strides[1], k_strides[2], k_strides[3]}},
      flash::Rows<T>{{v + batch * v_strides[0] + key_head * v_strides[1], v_strides[2], v_strides[3]}},
      {mask_array}, {sink}, *scale, q_shape[2], k_shape[2],
      out + (int64_t(batch) * q_shape[1] + head) * q_shape[2] * DV);
"""
_MASK_ARRAY = (
    "flash::MaskArray<M>{mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]}"
)
_NO_MASK_ARRAY = "flash::MaskArray<bool>{nullptr, 0, 0}"


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
    """The largest tiles that fit, by measurement on an H200 the fastest; None where none fit."""
    warps = _WARPS if problem.query_length > _QUERIES * _WARPS // 2 else _WARPS // 2
    candidates = (Tiles(warps, _KEYS), Tiles(_WARPS // 2, _KEYS), Tiles(_WARPS // 2, _KEYS // 2))
    return next((one for one in candidates if one.memory(problem) <= _SHARED_MEMORY), None)


def attention(call: Call) -> mx.array:
    """The call by the kernel, `[B, H, L, D_v]`: a mask of the kinds in MASKS, q, k, v of one type; it has no gradient
    and no vmap of its own."""
    problem = call.problem
    cut = tiles(problem)
    assert cut is not None
    inputs = [call.q, call.k, call.v, _scale(call.scale)]
    template: list[tuple[str, Any]] = [
        ("T", call.q.dtype),
        ("D", problem.head_dim),
        ("DV", problem.value_head_dim),
        ("WARPS", cut.warps),
        ("KEYS", cut.keys),
    ]
    if call.mask is not None:
        inputs.append(mx.broadcast_to(call.mask, (*call.q.shape[:3], problem.key_length)))
        template.append(("M", call.mask.dtype))
    if call.sinks is not None:
        inputs.append(call.sinks.astype(mx.float32))
    blocks = -(-problem.query_length // (_QUERIES * cut.warps))
    (out,) = _kernel(problem.mask, problem.sinks, cut.memory(problem))(
        inputs=inputs,
        output_shapes=[(*call.q.shape[:3], problem.value_head_dim)],
        output_dtypes=[call.q.dtype],
        grid=(blocks * 32 * cut.warps, problem.query_heads, problem.batch),
        threadgroup=(32 * cut.warps, 1, 1),
        template=template,
    )
    return out  # type: ignore[no-any-return]  # typed in MLX's stubs as an object


@lru_cache(maxsize=64)
def _scale(scale: float) -> mx.array:
    array = mx.array([scale], mx.float32)
    mx.eval(array)
    return array


@lru_cache(maxsize=64)
def _kernel(mask: MaskKind, sinks: bool, memory: int) -> Any:
    # MLX sets the limit of shared memory once per name: another size goes with another name.
    has_array = mask in ("bool", "additive")
    source = _SOURCE.format(
        mask=MASKS[mask],
        mask_array=_MASK_ARRAY if has_array else _NO_MASK_ARRAY,
        sink="sinks + head" if sinks else "nullptr",
    )
    return mx.fast.cuda_kernel(
        name=f"flash_attention_{mask}{'_sinks' if sinks else ''}_{memory}",
        input_names=["q", "k", "v", "scale", *(["mask"] if has_array else []), *(["sinks"] if sinks else [])],
        output_names=["out"],
        source=source,
        header=_header(),
        ensure_row_contiguous=False,
        shared_memory=memory,
    )


@lru_cache(maxsize=1)
def _header() -> str:
    # Without comments and indentation, as MLX hashes the source at every launch. A header that does not end in a
    # newline would swallow the line after it.
    text = Path(__file__).with_name("attention.cuh").read_text(encoding="utf-8")
    lines = (line.partition("//")[0].strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)
