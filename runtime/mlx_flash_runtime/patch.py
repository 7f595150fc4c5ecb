"""Puts the planner in the place of `mx.fast.scaled_dot_product_attention`, and takes it out again."""

from __future__ import annotations

import sys
import threading
from typing import Any

import mlx.core as mx

from . import exporting, gradient, layers, mla, mlx_lm_patches, state, stock
from .layers import EACH, ONE_OF
from .plan import UNPLANNED, as_float
from .planner import Planner
from .rebind import rebind

_lock = threading.RLock()
# A function that another package put on top of ours, which may call ours: it stays where it is.
_above: object = None


def active() -> Planner | None:
    """The planner that patched calls go through, or None while MLX is unpatched."""
    return state.installed


def other_copy() -> str | None:
    """The package whose patch is in place where that is another copy of this one, vendored under another name; None
    where it is this one's, or nobody's."""
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
            rebind(stock.attention, scaled_dot_product_attention)
            exporting.install()
        mlx_lm_patches.install()


def uninstall() -> None:
    """Puts MLX's own function back, also in modules that bound ours meanwhile."""
    global _above
    with _lock:
        function: object = mx.fast.scaled_dot_product_attention
        # Unpatched, ours may still be there: a package on top of it that took itself out later put it back.
        if state.installed is not None or function is scaled_dot_product_attention:
            state.install(None)
            rebind(scaled_dot_product_attention, stock.attention)
            mlx_lm_patches.uninstall()
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
    """Stands in for `mx.fast.scaled_dot_product_attention`: the same arguments, the same result, by the planned route.

    A call with `stream=` or `force_fused=`, or with arguments that MLX rejects, goes to MLX as it is.
    """
    planner = state.planner
    if planner is None:  # a name bound while the patch was in place, and out of reach of `uninstall`
        return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    if more or rest:
        layers.count(UNPLANNED.kind, sys._getframe(1))
        return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    if sinks is None and (mask is None or mask.__class__ is str) and scale.__class__ is float:
        # All in this one place: here every tenth of a microsecond shows where a call takes twenty.
        try:
            known = planner.known.get((q.shape, k.shape, q.itemsize, mask))
        except (AttributeError, TypeError):  # no arrays: MLX says so best
            known = None
        if known is not None:
            kernel = known.kernel
            if kernel is None or (q.dtype == kernel.dtype and v.shape == kernel.value_shape):
                number = next(known.calls)
                if number <= EACH:
                    layers.count(known.kind, sys._getframe(1))
                elif not number % ONE_OF:
                    layers.count(known.kind, sys._getframe(1), ONE_OF)
                if kernel is None:
                    return stock.attention(q, k, v, scale=scale, mask=mask)
                return kernel[scale](q, k, v)
    plan = planner.plan_call(q, k, v, mask, sinks)
    if plan.may_be_mla:
        # In training MLX's fused attention refuses masks that a gradient is asked of, as of rope scores.
        training = gradient.is_traced()
        folded = mla.fold(q, k, mask, sys._getframe(1)) if training or plan not in planner.unfoldable else None
        if folded is not None:
            plan_folded = planner.plan_call(folded.q, folded.k, v, folded.mask, sinks)
            if plan_folded.is_ours or training:
                (q, k, mask), plan = folded, plan_folded
            else:
                planner.unfoldable.add(plan)
    layers.count(plan.kind, sys._getframe(1))
    factor = None if plan.is_native else as_float(scale)
    if factor is None:
        return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
    return plan.run(q, k, v, scale=factor, mask=mask, sinks=sinks)


def _patched_by() -> str | None:
    """This package while its patch is in place."""
    return None if state.installed is None else _PACKAGE


_PACKAGE = __name__.rpartition(".")[0]
# What a copy of this package asks the function that it finds, see `other_copy`.
_PATCHED_BY = "flash_attention_patched_by"
setattr(scaled_dot_product_attention, _PATCHED_BY, _patched_by)
