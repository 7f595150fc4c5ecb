"""Exported functions get MLX's own attention: an operation of ours, or a function with a gradient
of its own, cannot be written to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import mlx.core as mx

from . import state
from .rebind import Replacements, rebind

# Functions of `mlx.core` that trace the function that is their second argument, `fun`.
_NAMES = ("export_function", "exporter")
# Ours by MLX's own.
_replaced: Replacements = {}
_stays = False


def install() -> Replacements:
    """Has functions exported with MLX's own attention. Returns the functions to replace wherever
    modules have them, see `rebind`."""
    if _replaced:
        return {}
    for name in _NAMES:
        original = getattr(mx, name)
        _replaced[original] = _with_stock_attention(original)
    return dict(_replaced)


def uninstall() -> Replacements:
    """The functions to replace so that MLX's own are back: none where ours are to stay."""
    if _stays:
        return {}
    back = {ours: original for original, ours in _replaced.items()}
    _replaced.clear()
    return back


def install_for_good() -> None:
    """Has functions exported with MLX's own attention whether or not MLX is patched: for those
    that call `flash_attention` themselves."""
    global _stays
    _stays = True
    rebind(install())


def _with_stock_attention(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def export(*arguments: Any, **named: Any) -> Any:
        # The rest is the user's, whatever it is called: the arguments of the function that is
        # exported.
        if len(arguments) > 1:
            arguments = (arguments[0], _traced(arguments[1]), *arguments[2:])
        elif "fun" in named:
            named["fun"] = _traced(named["fun"])
        return original(*arguments, **named)

    return export


def _traced(function: Any) -> Any:
    if not callable(function):  # MLX says so best
        return function

    @wraps(function)
    def traced(*inputs: Any, **named: Any) -> Any:
        with state.paused():
            return function(*inputs, **named)

    return traced
