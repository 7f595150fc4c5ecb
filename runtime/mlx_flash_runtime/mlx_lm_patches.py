"""What is patched in mlx-lm besides MLX's attention function: where masks are made, and the attention that it has of
its own (quantized keys and values, softcapped scores).

The modules are patched when they are there: those imported later are found by `catch_up`, which the planner calls when
it meets a new problem, as every model makes one in its first pass. What such a model did before its first attention
call, to make the masks of that pass, was mlx-lm's own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import masks, quantized, softcap
from .rebind import rebind

Function = Callable[..., Any]


@dataclass(frozen=True)
class Point:
    """One function of a module, or method of a class in it, and what to put in its place."""

    module: str
    path: tuple[str, ...]
    wrap: Callable[[Function], Function]


_BASE = "mlx_lm.models.base"
POINTS = (
    Point(_BASE, ("create_causal_mask",), masks.remembering),
    Point(_BASE, ("quantized_scaled_dot_product_attention",), quantized.by_blocks),
    Point(_BASE, ("scaled_dot_product_attention",), quantized.with_sinks),
    Point("mlx_lm.models.gemma2", ("Attention", "__call__"), softcap.gemma2_layer),
    Point("mlx_lm.models.gear", ("_softcap_attention",), softcap.of_arrays),
)

_lock = threading.Lock()
# By point, what has the function, the original and what is in its place.
_patched: dict[Point, tuple[Any, Function, Function]] = {}


def catch_up() -> None:
    """Patches what is loaded and not patched yet."""
    with _lock:
        for point in POINTS:
            module = sys.modules.get(point.module)
            if module is None:
                continue
            owner = _owner(module, point)
            if point in _patched and _patched[point][0] is owner:
                continue
            original = getattr(owner, point.path[-1], None)
            if original is None:  # another release of mlx-lm, or a module that is being loaded
                continue
            _take_out(point)  # of a module that was loaded anew
            _patched[point] = (owner, original, point.wrap(original))
            _put(owner, point, *_patched[point][1:])


def uninstall() -> None:
    """Puts the originals back."""
    with _lock:
        for point in POINTS:
            _take_out(point)


def _take_out(point: Point) -> None:
    if point in _patched:
        owner, original, ours = _patched.pop(point)
        _put(owner, point, ours, original)


def _owner(module: Any, point: Point) -> Any:
    """The module, or the class in it, that has the function."""
    for name in point.path[:-1]:
        module = getattr(module, name, None)
    return module


def _put(owner: Any, point: Point, old: Function, new: Function) -> None:
    if getattr(owner, point.path[-1]) is old:
        setattr(owner, point.path[-1], new)
    if len(point.path) == 1:  # a function, which other modules import by name
        rebind(old, new)
