"""What the planner decides about: one attention call by its shapes, types and mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import mlx.core as mx

from .arguments import fault, promoted
from .masks import Causal, Prefix, Segments, Structure, Window, structure_of

MaskKind = Literal["none", "causal", "window", "prefix", "segments", "bool", "additive"]
Phase = Literal["prefill", "training", "prefill or training", "decode", "unknown"]
PHASES: tuple[Phase, ...] = get_args(Phase)

# A query or a few, as of speculative decoding, on the keys of a cache.
_DECODED_QUERIES = 8

_MASK_WORDS: dict[MaskKind, str] = {
    "none": "no mask",
    "bool": "bool mask",
    "additive": "additive mask",
}
_ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_KINDS: dict[type, MaskKind] = {
    Causal: "causal",
    Window: "window",
    Prefix: "prefix",
    Segments: "segments",
}


@dataclass(frozen=True)
class Problem:
    """One attention call: `softmax(scale * q @ k.T + mask, with sinks) @ v`.

    q is `[batch, query_heads, query_length, head_dim]`, k `[batch, key_heads, key_length,
    head_dim]`, v `[batch, key_heads, key_length, value_head_dim]`; `dtype` names the type that the
    three promote to. The mask is described by its structure where that is known (`structure`,
    except for "causal", which says it all); `mask_shape` is an array's own shape before
    broadcasting, `()` without one. With `softcap` the scores are `softcap * tanh(scores /
    softcap)` before the mask. `training` says that a gradient is known to be traced.
    """

    batch: int
    query_heads: int
    key_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_head_dim: int
    dtype: str = "float32"
    mask: MaskKind = "none"
    mask_shape: tuple[int, ...] = ()
    structure: Structure | None = None
    sinks: bool = False
    softcap: float | None = None
    training: bool = False

    @property
    def window(self) -> int | None:
        """The size of a sliding window, or None."""
        return self.structure.size if isinstance(self.structure, Window) else None

    @property
    def visible(self) -> Structure | None:
        """Which keys each query sees, where the mask is known to say so; None without a mask and
        for an array of unknown origin."""
        return Causal() if self.mask == "causal" else self.structure

    @property
    def has_array_mask(self) -> bool:
        """Whether the mask reaches MLX as an array: it is one, or a structure that MLX has no name
        for."""
        return self.mask not in ("none", "causal")

    @property
    def item_bytes(self) -> int:
        """Bytes of one element of q, k, v and the output."""
        return _ITEM_BYTES[self.dtype]

    @property
    def score_count(self) -> int:
        """Elements of the full score matrix, `[batch, query_heads, query_length, key_length]`."""
        return self.batch * self.query_heads * self.query_length * self.key_length

    @property
    def output_bytes(self) -> int:
        """Bytes of the output, `[batch, query_heads, query_length, value_head_dim]`."""
        rows = self.batch * self.query_heads * self.query_length
        return self.item_bytes * rows * self.value_head_dim

    def skipped_share(self, block_size: int = 128) -> float:
        """The share of the score blocks, `block_size` queries by as many keys, that the mask's
        structure hides entirely."""
        structure = self.visible
        if structure is None or self.query_length > self.key_length:
            return 0.0
        offset = self.key_length - self.query_length
        rows = range(0, self.query_length, block_size)
        columns = -(-self.key_length // block_size)
        seen = 0
        for start in rows:
            stop = min(start + block_size, self.query_length)
            first, last = structure.first(offset + start), structure.last(offset + stop - 1)
            seen += last // block_size - first // block_size + 1
        return 1 - seen / (len(rows) * columns)

    def __str__(self) -> str:
        """In words, as `32/8 heads, head dim 64, 8,192 queries on 8,192 keys, causal, bfloat16`."""
        words = [f"batch {self.batch}"] if self.batch > 1 else []
        grouped = self.query_heads != self.key_heads
        words.append(f"{self.query_heads}{f'/{self.key_heads}' if grouped else ''} heads")
        if self.head_dim == self.value_head_dim:
            words.append(f"head dim {self.head_dim}")
        else:
            words.append(f"head dims {self.head_dim}/{self.value_head_dim}")
        queries = _several(self.query_length, "query", "queries")
        words.append(f"{queries} on {_several(self.key_length, 'key', 'keys')}")
        mask = _MASK_WORDS.get(self.mask, self.mask)
        words.append(f"{mask} of {self.window:,}" if self.window else mask)
        if self.sinks:
            words.append("sinks")
        if self.softcap is not None:
            words.append(f"softcap {self.softcap:g}")
        words.append(self.dtype)
        if self.training:
            words.append("with its gradient")
        return ", ".join(words)

    @property
    def phase(self) -> Phase:
        """What the call is part of, as far as its shapes tell: `decode` for at most 8 queries on
        more keys."""
        return "training" if self.training else phase_of(self.query_length, self.key_length)

    @classmethod
    def of(
        cls,
        q: object,
        k: object,
        v: object,
        mask: object = None,
        sinks: object = None,
        *,
        softcap: float | None = None,
        training: bool = False,
    ) -> Problem | None:
        """The problem of one call, or None where it is for MLX itself to judge: see `fault`."""
        if fault(q, k, v, mask, sinks) is not None:
            return None
        assert isinstance(q, mx.array)
        assert isinstance(k, mx.array)
        assert isinstance(v, mx.array)
        batch, query_heads, query_length, head_dim = q.shape
        _, key_heads, key_length, value_head_dim = v.shape
        dtype = promoted(q.dtype, k.dtype, v.dtype)
        structure = None
        if isinstance(mask, mx.array):
            structure = structure_of(mask, query_length, key_length)
        kind = _KINDS[type(structure)] if structure else _mask_kind(mask)
        return cls(
            batch,
            query_heads,
            key_heads,
            query_length,
            key_length,
            head_dim,
            value_head_dim,
            dtype=str(dtype).removeprefix("mlx.core."),
            mask=kind,
            mask_shape=tuple(mask.shape) if isinstance(mask, mx.array) and kind != "causal" else (),
            structure=None if kind == "causal" else structure,
            sinks=sinks is not None,
            softcap=softcap,
            training=training,
        )


def phase_of(query_length: int, key_length: int) -> Phase:
    """The phase of a call that is not known to be part of training."""
    return "decode" if query_length <= _DECODED_QUERIES and query_length < key_length else "prefill"


def _several(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _mask_kind(mask: object) -> MaskKind:
    if isinstance(mask, mx.array):
        return "bool" if mask.dtype == mx.bool_ else "additive"
    return "none" if mask is None else "causal"
