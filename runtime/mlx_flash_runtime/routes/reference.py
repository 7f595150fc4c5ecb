"""The definition: softmax(scale * Q K^T + mask, with sinks) V in float32, for any input. Every
other route is tested against it.

A bool mask puts the most negative finite number in place of a score rather than minus infinity, as
MLX's own unfused attention does: a row that sees no key at all is then the mean of all values, not
NaN. An additive row of minus infinities is NaN, there as here. Causal masks align the last query
with the last key.
"""

from __future__ import annotations

import mlx.core as mx

from ..ops.written_out import attention
from ..problem import Attend, Call, Device, Problem
from .route import Route


class Reference(Route):
    """The formula of this module's docstring, in one piece."""

    name = "reference"
    improves = False

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Any problem."""
        return True, "the definition holds for every input"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        """Always: it is the last to be asked."""
        return True, "nothing else holds"

    def extra_memory(self, problem: Problem, device: Device, block_size: int | None) -> int:
        """The scores before and after the softmax, in float32."""
        return 2 * 4 * problem.score_count

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        """The formula."""
        return _attend


def _attend(call: Call) -> mx.array:
    """The formula of this module's docstring, in one piece."""
    q, k, v = (x.astype(mx.float32) for x in (call.q, call.k, call.v))
    visible, softcap = call.problem.visible, call.problem.softcap
    mask = call.mask if visible is None else visible
    out = attention(q, k, v, scale=call.scale, mask=mask, sinks=call.sinks, softcap=softcap)
    return out.astype(call.dtype)


reference = Reference()
