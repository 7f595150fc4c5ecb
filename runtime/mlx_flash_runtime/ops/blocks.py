"""How blocks cut the scores of a call, and which of them its mask lets skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..problem import Problem
from ..problem.masks import Causal, Structure, between

# Queries of a block of MLX's own attention, by measurement on an H200: fewer queries fill it less,
# more of them skip less of the mask. A Mac's GPU is filled by fewer.
QUERIES = {"cuda": 1024, "cpu": 1024, "metal": 512}


@dataclass(frozen=True)
class Blocks:
    """How the scores are cut, by `size` along both lengths, and which keys a query sees by the
    mask's structure."""

    query_length: int
    key_length: int
    size: int
    structure: Structure | None = None

    @property
    def rows(self) -> list[slice]:
        """The queries of each block."""
        return cuts(self.query_length, self.size)

    @property
    def columns(self) -> list[slice]:
        """The keys of each block."""
        return cuts(self.key_length, self.size)

    def skips(self, rows: slice, columns: slice) -> bool:
        """No query of the block sees any of its keys. (A query that sees no key at all needs every
        one: see `online_softmax.MASKED`.)"""
        at = self._positions(rows)
        if self.structure is None or at[0] < 0:
            return False
        return bool(
            columns.start > self.structure.last(at[-1])
            or columns.stop <= self.structure.first(at[0])
        )

    def visible(self, rows: slice, columns: slice) -> mx.array | None:
        """The mask [rows, columns] of one block, or None where every query sees every key."""
        at = self._positions(rows)
        if self.structure is None or (
            columns.stop - 1 <= self.structure.last(at[0])
            and columns.start >= self.structure.first(at[-1])
        ):
            return None
        return between(self.structure, at, range(columns.start, columns.stop))

    def _positions(self, rows: slice) -> range:
        """Where the queries of the block stand among the keys; before the first key they are
        negative."""
        offset = self.key_length - self.query_length
        return range(rows.start + offset, rows.stop + offset)


def blocks_of(problem: Problem, block_size: int) -> Blocks:
    """How a call's scores are cut."""
    structure = Causal() if problem.mask == "causal" else problem.structure
    return Blocks(problem.query_length, problem.key_length, block_size, structure)


class Skipped:
    """What blocks that are skipped would add to a sum: their numbers times weights of zero, which
    is NaN for a number that is infinite or NaN, as in MLX. `blocks` are [B, H_kv, numbers, D]."""

    def __init__(self, blocks: Sequence[mx.array]) -> None:
        self._zeros = mx.stack([mx.sum(0 * block, axis=2, keepdims=True) for block in blocks])

    def times_zero(self, skipped: list[bool]) -> mx.array:
        """The sum over the blocks that are `skipped`, [B, H_kv, 1, D], or 0 where none is."""
        numbers = [number for number, is_skipped in enumerate(skipped) if is_skipped]
        if not numbers:
            return mx.array(0.0)
        return mx.sum(mx.take(self._zeros, mx.array(numbers), axis=0), axis=0)


def cuts(length: int, size: int) -> list[slice]:
    """Slices of `size` that cover `length`; the last one may be shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
