"""Which release of MLX this is."""

from __future__ import annotations

import mlx.core as mx


def mlx_version() -> str:
    """MLX's own version, as `"0.32.4"`."""
    version: str = mx.__version__  # type: ignore[attr-defined]  # missing in MLX's stubs
    return version


def mlx_release(version: str) -> tuple[int, ...]:
    """`"0.32.4"` and `"0.32.4.dev20260101+abc"` are both `(0, 32, 4)`; what is not a version is
    `()`."""
    numbers: list[int] = []
    for part in version.split(".")[:3]:
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
