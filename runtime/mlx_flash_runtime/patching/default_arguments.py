"""MLX's default arguments, where a program spells them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from .. import stock


def are_defaults(options: Mapping[str, Any]) -> bool:
    """Whether a call with these further arguments of MLX's function is the call without them."""
    for name, value in options.items():
        if name == "stream":
            if not _is_default_stream(value):
                return False
        elif name != "force_fused" or value is not False or not _takes_force_fused():
            return False
    return True


def _is_default_stream(stream: Any) -> bool:
    """Whether a stream, or a device for its default stream, is the one that this thread uses
    anyway."""
    device = mx.default_device()
    if isinstance(stream, mx.Stream):
        return bool(stream == mx.default_stream(device))
    if isinstance(stream, mx.Device | mx.DeviceType):
        return bool(device == stream)
    return stream is None


def _takes_force_fused() -> bool:
    """Whether this release of MLX has that argument; one without it refuses the call."""
    return "force_fused" in (stock.attention.__doc__ or "")
