"""Where MLX runs its own fused attention kernel in a forward pass, as facts per backend and release.

Read in MLX's sources (`use_fallback` of each backend's scaled_dot_product_attention.cpp) for the releases below.
"""

from __future__ import annotations

from .problem import Device, Problem

# The releases whose attention this package knows: first known, first unknown.
KNOWN = ((0, 31), (0, 33))

# Metal, more than 8 queries: head dims by first release, newest first. Queries and values have the same head dim.
_METAL_FULL = (
    ((0, 32, 1), frozenset({64, 72, 80, 96, 128})),
    ((0, 31), frozenset({64, 80, 128})),
)
# Metal, up to 8 queries: (head dim, value head dim).
_METAL_VECTOR = (
    ((0, 32), frozenset({(64, 64), (96, 96), (128, 128), (256, 256), (192, 128)})),
    ((0, 31), frozenset({(64, 64), (96, 96), (128, 128), (256, 256)})),
)
_METAL_VECTOR_QUERIES = 8
_METAL_VECTOR_ROWS = 32  # query length times query heads per key head

_CUDA_HEAD_DIM = 128  # cuDNN: at most this, in steps of 8
_CUDA_VECTOR = frozenset({64, 96, 128})
_CUDA_VECTOR_QUERIES = 3


def is_known(release: tuple[int, ...]) -> bool:
    """Whether `release` lies in the range that this package was checked against."""
    first, end = KNOWN
    return first <= release[:2] < end


def forward_is_fused(problem: Problem, device: Device) -> tuple[bool, str]:
    """Whether MLX has a fused forward kernel for `problem`, and the reason in a phrase."""
    if device.backend == "cpu":
        return False, "MLX has no fused kernel on the CPU"
    missing = _missing_on_metal(problem, device) if device.backend == "metal" else _missing_on_cuda(problem)
    if missing:
        return False, f"MLX has no fused kernel for {missing}"
    return True, "MLX has a fused kernel"


def _missing_on_metal(problem: Problem, device: Device) -> str | None:
    if problem.query_length > _METAL_VECTOR_QUERIES:
        if problem.head_dim != problem.value_head_dim:
            return "values of another head dim"
        if problem.head_dim not in _newest(_METAL_FULL, device.mlx):
            return "this head dim"
        if problem.mask == "causal" and problem.query_length > problem.key_length:
            return "a causal mask over more queries than keys"
        return None
    if (problem.head_dim, problem.value_head_dim) not in _newest(_METAL_VECTOR, device.mlx):
        return "this head dim with few queries"
    if problem.query_length > problem.key_length:
        return "more queries than keys"
    if problem.query_length * problem.query_heads // problem.key_heads > _METAL_VECTOR_ROWS:
        return "this many query heads per key head with few queries"
    return None


def _missing_on_cuda(problem: Problem) -> str | None:
    array_mask = problem.mask in ("bool", "additive")
    same_head_dim = problem.head_dim == problem.value_head_dim
    if (
        same_head_dim
        and problem.head_dim in _CUDA_VECTOR
        and problem.query_length <= _CUDA_VECTOR_QUERIES
        and not array_mask
    ):
        return None
    if problem.query_length == 1:
        # cuDNN decodes only from keys that are slices of a cache, which the shapes do not tell.
        return "one query with an array mask" if array_mask else "one query of this head dim"
    if problem.mask == "causal" and problem.query_length > problem.key_length:
        return "a causal mask over more queries than keys"
    if any(size % 8 or size > _CUDA_HEAD_DIM for size in (problem.head_dim, problem.value_head_dim)):
        return "this head dim"
    if problem.dtype not in ("float16", "bfloat16"):
        return problem.dtype
    return None


def _newest(
    table: tuple[tuple[tuple[int, ...], frozenset[object]], ...], release: tuple[int, ...]
) -> frozenset[object]:
    return next((facts for first, facts in table if release >= first), table[-1][1])
