"""Whether MLX itself can be loaded. On Linux the package `mlx` alone has no backend and cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def failure() -> str | None:
    """Why `mlx.core` cannot be loaded, in a line, or None where it can."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        return f"MLX cannot be loaded: {error}"
    return None


def advice() -> str:
    """What to do where it cannot."""
    on_a_mac = sys.platform == "darwin"
    if find_spec("mlx") is None:
        return "pip install mlx" if on_a_mac else "pip install 'mlx-flash-runtime[cpu]'"
    if on_a_mac:
        return (
            "install mlx anew, in a Python for Apple silicon (arm64): "
            "pip install --force-reinstall mlx"
        )
    return (
        "MLX needs a backend of its own: "
        "pip install 'mlx-flash-runtime[cpu]' (or [cuda12], [cuda13])"
    )


def refusing(error: ImportError) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names cannot be loaded: asking for one raises `error`,
    with the advice."""
    message = f"{error}; {advice()}"

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(message) from error

    return __getattr__
