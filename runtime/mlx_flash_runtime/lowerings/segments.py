"""Documents packed into one row: a causal call for each, without the mask that keeps them apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import mlx.core as mx

from ..problem import Attend, Call, Device, Problem
from ..problem.masks import Segments

DOES = "its packed documents taken one by one"

# Documents of this length on average, in a row of that length, are worth a call each: on an H200,
# training on 8 documents of 1024 tokens is 4.7 times as fast so, on 64 of 128 tokens 0.9 times, on
# 4 of 256 tokens 0.7 times.
_DOCUMENT = 512
_ROW = 2048


def lower(problem: Problem, device: Device, block_size: int | None) -> tuple[Problem, ...] | str:
    """One causal problem for each document."""
    if not isinstance(problem.structure, Segments):
        return "its mask is not known to separate documents"
    return tuple(
        replace(problem, query_length=length, key_length=length, mask="causal", structure=None)
        for length in problem.structure.lengths
    )


def pays(problem: Problem, device: Device) -> bool:
    """For a row that is long enough, in documents that are."""
    assert isinstance(problem.structure, Segments)
    return problem.query_length >= max(_ROW, _DOCUMENT * len(problem.structure.lengths))


def extra_memory(problem: Problem, device: Device, block_size: int | None) -> int:
    """The outputs, before they are put together."""
    return problem.output_bytes


def run(call: Call, calls: tuple[Problem, ...], attend: Attend) -> mx.array:
    """Split, attend, concatenate."""
    ends = [*accumulate(one.query_length for one in calls)][:-1]
    q = mx.split(call.q, ends, axis=2)
    k = mx.split(call.k, ends, axis=2)
    v = mx.split(call.v, ends, axis=2)
    out = []
    for i, one in enumerate(calls):
        out.append(attend(replace(call, problem=one, q=q[i], k=k[i], v=v[i], mask=None)))
    return mx.concatenate(out, axis=2)
