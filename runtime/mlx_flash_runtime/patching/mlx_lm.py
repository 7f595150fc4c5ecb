"""What is patched in mlx-lm besides MLX's attention function: where masks are made, and the
attention that it has of its own (quantized keys and values, softcapped scores).

A module that is imported while the patch is in place is patched as soon as it is loaded: a finder
of ours sees to it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import masks, quantized, softcap
from .rebind import Replacements, rebind

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


def install() -> Replacements:
    """Patches the modules that are loaded, and the others when they will be. Returns the functions
    to replace under other names, see `rebind`."""
    global _is_on
    with _lock:
        _is_on = True
        if not any(finder is _finder for finder in sys.meta_path):
            sys.meta_path.insert(0, _finder)
        known = {done.point for done in _patched}
        replacements: Replacements = {}
        for point in POINTS:
            if point not in known and point.module in sys.modules:
                replacements |= _patch(point, sys.modules[point.module])
        return replacements


def uninstall() -> Replacements:
    """Puts the originals back. Returns the functions to replace under other names."""
    global _is_on
    with _lock:
        _is_on = False  # whoever has kept the list of finders as it is now may put it back
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _finder]
        replacements: Replacements = {}
        for done in _patched:
            replacements |= _put(done.owner, done.point, done.ours, done.original)
        _patched.clear()
        return replacements


class _Finder(MetaPathFinder):
    """Leaves it to the other finders to find the modules that have points, and has them patched
    once loaded."""

    def __init__(self) -> None:
        self._searches: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        search = threading.get_ident(), name
        # One of the others may ask all finders in its turn, this one among them. Those before it
        # have been asked.
        if not _is_on or search in self._searches or all(point.module != name for point in POINTS):
            return None
        self._searches.add(search)
        try:
            found = self._ask_those_after(name, path, target)
        finally:
            self._searches.remove(search)
        # Loaders of the old kind (`load_module`) and specs that are none load what they load,
        # unpatched.
        if isinstance(found, ModuleSpec) and hasattr(found.loader, "exec_module"):
            found.loader = _Loader(found.loader)  # type: ignore[assignment]
        return found

    def _ask_those_after(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        finders = iter(list(sys.meta_path))
        for finder in finders:
            if finder is self:
                break
        for finder in finders:
            if not hasattr(finder, "find_spec"):
                # The old kind, which the import system asks in its own way, and then the rest.
                return None
            found = finder.find_spec(name, path, target)
            if found is not None:
                return found
        return None


class _Loader:
    """Loads a module as another finder's loader does, of whatever class that is, and has it
    patched."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def exec_module(self, module: ModuleType) -> None:
        # What looks for the module's source or resources finds their loader, as without this one.
        for owner, name in ((module.__spec__, "loader"), (module, "__loader__")):
            if getattr(owner, name, None) is self:
                setattr(owner, name, self._theirs)
        self._theirs.exec_module(module)
        with _lock:
            for point in POINTS:
                if _is_on and point.module == module.__name__:
                    rebind(_patch(point, module))

    def __getattr__(self, name: str) -> Any:
        if name == "_theirs":  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self._theirs, name)


_finder = _Finder()
_is_on = False


def _patch(point: Point, module: ModuleType) -> Replacements:
    owner = _owner(module, point)
    original = getattr(owner, point.path[-1], None)
    if original is None:  # another release of mlx-lm, or a module that is being loaded
        return {}
    ours = point.wrap(original)
    _patched.append(_Patched(point, owner, original, ours))
    return _put(owner, point, original, ours)


def _owner(module: Any, point: Point) -> Any:
    """The module, or the class in it, that has the function."""
    for name in point.path[:-1]:
        module = getattr(module, name, None)
    return module


def _put(owner: Any, point: Point, old: Function, new: Function) -> Replacements:
    if getattr(owner, point.path[-1]) is old:
        setattr(owner, point.path[-1], new)
    # A function is imported by name by other modules, a method is not.
    return {old: new} if len(point.path) == 1 else {}
