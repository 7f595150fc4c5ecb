"""MLX's own unfused attention, a block of queries at a time: scores of a block rather than all of them, and of a causal
mask or a window only the keys that the block sees.

The backward pass computes the scores of each block again instead of keeping all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx

from .. import stock
from ..crossover import scores_fit, skipped_share
from ..masks import Causal, between
from ..online_softmax import after
from ..problem import Call, Device, Problem

NAME = "query_blocks"

# By measurement on an H200: fewer queries fill it less, more of them skip less of the mask.
_BLOCK = 1024
_SKIPPED_SHARE = 0.25
# The scores of a block, where even those would not fit at that size.
_MEMORY_SHARE = 1 / 8


def holds(problem: Problem, device: Device) -> tuple[bool, str]:
    """Any call that MLX knows, with more queries than a block."""
    if problem.softcap is not None:
        return False, "MLX has no softcapped attention"
    return True, "MLX's unfused attention by blocks of queries, which skip what their mask hides"


def pays(problem: Problem, device: Device) -> tuple[bool, str]:
    """On CUDA where enough of the mask is skipped; on any GPU where all scores would not fit in memory."""
    if device.backend == "cpu":
        return False, "blocks of queries were not measured faster on the CPU"
    if not scores_fit(problem, device):
        return True, "its scores would not fit in memory"
    if device.backend != "cuda":
        return False, "blocks of queries are not known to be faster on this device"
    if skipped_share(problem, _BLOCK) < _SKIPPED_SHARE:
        return False, "its mask hides too little to skip"
    return True, "blocks of queries skip much of its mask"


def block_size(problem: Problem, device: Device) -> int | None:
    """Queries per block."""
    size = _BLOCK
    while size > 8 and extra_memory(problem, device, size) > _MEMORY_SHARE * device.memory:
        size //= 2
    return size


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The outputs of the blocks, and of the last block its scores and their softmax."""
    assert block_size is not None
    rows = min(block_size, problem.query_length)
    return problem.output_bytes + 2 * problem.item_bytes * problem.score_count * rows // problem.query_length


def run(call: Call, block_size: int | None) -> mx.array:
    """Block by block, each on the keys from the first to the last that it sees."""
    assert block_size is not None
    problem = call.problem
    starts = range(0, problem.query_length, block_size)
    parts = [_block(call, slice(start, min(start + block_size, problem.query_length))) for start in starts]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def _block(call: Call, rows: slice) -> mx.array:
    problem = call.problem
    offset = problem.key_length - problem.query_length
    positions = range(offset + rows.start, offset + rows.stop)
    structure = Causal() if problem.mask == "causal" else problem.structure
    keys = slice(0, problem.key_length)
    mask = call.mask
    in_a_word = isinstance(structure, Causal) and positions[0] >= 0
    if structure is not None:
        if positions[0] >= 0:  # a query before the first key sees none of them, and needs all: see MASKED
            keys = slice(structure.first(positions[0]), structure.last(positions[-1]) + 1)
        mask = None if in_a_word else between(structure, positions, range(keys.start, keys.stop))
    elif mask is not None and mask.ndim >= 2 and mask.shape[-2] > 1:
        mask = mask[..., rows, :]
    part = replace(
        problem,
        query_length=rows.stop - rows.start,
        key_length=keys.stop - keys.start,
        mask=problem.mask if in_a_word or structure is None else "bool",
        mask_shape=() if mask is None else tuple(mask.shape),
        structure=None,
    )

    def attend(q: mx.array, k: mx.array, v: mx.array, *rest: mx.array) -> mx.array:
        given = iter(rest)
        own_mask = None if mask is None else next(given)
        own_sinks = None if call.sinks is None else next(given)
        return stock.call(Call(part, q, k, v, call.scale, own_mask, own_sinks))

    inputs = [call.q[:, :, rows], call.k[:, :, keys], call.v[:, :, keys]]
    inputs += [x for x in (mask, call.sinks) if x is not None]
    return _checkpointed(attend)(*inputs)


def _checkpointed(attend: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """`mx.checkpoint`, whose gradient has no vmap, said with operations that have one."""

    def gradient(primals: Sequence[mx.array], cotangent: mx.array, _: mx.array) -> list[mx.array]:
        q, *rest = primals
        # After the cotangent: else mx.compile would take the scores of the forward pass for those of this one.
        return mx.vjp(attend, [after(q, cotangent), *rest], [cotangent])[1]

    function = mx.custom_function(attend)
    function.vjp(gradient)
    return function  # type: ignore[return-value]  # typed in MLX's stubs as returning object
