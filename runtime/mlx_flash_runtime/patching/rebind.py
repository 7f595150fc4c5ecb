"""Replacing a function under every name that has it."""

from __future__ import annotations

import sys
from types import ModuleType


def rebind(old: object, new: object) -> None:
    """Replaces `old` by `new` under every name that a loaded module has for it, except this
    package's own."""
    own = __name__.rsplit(".", 2)[0] + "."
    for path, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not f"{path}.".startswith(own):
            # Not vars(): a module that loads lazily would load at the first look into it.
            namespace = ModuleType.__getattribute__(module, "__dict__")
            for name, value in list(namespace.items()):
                if value is old:
                    namespace[name] = new
