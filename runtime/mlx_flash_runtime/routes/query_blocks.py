"""MLX's own unfused attention, a block of queries at a time: scores of a block rather than all of
them, and of a causal mask or a window only the keys that the block sees.

The backward pass computes the scores of each block again instead of keeping all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from .. import stock
from ..ops.blocks import QUERIES
from ..ops.ordering import after
from ..ops.padding import pad
from ..problem import Attend, Call, Device, Problem
from ..problem.masks import Causal, between
from ..stock.fused import error_of, is_fused
from ..stock.memory import scores_fit
from .route import Route

# By measurement on an H200: the half that a causal mask hides does not pay for the smaller
# products, until so many scores cost more to write than to compute.
_SKIPPED_SHARE = 0.6
_MANY_SCORES, _SKIPPED_SHARE_OF_MANY = 2**31, 0.25
# The scores of a block, where even those would not fit at that size.
_MEMORY_SHARE = 1 / 8


class QueryBlocks(Route):
    """Each block of queries on the keys from the first to the last that it sees."""

    name = "query_blocks"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any call that MLX knows, whose blocks MLX takes as it takes the whole."""
        if problem.softcap is not None:
            return False, "MLX has no softcapped attention"
        if error_of(problem, device) is not None:
            return False, "MLX has an error in the place of its blocks' gradients"
        if device.backend == "cuda":
            # With bool masks cuDNN gives a query that sees no key something else than the unfused
            # way does.
            if is_fused(problem, device)[0]:
                return False, "MLX has a fused kernel"
            if problem.visible is not None and problem.query_length > problem.key_length:
                return False, "queries before the first key see none of them"
        return (
            True,
            "MLX's unfused attention by blocks of queries, which skip what their mask hides",
        )

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """On a GPU where much of the mask is skipped, or where all scores would not fit in
        memory."""
        if device.backend == "cpu":
            return False, "blocks of queries were not measured faster on the CPU"
        if not scores_fit(problem, device):
            return True, "its scores would not fit in memory"
        many = device.backend == "cuda" and not problem.training
        many = many and problem.score_count >= _MANY_SCORES
        if problem.skipped_share(QUERIES[device.backend]) < (
            _SKIPPED_SHARE_OF_MANY if many else _SKIPPED_SHARE
        ):
            return False, "its mask hides too little to skip"
        return True, "blocks of queries skip much of its mask"

    def block_size(self, problem: Problem, device: Device) -> int | None:
        """Queries per block."""
        size = QUERIES[device.backend]
        while size > 8 and self.extra_memory(problem, device, size) > _MEMORY_SHARE * device.memory:
            size //= 2
        return size

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """The outputs of the blocks, and of the last block its scores and their softmax."""
        assert block_size is not None
        rows = min(block_size, problem.query_length)
        return (
            problem.output_bytes
            + 2 * problem.item_bytes * problem.score_count * rows // problem.query_length
        )

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """Block by block."""
        assert block_size is not None
        starts = range(0, problem.query_length, block_size)
        ends = [min(start + block_size, problem.query_length) for start in starts]
        blocks = [slice(start, end) for start, end in zip(starts, ends, strict=True)]

        def attend(call: Call) -> mx.array:
            return _attend(call, blocks)

        return attend


def _attend(call: Call, blocks: list[slice]) -> mx.array:
    names = list(_arrays(call))

    def of(arrays: Sequence[mx.array]) -> Call:
        return _with(call, dict(zip(names, arrays, strict=True)))

    function: Any = mx.custom_function(lambda *arrays: _forward(of(arrays), blocks))
    function.vjp(lambda primals, cotangent, _: _gradient(of(primals), blocks, cotangent))
    out: mx.array = function(*_arrays(call).values())
    return out


def _forward(call: Call, blocks: list[slice]) -> mx.array:
    parts: list[mx.array] = []
    for rows in blocks:
        part = _part(call, rows)
        out = stock.call(replace(part, q=after(part.q, *parts[-1:])))
        keys = _keys(call.problem, rows)
        if keys != _all_keys(call.problem):
            out = out + _per_query_head(_outside(call.v, keys), call.problem)
        parts.append(out)
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def _gradient(call: Call, blocks: list[slice], cotangent: mx.array) -> list[mx.array]:
    """The gradients of `_arrays(call)`; those that several blocks add to are summed up in
    float32."""
    by_query: dict[str, list[mx.array]] = {"q": []}
    sums: dict[str, mx.array] = {}
    for rows in blocks:
        part, towards = _part(call, rows), cotangent[:, :, rows]
        # After the cotangent, too: else mx.compile would take the scores of the forward pass for
        # those of this one.
        part = replace(part, q=after(part.q, towards, *by_query["q"][-1:], *sums.values()))
        own = _own_gradient(part, towards)
        keys = _keys(call.problem, rows)
        if keys != _all_keys(call.problem):
            own = _with_hidden_keys(own, call, keys)
        for name, gradient in own.items():
            if name == "q" or (name == "mask" and _has_rows(call.mask)):
                by_query.setdefault(name, []).append(gradient)
            else:
                gradient = gradient.astype(mx.float32)
                sums[name] = sums[name] + gradient if name in sums else gradient
    whole = sums | {name: mx.concatenate(parts, axis=-2) for name, parts in by_query.items()}
    # A bool mask has no gradient, but a place in the answer.
    return [
        whole[name].astype(x.dtype) if name in whole else mx.zeros_like(x)
        for name, x in _arrays(call).items()
    ]


