"""Runs each attention call of an MLX program on the fastest exact route of this machine.

`enable_flash_attention()` is all that a script needs; `report()` says afterwards what ran where.
"""

from typing import TYPE_CHECKING, Any

from .environment import loading
from .version import __version__

if TYPE_CHECKING:
    from .attention import flash_attention


def __getattr__(name: str) -> Any:
    """`flash_attention`, when it is first asked for: a program that has it may export functions
    that call it, whether or not it has MLX patched."""
    if name != "flash_attention":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .attention import flash_attention
    from .patching import tracing

    tracing.install_for_good()
    globals()[name] = flash_attention
    return flash_attention


try:
    from .control import disable_flash_attention, enable_flash_attention, flash_attention_enabled
    from .explanation import explain
    from .report import report
except ImportError as _error:
    if loading.failure() is None:
        raise
    # The command `mlx-flash doctor` still runs; a script's import fails as it would on MLX itself,
    # and says why.
    globals()["__getattr__"] = loading.refusing(_error)

__all__ = [
    "__version__",
    "disable_flash_attention",
    "enable_flash_attention",
    "explain",
    "flash_attention",
    "flash_attention_enabled",
    "report",
]
