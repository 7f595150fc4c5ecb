"""Whether a call is being traced for a gradient, which MLX does not tell Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx

from .. import stock


def is_traced(stream: mx.Stream | None = None) -> bool:
    """Whether this thread is inside `mx.grad`, `mx.vjp` or the like, as far as the default device
    shows it.

    MLX itself knows, and acts on it: there are calls that it has a fused kernel for outside of a
    gradient and none inside. A call over no queries at all, which costs nothing, is made such that
    it is refused without a fused kernel (see `_PROBES`). Always False where no such call shows it,
    as on the CPU. A thread that has used no stream yet is given one of another thread's to ask on:
    MLX keeps every stream that it makes.
    """
    probe = _probe()
    return probe is not None and _is_refused(probe, stream)


def shows() -> bool:
    """Whether `is_traced` tells the two apart on this machine; first asked outside of any gradient
    (when the patch is put in place)."""
    return _probe() is not None


@lru_cache(maxsize=1)
def _probe() -> Callable[..., mx.array] | None:
    """The first call that this MLX refuses inside of a gradient and takes outside, tried once on
    both."""
    if not (mx.metal.is_available() or mx.cuda.is_available()):
        return None
    for make in _PROBES:
        probe = make()
        if _tells_apart(probe):
            return probe
    return None


def _tells_apart(probe: Callable[..., mx.array]) -> bool:
    answers = [_is_refused(probe)]

    def inside(x: mx.array) -> mx.array:
        answers.append(_is_refused(probe))
        return x

    mx.grad(inside)(mx.array(0.0))
    return answers == [False, True]


def _is_refused(probe: Callable[..., mx.array], stream: mx.Stream | None = None) -> bool:
    try:
        probe(stream=stream)
    except (TypeError, ValueError):  # no argument of that name, no fused kernel
        return True
    return False


def _call(values: int, masked: bool, **options: Any) -> Callable[..., mx.array]:
    """A call of no queries on one key and so many values."""
    q, k, v = mx.zeros((1, 1, 0, 64)), mx.zeros((1, 1, 1, 64)), mx.zeros((1, 1, values, 64))
    mask = mx.zeros((1, 1), mx.bool_) if masked else None
    return partial(stock.attention, q, k, v, scale=1.0, mask=mask, **options)


# CUDA: inside of a gradient MLX keeps the logsumexp that a fused backward pass needs, which its
# kernel for few queries cannot. Metal from 0.32.4 on: the fused backward pass takes no array mask.
# Metal before, where nothing is fused inside of a gradient, and any release without `force_fused`:
# only the unfused way looks at the number of values, when it multiplies with them.
_PROBES: tuple[Callable[[], Callable[..., mx.array]], ...] = (
    partial(_call, 1, masked=False, force_fused=True),
    partial(_call, 1, masked=True, force_fused=True),
    partial(_call, 2, masked=False),
)
