"""docs/metal.md says what is counted."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_what_the_benchmark_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    metal_kernels = importlib.import_module("metal_kernels")
    text = metal_kernels.PAGE.read_text(encoding="utf-8")
    assert metal_kernels.page(text) == text, "run: python benchmarks/metal_kernels.py"
