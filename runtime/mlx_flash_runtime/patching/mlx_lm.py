"""What is patched in mlx-lm besides MLX's attention function: where masks are made, and the attention that it has of
its own (quantized keys and values, softcapped scores).

A module that is imported while the patch is in place is patched as soon as it is loaded: an import hook sees to it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
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

_lock = threading.RLock()


@dataclass(frozen=True)
class _Patched:
    """A function that was replaced, where it is looked up."""

    point: Point
    owner: Any
    original: Function
    ours: Function


_patched: list[_Patched] = []


def install() -> None:
    """Patches the modules that are loaded, and the others when they will be."""
    with _lock:
        if _hook not in sys.meta_path:
            sys.meta_path.insert(0, _hook)
        known = {done.point for done in _patched}
        for point in POINTS:
            if point not in known and point.module in sys.modules:
                _patch(point, sys.modules[point.module])


def uninstall() -> None:
    """Puts the originals back."""
    with _lock:
        if _hook in sys.meta_path:
            sys.meta_path.remove(_hook)
        for done in _patched:
            _put(done.owner, done.point, done.ours, done.original)
        _patched.clear()


class _Hook(MetaPathFinder):
    """Finds the modules that have points as the other finders do, and has them patched after they are loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        points = [point for point in POINTS if point.module == name]
        if not points:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        found = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module

            @wraps(execute)
            def exec_module(module: ModuleType) -> None:
                execute(module)
                with _lock:
                    # A loader may load other modules as well, and later than this hook is there.
                    if module.__name__ == name and self in sys.meta_path:
                        for point in points:
                            _patch(point, module)

            found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


_hook = _Hook()


def _patch(point: Point, module: ModuleType) -> None:
    owner = _owner(module, point)
    original = getattr(owner, point.path[-1], None)
    if original is not None:  # else another release of mlx-lm, or a module that is being loaded
        ours = point.wrap(original)
        _put(owner, point, original, ours)
        _patched.append(_Patched(point, owner, original, ours))


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
