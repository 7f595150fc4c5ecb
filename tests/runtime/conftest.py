"""Every test starts and ends on MLX's own attention, with empty counts, nothing measured, and none
of the package's environment variables but the one that says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from built_kernel import built_kernel  # noqa: F401  # a fixture
from mlx_flash_runtime import disable_flash_attention, stock
from mlx_flash_runtime.planning import calibration, layers
from mlx_flash_runtime.planning.planner import forget_plans
from mlx_flash_runtime.problem import Problem


@pytest.fixture(autouse=True)
def unpatched(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("MLX_FLASH_")]:
        monkeypatch.delenv(name)
    # Not what `mlx-flash tune` has measured for whoever runs the tests.
    monkeypatch.setenv(
        "MLX_FLASH_CALIBRATION", str(tmp_path_factory.getbasetemp() / "no-calibration.json")
    )
    calibration._read_once.cache_clear()
    layers.forget()
    forget_plans()  # each of which looks for the layers in its first calls
    yield
    disable_flash_attention()
    layers.forget()
    mx.random.seed(0)


@pytest.fixture
def calls_of_mlx(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """The problems of the calls that reach MLX."""
    seen: list[Problem] = []
    original = stock.attention

    def spy(
        q: mx.array, k: mx.array, v: mx.array, *, mask: Any, sinks: Any, **rest: Any
    ) -> mx.array:
        problem = Problem.of(q, k, v, mask, sinks)
        assert problem is not None
        seen.append(problem)
        return original(q, k, v, mask=mask, sinks=sinks, **rest)

    monkeypatch.setattr(stock, "attention", spy)
    return seen


@pytest.fixture
def calibration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's calibration is kept; there is none yet."""
    path = tmp_path / "cache" / "calibration.json"
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(path))
    calibration._read_once.cache_clear()
    return path
