"""Replacing functions under every name that has them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

# New functions by the old ones.
Replacements = dict[Any, Any]


def rebind(replacements: Replacements) -> None:
    """Replaces functions, the keys, by others under every name that a loaded module has for them,
    except this package's own."""
    if not replacements:
        return
    own = __name__.rsplit(".", 2)[0] + "."
    by_identity = {id(old): new for old, new in replacements.items()}
    for path, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not f"{path}.".startswith(own):
            # Not vars(): a module that loads lazily would load at the first look into it.
            namespace = ModuleType.__getattribute__(module, "__dict__")
            # Most modules have none, which is found out without a step of Python's for each name.
            if by_identity.keys().isdisjoint(map(id, list(namespace.values()))):
                continue
            for name, value in list(namespace.items()):
                if id(value) in by_identity:
                    namespace[name] = by_identity[id(value)]
