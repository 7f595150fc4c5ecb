"""A Mac whose kernels on MLX's `steel` headers are run by emulated threads."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest
from backends import pretend
from metal_kernel import emulated
from metal_kernel.calls import DEVICE

from mlx_flash_runtime.kernels.metal import checked, gradient, steel, tile_skipping

# The headers of the MLX that is here, as they are.
read_here = steel._read


def forget() -> None:
    """Has kernels made, and checked, anew."""
    tile_skipping._kernel.cache_clear()
    gradient._of_queries.cache_clear()
    gradient._of_keys.cache_clear()
    steel.text.cache_clear()
    checked.run.cache_clear()


@pytest.fixture(name="on_metal")
def metal_of_steel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Such a Mac, which does not check its kernels before it uses them."""
    pretend(monkeypatch, DEVICE)
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    monkeypatch.setattr(steel, "_read", emulated.header)
    monkeypatch.setattr(checked, "why_not", lambda: "")
    forget()
    yield
    forget()
