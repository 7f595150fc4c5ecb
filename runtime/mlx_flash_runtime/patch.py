"""Puts the planner in the place of `mx.fast.scaled_dot_product_attention`, and takes it out again."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import mlx.core as mx

from . import layers, stock
from .planner import UNPLANNED, Planner

_lock = threading.RLock()
_active: Planner | None = None
# A function that another package put on top of ours, which may call ours: it stays where it is.
_above: object = None


def active() -> Planner | None:
    """The planner that patched calls go through, or None while MLX is unpatched."""
    return _active


def install(planner: Planner) -> None:
    """Routes every attention call through `planner`; takes the place of the planner before it."""
    global _active
    with _lock:
        patched = _active is not None
        _active = planner
        if not patched:
            current: Any = mx.fast.scaled_dot_product_attention
            if current is not _above and current is not scaled_dot_product_attention:
                stock.attention = current
            _rebind(stock.attention, scaled_dot_product_attention)


def uninstall() -> None:
    """Puts MLX's own function back, also in modules that bound ours meanwhile."""
    global _active, _above
    with _lock:
        function: object = mx.fast.scaled_dot_product_attention
        # Unpatched, ours may still be there: a package on top of it that took itself out later put it back.
        if _active is not None or function is scaled_dot_product_attention:
            _active = None
            _rebind(scaled_dot_product_attention, stock.attention)
            function = mx.fast.scaled_dot_product_attention
            _above = None if function is stock.attention else function


def _rebind(old: object, new: object) -> None:
    """Replaces `old` by `new` under every name that a loaded module has for it; `mlx.core.fast` is one of them."""
    own = __name__.rpartition(".")[0]
    for path, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not path.startswith(own):
            # Not vars(): a module that loads lazily would load at the first look into it.
            namespace = ModuleType.__getattribute__(module, "__dict__")
            for name, value in list(namespace.items()):
                if value is old:
                    namespace[name] = new


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
    planner = _active
    if planner is None:  # a name bound while the patch was in place, and out of reach of `uninstall`
        return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    if more or rest:
        layers.count(UNPLANNED.decision, sys._getframe(1))
        return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    plan = planner.plan_call(q, k, v, mask, sinks)
    layers.count(plan.decision, sys._getframe(1))
    if plan.is_native or not hasattr(scale, "__float__"):
        return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
    return plan.run(q, k, v, scale=float(scale), mask=mask, sinks=sinks)
