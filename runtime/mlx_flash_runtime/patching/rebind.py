"""Replacing functions under every name that has them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

# Of this module in its package: a copy of the package, under whatever name, has one too.
_OWN_NAME = ".patching.rebind"

# New functions by the old ones.
Replacements = dict[Any, Any]


def rebind(replacements: Replacements) -> None:
    """Replaces functions, the keys, by others under every name that a loaded module has for them,
    except this package's own, and those of other copies of it, which keep MLX's functions too."""
    if not replacements:
        return
    paths = [path for path in list(sys.modules) if path.endswith(_OWN_NAME)]
    copies = tuple(path.removesuffix(_OWN_NAME) + "." for path in paths)
    by_identity = {id(old): new for old, new in replacements.items()}
    for path, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not f"{path}.".startswith(copies):
            # Not vars(): a module that loads lazily would load at the first look into it.
            namespace = ModuleType.__getattribute__(module, "__dict__")
            # Most modules have none, which is found out without a step of Python's for each name.
            if by_identity.keys().isdisjoint(map(id, list(namespace.values()))):
                continue
            for name, value in list(namespace.items()):
                if id(value) in by_identity:
                    namespace[name] = by_identity[id(value)]
