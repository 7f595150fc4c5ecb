"""What is patched in mlx-lm besides MLX's attention function: where masks are made, and the attention that it has of
its own (quantized keys and values, softcapped scores).

The modules are patched when they are there: those imported later are found by `catch_up`, which the planner calls when
it meets a new problem, as every model makes one before it needs any of this.
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
# The originals and what is in their place, by point.
_patched: dict[Point, tuple[Function, Function]] = {}


def catch_up() -> None:
    """Patches what is loaded and not patched yet."""
    with _lock:
        for point in POINTS:
            module = sys.modules.get(point.module)
            if module is None or point in _patched:
                continue
            owner = _owner(module, point)
            original = getattr(owner, point.path[-1], None)
            if original is None:  # another release of mlx-lm, or a module that is being loaded
                continue
            _patched[point] = (original, point.wrap(original))
            _put(owner, point, *_patched[point])


def uninstall() -> None:
    """Puts the originals back."""
    with _lock:
        for point, (original, ours) in _patched.items():
            _put(_owner(sys.modules[point.module], point), point, ours, original)
        _patched.clear()


def _owner(module: Any, point: Point) -> Any:
    """The module, or the class in it, that has the function."""
    for name in point.path[:-1]:
        module = getattr(module, name, None)
    return module


def _put(owner: Any, point: Point, old: Function, new: Function) -> None:
    if len(point.path) > 1:
        if getattr(owner, point.path[-1]) is old:
            setattr(owner, point.path[-1], new)
    else:
        rebind(old, new)
