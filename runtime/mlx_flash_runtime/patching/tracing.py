"""Functions of MLX that trace a function of the user's, where attention is to know of it.

Exported functions get MLX's own attention: an operation of ours, or a function with a gradient of
its own, cannot be written to a file. What `mx.vmap` maps gets no CUDA kernel: those have no vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

import mlx.core as mx

from ..stock.vmap import mapping
from . import state
from .rebind import Replacements, rebind

# Ours by MLX's own.
_replaced: Replacements = {}
_stays = False


def install() -> Replacements:
    """Has functions exported with MLX's own attention, and mapped without kernels that have no
    vmap. Returns the functions to replace wherever modules have them, see `rebind`."""
    if _replaced:
        return {}
    for name in ("export_function", "exporter"):
        _replaced[getattr(mx, name)] = _tracing_inside(state.paused, getattr(mx, name), 1)
    if mx.cuda.is_available():
        _replaced[mx.vmap] = _tracing_inside(mapping, mx.vmap, 0)
    return dict(_replaced)


def uninstall() -> Replacements:
    """The functions to replace so that MLX's own are back: none where ours are to stay."""
    if _stays:
        return {}
    back = {ours: original for original, ours in _replaced.items()}
    _replaced.clear()
    return back


def install_for_good() -> None:
    """The same whether or not MLX is patched: for those that call `flash_attention` themselves."""
    global _stays
    _stays = True
    rebind(install())


def _tracing_inside(
    context: Callable[[], AbstractContextManager[None]], original: Callable[..., Any], at: int
) -> Callable[..., Any]:
    """`original`, whose argument `fun`, or that number `at`, is traced inside of a context."""

    @wraps(original)
    def tracing(*arguments: Any, **named: Any) -> Any:
        # The rest is the user's, whatever it is called: the arguments of a function that is
        # exported.
        if len(arguments) > at:
            traced = _inside(context, arguments[at])
            arguments = (*arguments[:at], traced, *arguments[at + 1 :])
        elif "fun" in named:
            named["fun"] = _inside(context, named["fun"])
        return original(*arguments, **named)

    return tracing


def _inside(context: Callable[[], AbstractContextManager[None]], function: Any) -> Any:
    if not callable(function):  # MLX says so best
        return function

    @wraps(function)
    def traced(*inputs: Any, **named: Any) -> Any:
        with context():
            return function(*inputs, **named)

    return traced
