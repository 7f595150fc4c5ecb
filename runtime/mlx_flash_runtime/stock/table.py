"""What each release of MLX fuses on each family of devices, as the data files in `releases/` say.

A file holds for the families that it names, from the first of its releases on, which calls MLX has
a fused kernel for: `fused` outside of a gradient, `training` inside of one (forward and backward),
`forced` those that it runs with `force_fused=True` alone. `raises` says which of `training` end in
an error when they are evaluated, with the error. `releases` are those that were looked at, `known`
says how. What a row does not name, it does not ask of a call: see `Row`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ..problem import Device, Problem
from .release import mlx_release

# "causal over fewer keys" is a causal mask with more queries than keys, "array" every mask that
# MLX has no word for.
MaskWord = Literal["none", "causal", "causal over fewer keys", "array"]
Lengths = Literal["any", "queries <= keys", "queries == keys"]
Range = tuple[int, int | None]  # the least and the most; None where there is no most

FOLDER = Path(__file__).with_name("releases")
FEW_QUERIES = 8  # so many and fewer are decoded by kernels of their own
_ROWS_PER_BLOCK = 32  # of the queries that `least_query_blocks` counts

_MASK_PHRASES: dict[MaskWord, str] = {
    "none": "no mask",
    "causal": "a causal mask",
    "causal over fewer keys": "a causal mask over more queries than keys",
    "array": "an array mask",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Calls of one kind, by what is asked of them.

    `head_dims` are pairs, of queries and values: in a file a number stands for a pair of it, and
    `"mixed": true` allows any two of the numbers; None for all. `query_step` divides the number of
    queries. `dtypes` may have "tf32": float32, where MLX multiplies it as TF32. `group` is the
    query heads per key head, `most_query_rows` bounds their product with the queries,
    `least_query_blocks` the blocks of 32 queries in all heads of the batch. `sinks` asks for them
    to be there (True) or not (False).
    """

    head_dims: frozenset[tuple[int, int]] | None = None
    queries: Range = (1, None)
    query_step: int = 1
    keys: Range = (1, None)
    lengths: Lengths = "any"
    masks: frozenset[str] = frozenset({"none", "causal", "array"})
    dtypes: frozenset[str] = frozenset({"float16", "bfloat16", "float32"})
    group: Range = (1, None)
    most_query_rows: int | None = None
    least_query_blocks: int = 1
    sinks: bool | None = None
    error: str = ""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Row:
        """A row of a file. Raises ValueError for a name that no row has."""
        unknown = data.keys() - {field.name for field in fields(cls)} - {"mixed"}
        if unknown:
            raise ValueError(f"a row asks for {', '.join(sorted(unknown))}, which no row knows")
        read: dict[str, Any] = dict(data)
        mixed = read.pop("mixed", False)
        if "head_dims" in read:
            read["head_dims"] = _pairs(read["head_dims"], mixed)
        for name in ("queries", "keys", "group"):
            if name in read:
                read[name] = tuple(read[name])
        for name in ("masks", "dtypes"):
            if name in read:
                read[name] = frozenset(read[name])
        return cls(**read)


def _pairs(sizes: list[Any], mixed: bool) -> frozenset[tuple[int, int]]:
    if mixed:
        return frozenset((size, other) for size in sizes for other in sizes)
    return frozenset((size, size) if isinstance(size, int) else tuple(size) for size in sizes)


@dataclass(frozen=True)
class Table:
    """One data file."""

    families: tuple[str, ...]
    releases: tuple[tuple[int, ...], ...]
    known: str
    fused: tuple[Row, ...] = ()
    forced: tuple[Row, ...] = ()
    training: tuple[Row, ...] = ()
    raises: tuple[Row, ...] = ()

    @property
    def release(self) -> tuple[int, ...]:
        """The first that it holds for."""
        return self.releases[0]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Table:
        """The table of a file's text, parsed. Raises KeyError or ValueError for what is none."""
        rows = {
            name: tuple(Row.of(row) for row in data.get(name, ()))
            for name in ("fused", "forced", "training", "raises")
        }
        releases = tuple(mlx_release(release) for release in data["releases"])
        return cls(tuple(data["families"]), releases, data["known"], **rows)


def family_of(device: Device) -> str:
    """The family that a device belongs to, as the files name them."""
    if device.backend == "metal":
        return "metal_nax" if device.nax else "metal"
    if device.backend == "cuda" and not device.has_cudnn:
        return "cuda_without_cudnn"
    return device.backend


