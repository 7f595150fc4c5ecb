"""Where the output of an operation lies, which of its inputs it may be written over, which ones it
copies first, and what it sets aside, by backend (MLX 0.32.4)."""

from __future__ import annotations

from collections.abc import Sequence

from .kinds import (
    ATTENTION,
    ATTENTION_GRADIENT,
    BY_POSITION,
    ELEMENTWISE,
    LOSS_GRADIENT,
    NORM_GRADIENTS,
    NORMS,
    PRODUCTS,
    ROPE,
    UPDATES,
)
from .layouts import Layout, in_order_of, rows

# Threads that an H100 or H200 runs at once, and the bytes that each reads of a row.
_CUDA_THREADS, _CUDA_READ = 132 * 2048, 16


def laid_out(
    name: str, at: int, inputs: Sequence[Layout], shape: tuple[int, ...], backend: str
) -> Layout:
    """Where output `at` of an operation lies: mostly in rows, for some as an input does."""
    if name in ELEMENTWISE:
        return _of_elements(name, inputs, shape) or rows(shape)
    if name == BY_POSITION or (name == ATTENTION and backend == "metal"):
        return _by_position(shape)
    if name == ATTENTION:
        return in_order_of(shape, inputs[0])
    if name == ATTENTION_GRADIENT and backend == "cuda":
        return in_order_of(shape, inputs[at])
    return inputs[0] if _lies_as_its_first_input(name, inputs, backend) else rows(shape)


def is_written_over(
    name: str, at: int, inputs: Sequence[Layout], shape: tuple[int, ...], backend: str
) -> bool:
    """Whether the output may be written over the input `at`, once nobody else reads that."""
    if name not in ELEMENTWISE:
        return at == 0 and _lies_as_its_first_input(name, inputs, backend)
    if _of_elements(name, inputs, shape) is None:
        return inputs[at].in_rows and inputs[at].shape == shape
    return inputs[at].span > 1


def copied_first(name: str, inputs: Sequence[Layout], backend: str) -> list[int]:
    """The inputs of a product that lie as its kernels cannot read them (`check_transpose`)."""
    if name not in PRODUCTS:
        return []
    return [at for at, seen in enumerate(inputs[:2]) if not _is_matrix(seen, backend)]


def summed_apart(name: str, x: Layout, item_bytes: int, backend: str) -> int:
    """Bytes in which the gradient of a norm sums that of the weight: on CUDA a row in float32 for
    each of the blocks that run at once, of no more than there are rows (`RMSNormVJP::eval_gpu`)."""
    if backend != "cuda" or name not in NORM_GRADIENTS:
        return 0
    return 4 * min(x.size, _CUDA_THREADS * _CUDA_READ // item_bytes)


def _lies_as_its_first_input(name: str, inputs: Sequence[Layout], backend: str) -> bool:
    if name in NORMS:
        return _has_whole_rows(inputs[0], one_after_the_other=name != "Softmax")
    if name in UPDATES:
        return inputs[0].has_no_gaps and inputs[0].span == inputs[0].size
    if name == LOSS_GRADIENT:
        return inputs[0].in_rows
    if name == ROPE:
        return inputs[0].in_rows or (backend == "cuda" and len(inputs[0].shape) <= 4)
    return False


def _of_elements(name: str, inputs: Sequence[Layout], shape: tuple[int, ...]) -> Layout | None:
    """That of the inputs that are more than one number repeated, if they all lie alike and without
    gaps, so that the operation need not know of axes."""
    several = [seen for seen in inputs if seen.span > 1]
    if not several:
        return Layout(shape, (0,) * len(shape))
    first = several[0]
    if any(seen.shape != shape for seen in several):
        return None
    if len(several) == 1 and name != "Select":
        return first if first.has_no_gaps else None
    if all(seen.in_rows for seen in several) or all(seen.in_columns for seen in several):
        return first
    return None


def _by_position(shape: tuple[int, ...]) -> Layout:
    """Of attention, or of a gradient of it, with a row of all heads for each position; the gradient
    of sinks has no positions."""
    if len(shape) != 4:
        return rows(shape)
    _, heads, length, dim = shape
    return Layout(shape, (heads * length * dim, dim, heads * dim, 1))


def _has_whole_rows(seen: Layout, one_after_the_other: bool) -> bool:
    if not (seen.has_no_gaps and seen.strides[-1:] == (1,)):
        return False
    apart = seen.strides[-2:-1]
    return not one_after_the_other or apart in ((), (0,), (seen.shape[-1],))


def _is_matrix(seen: Layout, backend: str) -> bool:
    """On Metal rows or columns may be apart."""
    (height, width), (down, across) = seen.shape[-2:], seen.strides[-2:]
    if backend == "metal":
        return across == 1 or down == 1
    return (across == 1 and down == width) or (down == 1 and across == height)
