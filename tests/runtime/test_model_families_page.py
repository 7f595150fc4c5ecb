"""docs/families.md says what the planner decides."""

from __future__ import annotations

import importlib
from pathlib import Path

import mlx_lm
import pytest

from model_families import MLX_LM

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(mlx_lm.__version__ != MLX_LM, reason=f"the page is about mlx-lm {MLX_LM}")
@pytest.mark.parametrize("device", ["Metal", "CUDA", "CPU"])
def test_the_page_is_what_the_benchmark_prints(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    families = importlib.import_module("families")
    page = families.PAGE.read_text(encoding="utf-8")
    assert page.startswith(families.INTRODUCTION)
    assert families.section(device) in page, (
        "run: PYTHONPATH=fixtures python benchmarks/families.py --write"
    )


def test_the_rows_with_an_image_are_what_the_benchmark_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mlx_vlm", reason="mlx-vlm is not installed: make test GROUPS='dev vision'")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    families = importlib.import_module("families")
    assert families.with_images() in families.PAGE.read_text(encoding="utf-8"), (
        "run: PYTHONPATH=fixtures python benchmarks/families.py --write"
    )
