"""Where the elements of an array lie in memory, and what views of it see: as MLX 0.32.4 finds it,
to know what an operation may write over, and what it copies first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """An array's shape, and by how many elements its steps along each axis are apart in memory."""

    shape: Shape
    strides: Shape

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Elements of memory from the first to the last."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * abs(stride) for size, stride in steps)

    @property
    def in_rows(self) -> bool:
        """Whether they lie one after the other, the last axis first."""
        return self._follow(range(len(self.shape))[::-1])

    @property
    def in_columns(self) -> bool:
        """The same, the first axis first."""
        return self._follow(range(len(self.shape)))

    @property
    def has_no_gaps(self) -> bool:
        """Whether they lie one after the other in some order of the axes; repeated ones once."""
        by_stride = sorted(range(len(self.shape)), key=lambda axis: self.strides[axis])
        return self._follow([axis for axis in by_stride if self.strides[axis] != 0])

    def _follow(self, axes: Sequence[int]) -> bool:
        apart = 1
        for axis in axes:
            if self.shape[axis] == 1:
                continue
            if self.strides[axis] != apart:
                return False
            apart *= self.shape[axis]
        return True


def rows(shape: Shape) -> Layout:
    """Of an array in memory of its own."""
    return Layout(shape, _strides(shape, 1))


def in_order_of(shape: Shape, like: Layout) -> Layout:
    """Of an array in memory of its own whose axes lie in the order of those of `like`."""
    strides, apart = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=lambda axis: max(like.strides[axis], 1)):
        strides[axis] = apart
        apart *= shape[axis]
    return Layout(shape, tuple(strides))


def viewed(name: str, arguments: Sequence[Any], seen: Layout, shape: Shape) -> Layout:
    """What the view `name` of an array makes of its layout."""
    match name:
        case "Transpose":
            return Layout(shape, tuple(seen.strides[axis] for axis in arguments[0]))
        case "Slice":
            steps = zip(seen.strides, arguments[2], strict=True)
            return Layout(shape, tuple(stride * step for stride, step in steps))
        case "Broadcast" | "BroadcastAxes":
            return Layout(shape, _broadcast(seen, shape))
        case "ExpandDims" | "Squeeze":
            return Layout(shape, _around_ones(seen, shape))
        case "AsStrided":
            return Layout(shape, tuple(arguments[1]))
    # A part of it, or the same; as numbers of another size, rows of those.
    return Layout(shape, seen.strides) if name != "View" or shape == seen.shape else rows(shape)


def reshaped(seen: Layout, shape: Shape) -> Layout | None:
    """Of an array in another shape, if that needs no copy (`prepare_reshape` of MLX)."""
    if seen.in_rows:
        return rows(shape)
    sizes, strides = _collapsed(seen)
    found: list[int] = []
    at = 0
    for size in shape:
        if at < len(sizes) and sizes[at] % size == 0:
            sizes[at] //= size
            found.append(sizes[at] * strides[at])
            at += sizes[at] == 1
        elif size == 1:
            found.append(found[-1])
        else:
            return None
    return Layout(shape, tuple(found))


def _strides(shape: Sequence[int], last: int) -> Shape:
    return tuple(accumulate(shape[:0:-1], mul, initial=last))[::-1] if shape else ()


def _broadcast(seen: Layout, shape: Shape) -> Shape:
    new = len(shape) - len(seen.shape)
    repeated = [size != wanted for size, wanted in zip(seen.shape, shape[new:], strict=True)]
    kept = zip(seen.strides, repeated, strict=True)
    return (0,) * new + tuple(0 if again else stride for stride, again in kept)


def _around_ones(seen: Layout, shape: Shape) -> Shape:
    """The strides of axes of more than one element, and between them such as rows would have."""
    kept = [stride for size, stride in zip(seen.shape, seen.strides, strict=True) if size != 1]
    strides: list[int] = []
    apart = 1
    for size in reversed(shape):
        strides.append(apart if size == 1 else kept.pop())
        apart = size * strides[-1]
    return tuple(reversed(strides))


def _collapsed(seen: Layout) -> tuple[list[int], list[int]]:
    """Sizes and strides, those of axes that follow one another as one."""
    sizes: list[int] = []
    strides: list[int] = []
    for size, stride in zip(seen.shape, seen.strides, strict=True):
        if size == 1:
            continue
        if strides and strides[-1] == size * stride:
            sizes[-1] *= size
            strides[-1] = stride
        else:
            sizes.append(size)
            strides.append(stride)
    return sizes, strides
