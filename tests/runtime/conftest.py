"""Every test starts and ends on MLX's own attention, with empty counts, nothing measured, and none
of the package's environment variables but the one that says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from built_kernel import built_kernel  # noqa: F401  # a fixture
from mlx_flash_runtime import disable_flash_attention, stock
from mlx_flash_runtime.planning import calibration, layers
from mlx_flash_runtime.planning.planner import forget_plans
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.stock.release import mlx_release

# The wheel for the newest system has the kernels for all chips.
METAL_PLATFORM = "macosx_26_0_arm64"


@pytest.fixture(scope="session")
def metal_wheel(request: pytest.FixtureRequest) -> Path:
    """The newest wheel of MLX for Macs. Tests that ask for it are of the group `mlx-metal`: so
    there is one download."""
    folder = request.config.cache.mkdir("mlx-metal")
    command = [sys.executable, "-m", "pip", "download", "mlx-metal", "--no-deps", "--quiet"]
    command += ["--only-binary", ":all:", "--platform", METAL_PLATFORM, "--dest", str(folder)]
    command += ["--retries", "0", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no wheel could be had: {done.stderr.strip().splitlines()[-1]}")

    def release(path: Path) -> tuple[int, ...]:
        return mlx_release(path.name.split("-")[1])

    *old, wheel = sorted(folder.glob("*.whl"), key=release)
    for path in old:
        path.unlink()
    return wheel


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
def watch_mlx(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Shows a function the arguments of each call that reaches MLX; not those by which the planner
    asks what MLX would do on a GPU, which alone name a stream."""

    def watch(see: Callable[..., None]) -> None:
        original = stock.attention

        def spy(*arrays: mx.array, **rest: Any) -> mx.array:
            if "stream" not in rest:
                see(*arrays, **rest)
            return original(*arrays, **rest)

        monkeypatch.setattr(stock, "attention", spy)

    return watch


@pytest.fixture
def calls_of_mlx(watch_mlx: Callable[[Callable[..., None]], None]) -> list[Problem]:
    """The problems of the calls that reach MLX."""
    seen: list[Problem] = []

    def see(q: mx.array, k: mx.array, v: mx.array, *, mask: Any, sinks: Any, **_: Any) -> None:
        problem = Problem.of(q, k, v, mask, sinks)
        assert problem is not None
        seen.append(problem)

    watch_mlx(see)
    return seen


@pytest.fixture
def calibration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's calibration is kept; there is none yet."""
    path = tmp_path / "cache" / "calibration.json"
    monkeypatch.setenv("MLX_FLASH_CALIBRATION", str(path))
    calibration._read_once.cache_clear()
    return path
