"""What all kernels take: the arrays of a problem, its types and its mask, as CUDA has them."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ...problem import MaskKind, Problem
from .compiling.source import Array

# As `MaskKind` in device/softmax.cuh.
MASKS: dict[MaskKind, str] = {
    "none": "NONE",
    "causal": "CAUSAL",
    "window": "WINDOW",
    "prefix": "BOOLEAN",
    "bool": "BOOLEAN",
    "additive": "ADDITIVE",
}
TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}

# What follows the window in a `Mask` of device/softmax.cuh, for batch row `batch` and head `head`.
_MASK_ARRAY = (
    "mask + batch * mask_strides[0] + head * mask_strides[1], mask_strides[2], mask_strides[3]"
)
_NO_MASK_ARRAY = "nullptr, 0, 0"


def typed(problem: Problem, arrays: Sequence[mx.array]) -> list[mx.array]:
    """q, k, v, the scale and the mask, if the kernel reads one, as it takes them: of one type, the
    mask of all axes. What follows in `arrays` is left out."""
    q, k, v, scale, *rest = arrays
    dtype: mx.Dtype = getattr(mx, problem.dtype)
    inputs = [q.astype(dtype), k.astype(dtype), v.astype(dtype), scale]
    if reads_mask(problem):
        inputs.append(typed_mask(problem, rest[0]))
    return inputs


def typed_mask(problem: Problem, mask: mx.array) -> mx.array:
    """A mask that the kernel reads, as it takes it: `[B, H, L, S]`, in the type of the problem
    where it is added."""
    p = problem
    if p.mask == "additive":
        mask = mask.astype(getattr(mx, p.dtype))
    return mx.broadcast_to(mask, (p.batch, p.query_heads, p.query_length, p.key_length))


def declared(problem: Problem) -> list[Array]:
    """What `typed` gives, as a kernel declares it."""
    type = TYPES[problem.dtype]
    inputs = [Array("q", type), Array("k", type), Array("v", type), Array("scale", "float")]
    return inputs + declared_mask(problem)


def declared_mask(problem: Problem) -> list[Array]:
    """The mask as a kernel declares it, none where it reads none."""
    return [Array("mask", mask_type(problem))] if reads_mask(problem) else []


def mask_type(problem: Problem) -> str:
    """The type of a mask's elements in CUDA."""
    return TYPES[problem.dtype] if problem.mask == "additive" else "bool"


def mask_array(problem: Problem) -> str:
    """Where a head's mask lies and how, in CUDA."""
    return _MASK_ARRAY if reads_mask(problem) else _NO_MASK_ARRAY


def result_rows(name: str, of: str, head: str, dim: int) -> str:
    """Where the rows of a head are written and how far apart, in CUDA: to the array `name`, which
    is `[batch, length, heads, dim]` with the length and heads of the array `of`. Models go on with
    the heads of a position side by side: results that lie so, as MLX's own do, need no copy."""
    heads = f"{of}_shape[1]"
    first = f"int64_t(batch) * {of}_shape[2] * {heads} + {head}"
    return f"{name} + ({first}) * {dim}, int64_t({heads}) * {dim}"


def mask_of_next_head(problem: Problem) -> str:
    """The elements from one head's mask to the next one's, in CUDA."""
    return "mask_strides[1]" if reads_mask(problem) else "0"


def reads_mask(problem: Problem) -> bool:
    """Whether the mask is an array for the kernel, too."""
    return problem.has_array_mask and problem.mask != "window"
