"""Puts the planner in the place of `mx.fast.scaled_dot_product_attention`, and takes it out
again."""

from __future__ import annotations

import sys
import threading
from typing import Any

import mlx.core as mx

from .. import stock
from ..planning import layers
from ..planning.plan import UNPLANNED
from ..planning.planner import Planner, forget_plans
from . import exporting, mla, mlx_lm, state
from .rebind import rebind

_lock = threading.RLock()
# A function that another package put on top of ours, which may call ours: it stays where it is.
_above: object = None


def active() -> Planner | None:
    """The planner that patched calls go through, or None while MLX is unpatched."""
    return state.installed


def other_copy() -> str | None:
    """The package whose patch is in place where that is another copy of this one, vendored under
    another name; None where it is this one's, or nobody's."""
    patched_by = getattr(mx.fast.scaled_dot_product_attention, _PATCHED_BY, lambda: None)()
    return patched_by if patched_by != _PACKAGE else None


def install(planner: Planner) -> None:
    """Routes every attention call through `planner`; takes the place of the planner before it."""
    with _lock:
        patched = state.installed is not None
        state.install(planner)
        if not patched:
            current: Any = mx.fast.scaled_dot_product_attention
            if current is not _above and current is not scaled_dot_product_attention:
                stock.attention = current
                forget_plans()  # which run MLX's function as it was
            rebind(stock.attention, scaled_dot_product_attention)
            exporting.install()
        mlx_lm.install()


def uninstall() -> None:
    """Puts MLX's own function back, also in modules that bound ours meanwhile."""
    global _above
    with _lock:
        function: object = mx.fast.scaled_dot_product_attention
        # Unpatched, ours may still be there: a package on top of it that took itself out later put
        # it back.
        if state.installed is not None or function is scaled_dot_product_attention:
            state.install(None)
            rebind(scaled_dot_product_attention, stock.attention)
            mlx_lm.uninstall()
            exporting.uninstall()
            function = mx.fast.scaled_dot_product_attention
            _above = None if function is stock.attention else function


def scaled_dot_product_attention(
    q: Any = None,
    k: Any = None,
    v: Any = None,
    *more: Any,
    scale: Any = None,
    mask: Any = None,
    sinks: Any = None,
    **rest: Any,
) -> mx.array:
    """Stands in for `mx.fast.scaled_dot_product_attention`: the same arguments, the same result, by
    the planned route.

    A call with `stream=` or `force_fused=`, or with arguments that MLX rejects, goes to MLX as it
    is.
    """
    planner = state.planner
    if planner is None or more or rest:
        # Without a planner: a name bound while the patch was in place, out of reach of `uninstall`.
        if planner is not None:
            layers.count(UNPLANNED.kind, sys._getframe(1))
        return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    if mask.__class__ is mx.array and mla.has_shape_of_rope_scores(mask, q):
        q, k, mask = mla.without_rope_scores(planner, q, k, v, mask, sinks, sys._getframe(1))
    return planner.attend(q, k, v, scale, mask, sinks)


def _patched_by() -> str | None:
    """This package while its patch is in place."""
    return None if state.installed is None else _PACKAGE


_PACKAGE = __name__.rsplit(".", 2)[0]
# What a copy of this package asks the function that it finds, see `other_copy`.
_PATCHED_BY = "flash_attention_patched_by"
setattr(scaled_dot_product_attention, _PATCHED_BY, _patched_by)
