"""The definition: softmax(scale * Q K^T + mask, with sinks) V in float32, for any input. Every
other route is tested against it.

A bool mask puts the most negative finite number in place of a score rather than minus infinity, as
MLX's own unfused attention does: a row that sees no key at all is then the mean of all values, not
NaN. An additive row of minus infinities is NaN, there as here. Causal masks align the last query
with the last key.
"""

from __future__ import annotations

import mlx.core as mx

from ..ops.written_out import Mask, attention_and_weights
from ..problem import Attend, Call, Device, Problem, promoted
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
    visible, softcap = call.problem.visible, call.problem.softcap
    mask = call.mask if visible is None else visible
    return attend_with_weights(
        call.q, call.k, call.v, scale=call.scale, mask=mask, sinks=call.sinks, softcap=softcap
    )[0]


def attend_with_weights(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: Mask | None = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
) -> tuple[mx.array, mx.array]:
    """The attention and the weight that each query gives to each key, `[B, H, L, S]`, both of the
    type that q, k and v promote to."""
    dtype = promoted(q.dtype, k.dtype, v.dtype)
    q, k, v = (x.astype(mx.float32) for x in (q, k, v))
    out, weights = attention_and_weights(
        q, k, v, scale=scale, mask=mask, sinks=sinks, softcap=softcap
    )
    return out.astype(dtype), weights.astype(dtype)


reference = Reference()
