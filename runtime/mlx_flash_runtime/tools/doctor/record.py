"""The data file of this machine: which calls MLX fuses here, asked of MLX for every combination of
what its rules have depended on so far, at batch 1 and 32 query heads.

Combinations that were answered yes and differ in one thing alone are put together, over and over;
what is left are the rows of a table, as `stock/table.py` reads them. Of numbers of queries between
two that were asked, a row says what it says of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import mlx.core as mx

from ... import stock
from ...problem import Device, MaskKind, Problem
from ...stock import asked
from ...stock.release import mlx_version
from ...stock.table import FEW_QUERIES, family_of

_SIZES = (32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256, 512)
_HEAD_DIMS = (*((size, size) for size in _SIZES), (64, 128), (96, 64), (128, 64), (192, 128))
_DTYPES = ("float16", "bfloat16", "float32")
_MASKS: dict[str, MaskKind] = {"none": "none", "causal": "causal", "array": "bool"}
_SINKS = (False, True)
_LENGTHS = ("fewer", "as many", "more")  # queries, compared with the keys
_MANY_KEYS = 4096
_HEADS, _GROUPS, _GROUP = 32, (1, 4, 8, 32), 4
# On both sides of every limit that a release has had; and lengths that tell steps apart, as 1000
# is a multiple of 8 but not of 16, 1008 of 16 but not of 32, and so on.
_FEW = (1, 2, 3, 4, FEW_QUERIES)
_MANY = (9, 128, 896, 960, 992, 1000, 1008, 1023, 1024, 2047, 2048)
_STEPS = (1, 8, 16, 32, 64, 128)

# A combination, one value for each of these: head dims, type, mask, sinks, lengths, query heads per
# key head, queries. A box is all combinations of some values for each.
_Cell = tuple[Any, ...]
_Box = tuple[frozenset[Any], ...]


def record(device: Device) -> dict[str, Any]:
    """The data of the file for this machine; takes some seconds. `device` is the current one."""
    without = " with MLX_ENABLE_TF32=0" if device.nax and not device.tf32 else ""
    data: dict[str, Any] = {
        "families": [family_of(device)],
        "releases": [mlx_version()],
        "known": f"asked of MLX on {device.name}{without} by mlx-flash doctor --record",
    }
    for name, ask in (
        ("fused", asked.is_fused),
        ("forced", _is_fused_by_force_alone),
        ("training", lambda problem: asked.is_fused(replace(problem, training=True))),
    ):
        rows = [*_rows(ask, _MANY, (_GROUP,)), *_rows(ask, _FEW, _GROUPS)]
        if rows:
            data[name] = rows
    raises = list(_errors()) if "training" in data else []
    return data | {"raises": raises} if raises else data


def as_text(data: dict[str, Any]) -> str:
    """The text of the file, a row a line."""
    parts = []
    for name, value in data.items():
        text = json.dumps(value)
        if isinstance(value[0], dict):
            text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
        parts.append(f'  "{name}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _is_fused_by_force_alone(problem: Problem) -> bool:
    return asked.is_fused_if_forced(problem) and not asked.is_fused(problem)


def _rows(
    ask: Callable[[Problem], bool | None], queries: Sequence[int], groups: Sequence[int]
) -> Iterator[dict[str, Any]]:
    axes = (_HEAD_DIMS, _DTYPES, _MASKS, _SINKS, _LENGTHS, groups, queries)
    yes = [_as_said(cell) for cell in product(*axes) if ask(_problem(cell))]
    for box in _boxes(yes):
        head_dims, dtypes, masks, sinks, lengths, own_groups, own_queries = box
        row: dict[str, Any] = {"head_dims": _sizes(head_dims)}
        if len(dtypes) < len(_DTYPES):
            row["dtypes"] = [dtype for dtype in _DTYPES if dtype in dtypes]
        if masks != frozenset(_MASKS):
            row["masks"] = sorted(masks)
        if len(sinks) == 1:
            row["sinks"] = True in sinks
        if "more" not in lengths:
            row["lengths"] = "queries <= keys" if "fewer" in lengths else "queries == keys"
            if "as many" not in lengths:
                row["keys"] = [_MANY_KEYS, None]
        if len(own_groups) < len(groups):
            row["group"] = [min(own_groups), max(own_groups)]
        for least, most, step in _ranges(own_queries, queries):
            steps = {"query_step": step} if step > 1 else {}
            yield row | {"queries": [least, most]} | steps


def _problem(cell: _Cell) -> Problem:
    (head_dim, value_head_dim), dtype, mask, sinks, lengths, group, queries = cell
    keys = {"fewer": _MANY_KEYS, "as many": queries, "more": max(1, queries // 2)}[lengths]
    sizes = (1, _HEADS, _HEADS // group, queries, keys, head_dim, value_head_dim)
    return Problem(*sizes, dtype=dtype, mask=_MASKS[mask], sinks=sinks)


def _as_said(cell: _Cell) -> _Cell:
    """The combination in the words of a table, which has one for a causal mask over fewer keys."""
    head_dims, dtype, mask, sinks, lengths, *rest = cell
    if mask == "causal" and lengths == "more":
        mask = "causal over fewer keys"
    return (head_dims, dtype, mask, sinks, lengths, *rest)


def _boxes(cells: Sequence[_Cell]) -> list[_Box]:
    """The combinations as few boxes, none of which has another one's."""
    boxes = {_box_of(cell) for cell in cells}
    for axis in range(len(cells[0]) if cells else 0):
        alike: dict[_Box, set[Any]] = {}
        for box in boxes:
            alike.setdefault(box[:axis] + box[axis + 1 :], set()).update(box[axis])
        boxes = {(*rest[:axis], frozenset(values), *rest[axis:]) for rest, values in alike.items()}
    return sorted(boxes, key=lambda box: [sorted(map(str, values)) for values in box])


