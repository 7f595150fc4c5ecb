"""Puts ours in the place of the functions that `originals` knows, in every module that has one.

A module that is imported while the patch is in place is patched as soon as it is loaded: a finder
of ours sees to it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import LazyLoader
from inspect import getattr_static
from types import ModuleType
from typing import Any, NamedTuple

from .originals import Found, Function, found_in, ours_for
from .rebind import Replacements, rebind

_lock = threading.RLock()


class _Patched(NamedTuple):
    """A function that was replaced, where it is looked up."""

    found: Found
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
        replacements: Replacements = {}
        for module in list(sys.modules.values()):
            replacements |= _patch(module)
        return replacements


def uninstall() -> Replacements:
    """Puts the originals back. Returns the functions to replace under other names."""
    global _is_on
    with _lock:
        _is_on = False  # whoever has kept the list of finders as it is now may put it back
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _finder]
        replacements: Replacements = {}
        for done in _patched:
            replacements |= _put(done.found, done.ours, done.found.function)
        _patched.clear()
        return replacements


class _Finder(MetaPathFinder):
    """Leaves it to the other finders to find a module, and has it patched once loaded."""

    def __init__(self) -> None:
        self._searches: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        search = threading.get_ident(), name
        # One of the others may ask all finders in its turn, this one among them. Those before it
        # have been asked.
        if not _is_on or search in self._searches or _is_of_python(name):
            return None
        self._searches.add(search)
        try:
            found = self._ask_those_after(name, path, target)
        finally:
            self._searches.remove(search)
        # Loaders of the old kind (`load_module`) and specs that are none load what they load,
        # unpatched.
        if isinstance(found, ModuleSpec) and hasattr(found.loader, "exec_module"):
            loader: Any = found.loader
            if isinstance(loader, LazyLoader):  # executes nothing before the first look into it
                loader.loader = _Loader(loader.loader)  # type: ignore[attr-defined]
            elif not isinstance(loader, ExtensionFileLoader):
                found.loader = _Loader(loader)  # type: ignore[assignment]
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
            if _is_on:
                rebind(_patch(module))

    def __getattr__(self, name: str) -> Any:
        if name == "_theirs":  # not there yet, in a copy that is being made
            raise AttributeError(name)
        return getattr(self._theirs, name)


_finder = _Finder()
_is_on = False


def _patch(module: Any) -> Replacements:
    replacements: Replacements = {}
    if isinstance(module, ModuleType):
        for found in found_in(module):
            ours = ours_for(found)
            _patched.append(_Patched(found, ours))
            replacements |= _put(found, found.function, ours)
    return replacements


def _put(found: Found, old: Function, new: Function) -> Replacements:
    *classes, name = found.original.path
    if getattr(found.owner, name, None) is old:
        is_static = isinstance(getattr_static(found.owner, name), staticmethod)
        setattr(found.owner, name, staticmethod(new) if is_static else new)
    # A function is imported by name by other modules, a method is not.
    return {} if classes else {old: new}


def _is_of_python(name: str) -> bool:
    """Whether a module comes with Python itself."""
    return name.partition(".")[0] in sys.stdlib_module_names
