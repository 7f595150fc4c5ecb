"""What attention costs, counted from shapes and masks: for decisions where nothing was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..problem import Device, Problem
from ..stock.fused import is_fused
from .blocks import QUERIES

# On Apple's GPUs from M1 to M4 Max: 13 to 19 float32 multiply-adds a second for each byte of memory
# that they read in it. What was published for Macs fits: at head dim 72 MLX's fused kernel is 1.9
# times as fast as its unfused way (M3 Ultra, bfloat16, 8,192 tokens, no mask; MLX's pull request
# 4330), and 1.9 is what is counted.
_PRODUCTS_PER_BYTE = {"metal": 16, "cuda": 100, "cpu": 8}
# The matrix units of M5 multiply about four times as fast.
_NAX = 4
# Bytes that are read in the time that starting one kernel takes; on CUDA the limits that were
# measured count them in.
_BYTES_PER_LAUNCH = {"metal": 2**21, "cuda": 0, "cpu": 0}
# MLX's fused kernels for large head dims multiply at half the speed: it takes them for causal masks
# alone, of which they skip half.
_LARGE_HEAD_DIM = 128
_LARGE_HEAD_DIM_FACTOR = 2
# With the gradient, in forward passes: a fused backward pass has 5 products for the 2 of a forward
# one, an unfused one 4.
_FUSED_TRAINING, _UNFUSED_TRAINING = 3.5, 3
# Times that scores are read or written: by the first product, twice by the softmax, by the second;
# and twice more to be masked.
_SCORE_PASSES, _MASKED_SCORE_PASSES = 4, 6


@dataclass(frozen=True)
class Work:
    """Multiply-adds of two numbers, bytes read and written, kernels started."""

    products: float = 0
    moved: float = 0
    launches: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products,
            self.moved + other.moved,
            self.launches + other.launches,
        )

    def cost(self, device: Device) -> float:
        """One number for all of it, to compare: the bytes that `device` could read meanwhile."""
        per_byte = _PRODUCTS_PER_BYTE[device.backend] * (_NAX if device.nax else 1)
        launches = self.launches * _BYTES_PER_LAUNCH[device.backend]
        return self.products / per_byte + self.moved + launches

    def __str__(self) -> str:
        products, moved = self.products / 1e9, self.moved / 2**20
        launches = f"{self.launches} launch{'es' if self.launches > 1 else ''}"
        return f"{products:,.1f} G multiply-adds, {moved:,.0f} MiB moved, {launches}"


def copies(count: int, problem: Problem) -> Work:
    """Writing `count` bytes that a rewriting of `problem` needs and reading them again, and the
    same backward."""
    if not count:
        return Work()
    passes = 3 if problem.training else 1
    return Work(moved=2 * count * passes, launches=4 * passes)


def of_stock(problem: Problem, device: Device) -> Work:
    """MLX's own function."""
    fused = is_fused(problem, device)[0]
    return of_fused(problem, device) if fused else of_unfused(problem, device)


def of_fused(problem: Problem, device: Device) -> Work:
    """MLX's fused kernel: of a mask it skips what the word "causal" hides, and reads any other for
    all scores."""
    p = problem
    products = fused_products(p, p.score_count * _seen_share(p))
    passes = _FUSED_TRAINING if p.training else 1
    return Work(
        passes * products, passes * (inputs(p) + _mask_bytes(p, device)), 3 if p.training else 1
    )


def fused_products(problem: Problem, scores: float) -> float:
    """The products of so many scores in MLX's fused kernel, in those of its speed at small head
    dims."""
    products = scores * (problem.head_dim + problem.value_head_dim)
    if max(problem.head_dim, problem.value_head_dim) > _LARGE_HEAD_DIM:
        products *= _LARGE_HEAD_DIM_FACTOR
    return products


def of_unfused(problem: Problem, device: Device) -> Work:
    """MLX's unfused attention: all scores are there, whatever the mask hides."""
    p = problem
    passes = _UNFUSED_TRAINING if p.training else 1
    products = p.score_count * (p.head_dim + p.value_head_dim)
    moved = inputs(p) + _mask_bytes(p, device) + score_bytes(p)
    return Work(passes * products, passes * moved, 4 * passes)


def of_query_blocks(problem: Problem, device: Device) -> Work:
    """MLX's unfused attention, a block of queries at a time on the keys that the mask leaves it;
    backward the scores of each block are computed once more."""
    visible, size = problem.visible, QUERIES[device.backend]
    offset = problem.key_length - problem.query_length
    if visible is None or offset < 0:
        return of_unfused(problem, device)
    total = Work()
    for start in range(0, problem.query_length, size):
        stop = min(start + size, problem.query_length)
        seen = visible.last(offset + stop - 1) - visible.first(offset + start) + 1
        total += of_unfused(replace(problem, query_length=stop - start, key_length=seen), device)
    if not problem.training:
        return total
    passes = (_UNFUSED_TRAINING + 1) / _UNFUSED_TRAINING
    return Work(passes * total.products, passes * total.moved, int(passes * total.launches))


def score_bytes(problem: Problem) -> int:
    """Bytes that an unfused way reads and writes of its scores."""
    passes = _SCORE_PASSES if problem.mask == "none" else _MASKED_SCORE_PASSES
    return passes * problem.item_bytes * problem.score_count


def _seen_share(problem: Problem) -> float:
    """The share of the scores that the word "causal" leaves."""
    if problem.mask != "causal" or problem.query_length > problem.key_length:
        return 1.0
    return 1 - (problem.query_length - 1) / (2 * problem.key_length)


def _mask_bytes(problem: Problem, device: Device) -> int:
    """Of an array, which every head reads; on CUDA a bool one is written for every head before."""
    if not problem.has_array_mask:
        return 0
    item = problem.item_bytes if problem.mask == "additive" else 1
    if device.backend == "cuda" and problem.mask != "additive":
        item += 2 * problem.item_bytes
    return item * problem.score_count


def inputs(problem: Problem) -> int:
    """Bytes of q, k, v and the output."""
    p = problem
    rows = p.query_heads * p.query_length + p.key_heads * p.key_length
    return p.item_bytes * p.batch * rows * (p.head_dim + p.value_head_dim)