def _box_of(cell: _Cell) -> _Box:
    """The box of one combination alone."""
    return tuple(frozenset([value]) for value in cell)


def _sizes(head_dims: frozenset[tuple[int, int]]) -> list[Any]:
    return [head if head == value else [head, value] for head, value in sorted(head_dims)]


def _ranges(
    queries: frozenset[int], all_queries: Sequence[int]
) -> Iterator[tuple[int, int | None, int]]:
    """Least, most and step of numbers of queries; no most where the largest that was asked is
    among many."""
    for step in _STEPS:
        between = [q for q in all_queries if min(queries) <= q <= max(queries) and not q % step]
        if queries == frozenset(between):
            is_last = max(queries) == _MANY[-1]
            yield min(queries), None if is_last else max(queries), step
            return
    for one in sorted(queries):
        yield one, one, 1


def _errors() -> Iterator[dict[str, Any]]:
    """What MLX fuses in training and then cannot do, tried on small gradients: of sinks, and with
    few queries."""
    some = Problem(1, 8, 8, 128, 128, 64, 64, dtype="float16", training=True)
    few = replace(some, query_length=4, key_length=16)
    for problem, row in (
        (replace(some, sinks=True), {"sinks": True}),
        (few, {"queries": [1, FEW_QUERIES]}),
    ):
        error = _error_of(problem) if asked.is_fused(problem) else None
        if error is not None:
            yield {"error": error, **row}


def _error_of(problem: Problem) -> str | None:
    p, dtype = problem, getattr(mx, problem.dtype)
    q = mx.zeros((p.batch, p.query_heads, p.query_length, p.head_dim), dtype)
    k = mx.zeros((p.batch, p.key_heads, p.key_length, p.head_dim), dtype)
    sinks = [mx.zeros((p.query_heads,), dtype)] if p.sinks else []

    def attend(q: mx.array, k: mx.array, v: mx.array, *sinks: mx.array) -> mx.array:
        return stock.attention(q, k, v, scale=1.0, sinks=sinks[0] if sinks else None)

    try:
        mx.eval(mx.vjp(attend, [q, k, k, *sinks], [q]))
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None
