"""Every test starts and ends on MLX's own attention, with empty counts and none of the package's environment
variables."""

from __future__ import annotations

import os
from collections.abc import Iterator

import mlx.core as mx
import pytest

from mlx_flash_runtime import disable_flash_attention, layers


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("MLX_FLASH_")]:
        monkeypatch.delenv(name)
    layers.forget()
    yield
    disable_flash_attention()
    layers.forget()
    mx.random.seed(0)
