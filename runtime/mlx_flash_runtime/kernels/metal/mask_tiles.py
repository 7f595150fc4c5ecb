"""What a bool mask hides, by tiles: some queries by some keys.

What the kernel is told is worked out anew in each call, by a few operations that read the mask once
where the kernel reads it once for each head: MLX does not say when an array is changed in place, so
tiles that were kept could be those of a mask that says something else by now.
"""

from __future__ import annotations

import weakref

import mlx.core as mx

# Masks of one kind of call, one after the other, that hide too little before no more are looked at.
_MOST_LOOKS = 8
# The share of tiles that are seen, by a mask's id and the sizes of a tile; as long as the mask is
# there.
_shares: dict[tuple[int, int, int], float] = {}


def of(mask: mx.array, queries: int, keys: int) -> mx.array:
    """The tiles that a kernel has to look at, for a bool mask `[B, H, L, S]`: int32 `[B, H, blocks
    of queries, tiles of keys + 1]`.

    A row has twice the number of each tile that any query of the block sees a key of, and one more
    where it sees not all of them; they grow, and what follows them is twice the number of all
    tiles. A block with a query that sees no key at all has every tile: such a query gets the mean
    of all values.
    """
    seen, is_blind = _seen(mask, queries, keys)
    tiles = seen.shape[-1]
    of_block = mx.sum(seen, axis=-2)  # [B, H, blocks, tiles]
    hides = of_block < queries * keys
    number = 2 * mx.arange(tiles) + hides
    found = mx.sort(mx.where((of_block > 0) | is_blind, number, 2 * tiles), axis=-1)
    return mx.pad(found, [(0, 0)] * 3 + [(0, 1)], constant_values=2 * tiles).astype(mx.int32)


class Looks:
    """Whether the masks of one kind of call hide enough: of all tiles at most a share of `most` is
    seen.

    Each mask is looked at once, which waits until it is computed; a mask that is changed in place
    is not looked at again, which changes the way that a call goes, not its result.
    """

    def __init__(self, queries: int, keys: int, most: float) -> None:
        self.tile = queries, keys
        self.most = most
        self.left = _MOST_LOOKS

    def hides_enough(self, mask: mx.array, axes: mx.array) -> bool:
        """Whether `mask` does, which is `axes` with all its axes."""
        key = id(mask), *self.tile
        share = _shares.get(key)
        if share is None:
            if not self.left:
                return False
            try:
                share = _shares[key] = _share(axes, *self.tile)
            except ValueError:  # within `mx.compile` a mask has no elements yet
                return False
            weakref.finalize(mask, _shares.pop, key, None)
            self.left = _MOST_LOOKS if share <= self.most else self.left - 1
        return share <= self.most


def _share(mask: mx.array, queries: int, keys: int) -> float:
    """The share of all tiles that `of` has."""
    seen, is_blind = _seen(mask, queries, keys)
    share = mx.mean((mx.sum(seen, axis=-2) > 0) | is_blind).item()
    assert isinstance(share, float)
    return share


def _seen(mask: mx.array, queries: int, keys: int) -> tuple[mx.array, mx.array]:
    """How many keys of each tile each query sees, `[B, H, blocks, queries, tiles]`, and whether a
    block has a query that sees none at all, `[B, H, blocks, 1]`."""
    length, key_length = mask.shape[-2:]
    rows, columns = -length % queries, -key_length % keys
    if rows or columns:
        mask = mx.pad(mask, [(0, 0), (0, 0), (0, rows), (0, columns)])
    by_tile = mx.unflatten(mx.unflatten(mask, -1, (-1, keys)), -3, (-1, queries))
    seen = mx.sum(by_tile, axis=-1)
    is_query = mx.unflatten(mx.arange(length + rows) < length, 0, (-1, queries))
    is_blind = mx.any((mx.sum(seen, axis=-1) == 0) & is_query, axis=-1, keepdims=True)
    return seen, is_blind
