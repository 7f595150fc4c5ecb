"""Puts the planner in the place of `mx.fast.scaled_dot_product_attention`, and takes it out
again."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

import mlx.core as mx

from .. import stock
from ..planning import layers
from ..planning.plan import UNPLANNED
from ..planning.planner import Planner
from ..stock.wrappers import replace_in
from . import mla, modules, state, tracing
from .default_arguments import are_defaults
from .rebind import Replacements, rebind

_lock = threading.RLock()
_original = stock.attention
_NAME = "scaled_dot_product_attention"


def active() -> Planner | None:
    """The planner that patched calls go through, or None while MLX is unpatched."""
    return state.installed


def other_copy() -> str | None:
    """The package whose patch is in place where that is another copy of this one, vendored under
    another name; None where it is this one's, or nobody's."""
    patched_by = getattr(mx.fast.scaled_dot_product_attention, _PATCHED_BY, lambda: None)()
    return patched_by if patched_by != _PACKAGE else None


def install(planner: Planner) -> None:
    """Routes every attention call through `planner`; takes the place of the planner before it.

    Ours takes the place of MLX's own function and of no other: a function that another package has
    put there stays in front, and is given ours to call.
    """
    with _lock:
        replacements: Replacements = {}
        if state.installed is None:
            replacements[_original] = scaled_dot_product_attention
            _watch(mx.fast, _Watched)
        state.install(planner)
        rebind(replacements | tracing.install() | modules.install())
        setattr(mx.fast, _NAME, _with_ours(mx.fast.scaled_dot_product_attention))


def uninstall() -> None:
    """Puts MLX's own function back, also in modules that bound ours meanwhile."""
    with _lock:
        function: object = mx.fast.scaled_dot_product_attention
        # Unpatched, ours may still be there: a package on top of it that took itself out later put
        # it back.
        if state.installed is not None or function is scaled_dot_product_attention:
            state.install(None)
            _watch(mx.fast, ModuleType)
            ours = {scaled_dot_product_attention: _original}
            rebind(ours | tracing.uninstall() | modules.uninstall())
            if function is not scaled_dot_product_attention:
                replace_in(function, scaled_dot_product_attention, _original)


def in_front() -> object:
    """The function of another package that has taken the place of MLX's and keeps what it calls out
    of reach, so that its calls may never come here; else None."""
    function: object = mx.fast.scaled_dot_product_attention
    ours = scaled_dot_product_attention
    return None if function is ours or replace_in(function, ours, ours) else function


class _Watched(ModuleType):
    """`mlx.core.fast` while MLX is patched. A package that takes its own function out puts back
    what it had found, which may be MLX's from before the patch."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == _NAME:
            value = _with_ours(value)
        super().__setattr__(name, value)


def _with_ours(function: Any) -> Any:
    """`function` so that its calls come to ours: itself where it is another package's, which then
    holds ours in the place of MLX's."""
    ours = scaled_dot_product_attention
    if function is _original:
        return ours
    if function is not ours:
        replace_in(function, _original, ours)
    return function


def _watch(module: ModuleType, kind: type[ModuleType]) -> None:
    """Makes `module` one of that kind, unless somebody else has made it one of theirs."""
    if type(module) in (ModuleType, _Watched):
        module.__class__ = kind


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

    A call on another stream than the default one, with `force_fused=True`, or with arguments that
    MLX rejects, goes to MLX as it is.
    """
    planner = state.planner
    if planner is None or more or rest:
        # Without a planner: a name bound while the patch was in place, out of reach of `uninstall`.
        planner = state.of_this_thread()
        if planner is None or more or not are_defaults(rest):
            if planner is not None:
                layers.count(UNPLANNED.kind, sys._getframe(1))
            return stock.attention(q, k, v, *more, scale=scale, mask=mask, sinks=sinks, **rest)
    if sinks is None and (mask is None or mask.__class__ is str):
        # Every tenth of a microsecond shows where a call takes a GPU ten: a plan that is right
        # whatever else a call may be (see `Plan.is_quick`) is found by less than all of it.
        try:
            plan = planner.plans.get((q.shape, k.shape, v.nbytes, mask))
        except (AttributeError, TypeError):  # no arrays: MLX says so best
            plan = None
        if plan is not None and (plan.dtype_to_check is None or plan.dtype_to_check == q.dtype):
            next(plan.numbers)
            if plan.to_learn or layers.in_every_call:
                plan.learn(sys._getframe(1))
            return plan.run(q, k, v, scale=scale, mask=mask, sinks=None)
    elif mask.__class__ is mx.array and mla.has_shape_of_rope_scores(mask, q):
        q, k, mask = mla.without_rope_scores(planner, q, k, v, mask, sinks, sys._getframe(1))
    return planner.attend(q, k, v, scale, mask, sinks)


def _patched_by() -> str | None:
    """This package while its patch is in place."""
    return None if state.installed is None else _PACKAGE


_PACKAGE = __name__.rsplit(".", 2)[0]
# What a copy of this package asks the function that it finds, see `other_copy`.
_PATCHED_BY = "flash_attention_patched_by"
setattr(scaled_dot_product_attention, _PATCHED_BY, _patched_by)
# MLX's own, for whoever finds ours in its place: another copy of this package that is imported now.
setattr(scaled_dot_product_attention, "__wrapped__", _original)  # noqa: B010  # not a function's own