def _with_hidden_keys(own: dict[str, mx.array], call: Call, keys: slice) -> dict[str, mx.array]:
    """The gradients of one block's call, which looked at `keys` alone, as those of a call with all
    keys: theirs are zeros, but for what is infinite or NaN."""
    problem = call.problem
    nothing_of_k, nothing_of_v = _outside(call.k, keys), _outside(call.v, keys)
    # A weight's gradient is a difference from a sum over all values: each gets their NaN.
    of_scores = mx.sum(nothing_of_v, axis=3, keepdims=True)
    whole = dict(own)
    whole["q"] = own["q"] + _per_query_head(nothing_of_k + of_scores, problem)
    whole["k"] = own["k"] + of_scores
    if "sinks" in own:
        whole["sinks"] = own["sinks"] + mx.sum(_per_query_head(of_scores, problem), axis=(0, 2, 3))
    for name in ("k", "v"):
        nothing = mx.sum(0 * whole[name], axis=2, keepdims=True)
        padded = pad(whole[name], 2, keys.start, problem.key_length - keys.stop)
        is_own = mx.arange(problem.key_length)[:, None]
        is_own = (is_own >= keys.start) & (is_own < keys.stop)
        whole[name] = mx.where(is_own, padded, nothing)
    return whole


def _outside(x: mx.array, keys: slice) -> mx.array:
    """What keys or values outside of `keys` add to a sum, times weights of zero, [B, H_kv, 1, D]:
    NaN for a number that is infinite or NaN, as in MLX."""
    before, after_them = x[:, :, : keys.start], x[:, :, keys.stop :]
    return mx.sum(0 * mx.concatenate([before, after_them], axis=2), axis=2, keepdims=True)


def _per_query_head(x: mx.array, problem: Problem) -> mx.array:
    """Of each key head, for each of its query heads."""
    return mx.repeat(x, problem.query_heads // problem.key_heads, axis=1)


def _all_keys(problem: Problem) -> slice:
    return slice(0, problem.key_length)


def _own_gradient(part: Call, cotangent: mx.array) -> dict[str, mx.array]:
    """The gradients of one block's call, by name."""
    arrays = {name: x for name, x in _arrays(part).items() if x.dtype != mx.bool_}

    def attend(*inputs: mx.array) -> mx.array:
        return stock.call(_with(part, dict(zip(arrays, inputs, strict=True))))

    return dict(zip(arrays, mx.vjp(attend, list(arrays.values()), [cotangent])[1], strict=True))


def _arrays(call: Call) -> dict[str, mx.array]:
    """The arrays of a call that are there, by name."""
    named = {"q": call.q, "k": call.k, "v": call.v, "mask": call.mask, "sinks": call.sinks}
    return {name: x for name, x in named.items() if x is not None}


def _with(call: Call, arrays: dict[str, mx.array]) -> Call:
    """The call with other arrays, by name."""
    mask, sinks = arrays.get("mask", call.mask), arrays.get("sinks", call.sinks)
    return replace(call, q=arrays["q"], k=arrays["k"], v=arrays["v"], mask=mask, sinks=sinks)


def _part(call: Call, rows: slice) -> Call:
    """The call of some queries, on the keys from the first to the last that they see."""
    problem = call.problem
    keys = _keys(problem, rows)
    offset = problem.key_length - problem.query_length
    structure = problem.visible
    in_a_word = isinstance(structure, Causal) and rows.start + offset >= 0
    mask = call.mask
    if structure is not None:
        positions = range(offset + rows.start, offset + rows.stop)
        mask = None if in_a_word else between(structure, positions, range(keys.start, keys.stop))
    elif mask is not None and _has_rows(mask):
        mask = mask[..., rows, :]
    part = replace(
        problem,
        query_length=rows.stop - rows.start,
        key_length=keys.stop - keys.start,
        mask=problem.mask if in_a_word or structure is None else "bool",
        mask_shape=() if mask is None else tuple(mask.shape),
        structure=None,
    )
    return replace(
        call,
        problem=part,
        q=call.q[:, :, rows],
        k=call.k[:, :, keys],
        v=call.v[:, :, keys],
        mask=mask,
    )


def _keys(problem: Problem, rows: slice) -> slice:
    """From the first to the last key that some queries see; all, where one sees none: it needs
    all, see `online_softmax.MASKED`."""
    structure = problem.visible
    offset = problem.key_length - problem.query_length
    if structure is None or rows.start + offset < 0:
        return _all_keys(problem)
    return slice(structure.first(rows.start + offset), structure.last(rows.stop - 1 + offset) + 1)


def _has_rows(mask: mx.array | None) -> bool:
    """Whether a mask tells queries apart."""
    return mask is not None and mask.ndim >= 2 and mask.shape[-2] > 1


query_blocks = QueryBlocks()