def newest(device: Device) -> Table:
    """The newest table for the device's family that is not newer than its release; of a release
    older than all, the oldest."""
    own = [table for table in tables() if family_of(device) in table.families]
    not_newer = [table for table in own if table.release <= device.mlx]
    return not_newer[-1] if not_newer else own[0]


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """All of them, oldest release first."""
    paths = FOLDER.glob("*.json")
    read = [Table.of(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    return tuple(sorted(read, key=lambda table: table.releases))


@lru_cache(maxsize=1)
def known_releases() -> tuple[tuple[int, ...], ...]:
    """Those that were looked at on any device, oldest first."""
    return tuple(sorted({release for table in tables() for release in table.releases}))


def known_range() -> str:
    """`0.31.0 to 0.32.4`."""
    first, *_, last = (".".join(map(str, release)) for release in known_releases())
    return f"{first} to {last}"


def why_not(rows: Iterable[Row], problem: Problem, device: Device) -> str | None:
    """None for a call that one of `rows` describes; else what the rows lack that come nearest, in a
    phrase."""
    for phrase, fits in _ASPECTS:
        rows = [row for row in rows if fits(row, problem, device)]
        if not rows:
            return phrase(problem)
    return None


def mask_word(problem: Problem) -> MaskWord:
    """What kind of mask MLX is given."""
    if problem.has_array_mask:
        return "array"
    if problem.mask == "none":
        return "none"
    more_queries = problem.query_length > problem.key_length
    return "causal over fewer keys" if more_queries else "causal"


def _queries(problem: Problem) -> str:
    return "few queries" if problem.query_length <= FEW_QUERIES else "this many queries"


def _head_dims(problem: Problem) -> str:
    same = problem.head_dim == problem.value_head_dim
    return "this head dim" if same else "values of another head dim"


def _lengths(problem: Problem) -> str:
    more_queries = problem.query_length > problem.key_length
    return "more queries than keys" if more_queries else "this length"


def _fits_queries(row: Row, problem: Problem, device: Device) -> bool:
    return _is_in(problem.query_length, row.queries)


def _fits_head_dims(row: Row, problem: Problem, device: Device) -> bool:
    return row.head_dims is None or (problem.head_dim, problem.value_head_dim) in row.head_dims


def _fits_dtype(row: Row, problem: Problem, device: Device) -> bool:
    is_tf32 = problem.dtype == "float32" and device.tf32
    return problem.dtype in row.dtypes or (is_tf32 and "tf32" in row.dtypes)


def _fits_mask(row: Row, problem: Problem, device: Device) -> bool:
    return mask_word(problem) in row.masks


def _fits_lengths(row: Row, problem: Problem, device: Device) -> bool:
    queries, keys = problem.query_length, problem.key_length
    if queries % row.query_step or not _is_in(keys, row.keys):
        return False
    if row.lengths == "queries == keys":
        return queries == keys
    return row.lengths == "any" or queries <= keys


def _fits_heads(row: Row, problem: Problem, device: Device) -> bool:
    group = problem.query_heads // problem.key_heads
    most = row.most_query_rows
    return _is_in(group, row.group) and (most is None or problem.query_length * group <= most)


def _fits_blocks(row: Row, problem: Problem, device: Device) -> bool:
    blocks = -(-problem.query_length // _ROWS_PER_BLOCK)
    return problem.batch * problem.query_heads * blocks >= row.least_query_blocks


def _fits_sinks(row: Row, problem: Problem, device: Device) -> bool:
    return row.sinks is None or row.sinks == problem.sinks


def _is_in(number: int, bounds: Range) -> bool:
    least, most = bounds
    return least <= number and (most is None or number <= most)


# What a row asks, after what the call has that no row fits, in the order that tells most.
_ASPECTS: tuple[tuple[Callable[[Problem], str], Callable[[Row, Problem, Device], bool]], ...] = (
    (_queries, _fits_queries),
    (_head_dims, _fits_head_dims),
    (lambda problem: problem.dtype, _fits_dtype),
    (lambda problem: _MASK_PHRASES[mask_word(problem)], _fits_mask),
    (_lengths, _fits_lengths),
    (lambda _: "this many query heads per key head", _fits_heads),
    (lambda _: "so few queries in all heads", _fits_blocks),
    (lambda problem: "sinks" if problem.sinks else "no sinks", _fits_sinks),
)
