"""Runs each attention call of an MLX program on the fastest exact route of this machine.

`enable_flash_attention()` is all that a script needs; `report()` says afterwards what ran where.
"""

from .environment import loading
from .version import __version__

try:
    from .attention import explain, flash_attention
    from .control import disable_flash_attention, enable_flash_attention, flash_attention_enabled
    from .report import report
    from .settings import flash_block_size
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
    "flash_block_size",
    "report",
]
