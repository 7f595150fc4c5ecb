"""Masks that are known by what they say rather than by their elements.

MLX takes a mask as `"causal"` or as an array; a window, a prefix or packed documents are arrays of
L x S elements. Where such an array is made, it is given its structure to carry (`StructuredMask`),
and a route that knows what to do with the structure never looks at the elements: MLX is lazy, so
the array itself is then never computed. An array whose origin is unknown stays an array; nothing
is guessed from its elements.

All structures are intervals: a query sees the keys from `first` to `last`, both growing with its
position. Positions count along the keys, and the last query stands at the last key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import wraps
from itertools import accumulate
from typing import Any

import mlx.core as mx


@dataclass(frozen=True)
class Causal:
    """A query sees the keys up to its own."""

    def first(self, position: int) -> int:
        return 0

    def last(self, position: int) -> int:
        return position


@dataclass(frozen=True)
class Window:
    """A query sees the last `size` keys up to its own."""

    size: int

    def first(self, position: int) -> int:
        return max(0, position - self.size + 1)

    def last(self, position: int) -> int:
        return position


@dataclass(frozen=True)
class Prefix:
    """The first `length` keys are seen by all queries (those of the prefix see each other both
    ways), the rest causally."""

    length: int

    def first(self, position: int) -> int:
        return 0

    def last(self, position: int) -> int:
        return max(position, self.length - 1)


@dataclass(frozen=True)
class Segments:
    """Several documents of the given lengths in one row: a query sees the keys of its own
    document, up to its own."""

    lengths: tuple[int, ...]

    def first(self, position: int) -> int:
        starts = (0, *accumulate(self.lengths))
        return starts[max(0, bisect_right(starts, position) - 1)]

    def last(self, position: int) -> int:
        return position


Structure = Causal | Window | Prefix | Segments


def window_mask(query_length: int, size: int, key_length: int | None = None) -> mx.array:
    """The bool mask `[query_length, key_length]` of causal attention over the last `size` keys.

    `key_length` is `query_length` unless given. The runtime's routes know the mask by its
    structure and then never compute it. Raises ValueError unless sizes are positive and there are
    at least as many keys as queries.
    """
    if size < 1:
        raise ValueError(f"a window of {size} keys: the size must be at least 1")
    return _mask(Window(size), query_length, query_length if key_length is None else key_length)


def prefix_mask(length: int, prefix: int) -> mx.array:
    """The bool mask `[length, length]` of a prefix language model: the first `prefix` tokens see
    each other, the others all before them and themselves.

    Raises ValueError unless 0 <= prefix <= length and length is positive.
    """
    if not 0 <= prefix <= length:
        raise ValueError(f"a prefix of {prefix} in {length} tokens")
    return _mask(Prefix(prefix) if prefix > 1 else Causal(), length, length)


def packed_mask(lengths: Sequence[int]) -> mx.array:
    """The bool mask `[sum(lengths), sum(lengths)]` of documents packed into one row, each causal
    in itself.

    Raises ValueError unless there is at least one document and every length is positive.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"documents of {list(lengths)} tokens: each must have at least 1")
    total = sum(lengths)
    return _mask(Segments(tuple(lengths)) if len(lengths) > 1 else Causal(), total, total)


def _mask(structure: Structure, query_length: int, key_length: int) -> mx.array:
    if not 1 <= query_length <= key_length:
        raise ValueError(f"{query_length} queries on {key_length} keys")
    return remember(as_array(structure, query_length, key_length), structure)


def as_array(structure: Structure, query_length: int, key_length: int) -> mx.array:
    """The structure as a bool array `[query_length, key_length]`, lazily."""
    return between(structure, range(key_length - query_length, key_length), range(key_length))


def between(structure: Structure, positions: range, keys: range) -> mx.array:
    """Which of `keys` the queries at `positions` see: bool `[len(positions), len(keys)]`."""
    key = mx.arange(keys.start, keys.stop)
    position = mx.arange(positions.start, positions.stop)[:, None]
    match structure:
        case Causal():
            return key <= position
        case Window(size):
            return (key <= position) & (key > position - size)
        case Prefix(length):
            return key <= mx.maximum(position, length - 1)
        case Segments():
            ends = [*accumulate(structure.lengths)]
            # A position's document is the number of those that end before it.
            document = mx.sum(position >= mx.array(ends[:-1], mx.int32), axis=-1)
            first = mx.array([0, *ends[:-1]], mx.int32)[document][:, None]
            return (key >= first) & (key <= position)


class StructuredMask(mx.array):
    """A mask `[query_length, key_length]`, bool or additive, that carries its `structure`, until it
    is changed in place: from then on it is an array like any other, and `structure` is None.

    An additive one hides a key by the most negative number of its type, in a narrower type by minus
    infinity: for a query that sees any key the two are the same.
    """

    __slots__ = ("structure",)

    def __init__(self, array: mx.array, structure: Structure | None = None) -> None:
        super().__init__(array)
        self.structure = structure

    def astype(self, dtype: mx.Dtype, *args: Any, **kwargs: Any) -> mx.array:
        """The mask in another type: one of floats says the same in any type of floats."""
        cast = super().astype(dtype, *args, **kwargs)
        was_float = mx.issubdtype(self.dtype, mx.floating)
        says_the_same = was_float and mx.issubdtype(cast.dtype, mx.floating)
        return StructuredMask(cast, self.structure) if says_the_same else cast

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is a plain array, which can be loaded without this package."""
        return copy, (mx.array(self),)


def _in_place(name: str) -> Callable[..., Any]:
    original = getattr(mx.array, name)

    @wraps(original)
    def change(self: StructuredMask, *operands: Any) -> Any:
        self.structure = None
        return original(self, *operands)

    return change


# Of an array's methods, those that change it.
_CHANGES = (
    "add",
    "and",
    "floordiv",
    "lshift",
    "matmul",
    "mod",
    "mul",
    "or",
    "pow",
    "rshift",
    "sub",
    "truediv",
    "xor",
)
for _name in ("__setitem__", *(f"__i{change}__" for change in _CHANGES)):
    if hasattr(mx.array, _name):
        setattr(StructuredMask, _name, _in_place(_name))


def remember(mask: mx.array, structure: Structure) -> StructuredMask:
    """`mask`, `[query_length, key_length]`, as one that is known to say `structure`; nothing is
    copied."""
    return StructuredMask(mask, structure)


def structure_of(mask: mx.array, query_length: int, key_length: int) -> Structure | None:
    """What `mask` is known to say about that many queries and keys, in its simplest form; None for
    any other array."""
    structure = mask.structure if isinstance(mask, StructuredMask) else None
    if structure is None or mask.shape != (query_length, key_length):
        return None
    if isinstance(structure, Window) and structure.size >= key_length:
        return Causal()
    return structure
