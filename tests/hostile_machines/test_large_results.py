"""Results of any size are shown: pictures have no more than one can see, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_flash_runtime.tools.bench import models, plots, tables
from mlx_flash_runtime.tools.bench.page import page
from mlx_flash_runtime.tools.bench.tables import Document, NotAResult, Row

LENGTHS = 5_000
MACHINE = {
    "system": "Linux",
    "release": "6.1",
    "machine": "x86_64",
    "cores": 2,
    "load": 1.0,
    "backend": "cpu",
    "device": "a CPU",
    "mlx": "0.32.4",
    "runtime": "0.1.0",
    "python": "3.11",
}


def numbers(name: str, unit: str, value: float) -> Row:
    return {
        f"{name}_{unit}": value,
        f"{name}_low_{unit}": value * 0.9,
        f"{name}_high_{unit}": value * 1.1,
        f"{name}_peak_mib": value,
        f"{name}_status": "ok",
    }


def grid_row(length: int) -> Row:
    row: Row = {
        "batch": 1,
        "length": length,
        "head_dim": 64,
        "heads": 8,
        "kv_heads": 8,
        "dtype": "float32",
    }
    row |= {
        "mask": "none",
        "phase": "prefill",
        "rounds": 3,
        "route": "blockwise",
        "ours_error": 1e-6,
    }
    row |= {"over_plain": 1.0, "over_stock": 1.0, "ours_tokens_per_s": 1.0, "ours_stability": 0.9}
    for name in ("plain", "stock", "ours"):
        row |= numbers(name, "ms", length / 100)
    return row


def workflow_row(length: int) -> Row:
    row: Row = {
        "workflow": "train",
        "model": "m",
        "dtype": "float32",
        "length": length,
        "batch": 1,
        "rounds": 3,
    }
    row |= {
        "new_tokens": None,
        "checkpoint": None,
        "route": "blockwise",
        "over_stock": 1.0,
        "bound": 2.0,
    }
    row |= {"attention_share": 0.5, "difference": 1e-3, "rounding": 1e-3}
    for name in ("stock", "ours", "without"):
        row |= {**numbers(name, "tokens_per_s", 1e6 / length), f"{name}_first_token_ms": None}
    return row


def result(kind: str, rows: list[Row]) -> Document:
    return Document(kind, "title", "command", MACHINE, (), rows, [])


@pytest.mark.parametrize(("kind", "row"), [("grid", grid_row), ("workflow", workflow_row)])
def test_a_picture_of_many_lengths_shows_some_of_them(kind: str, row: Any) -> None:
    rows = [row(64 + index) for index in range(LENGTHS)]
    over_length = [
        axes
        for axes in plots.figure(result(kind, rows)).axes
        if axes.get_xlabel().startswith("length")
    ]
    assert over_length
    for axes in over_length:
        assert axes.get_xlabel() == "length, 64 of 5,000 shown"
        ticks = axes.get_xticks()
        assert (len(ticks), min(ticks), max(ticks)) == (64, 64, 64 + LENGTHS - 1)
        assert max(len(line.get_xdata()) for line in axes.get_lines()) == 64


def test_bars_that_are_not_all_say_so() -> None:
    bars = plots.figure(result("grid", [grid_row(64 + index) for index in range(40)])).axes[0]
    assert bars.get_title(loc="left").endswith("; the first 32 of 40")
    bars = plots.figure(result("grid", [grid_row(64 + index) for index in range(4)])).axes[0]
    assert bars.get_title(loc="left").endswith("over plain")


def test_the_page_has_every_row() -> None:
    rows = [workflow_row(64 + index) for index in range(LENGTHS)]
    text = page({Path("results.json"): result("workflow", rows)})
    assert text.count("<tr>") == LENGTHS + 1


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"rows": ' + b"1" * 100_000 + b"}", b"\xff\xfe", b"\0" * 100, b'{"rows": '],
    ids=["deep", "a large number", "bytes", "zeros", "cut off"],
)
def test_a_file_that_is_no_json_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(NotAResult, match=str(path)):
        tables.load(path)
    with pytest.raises(models.NotAModel, match=str(path)):
        models.config_in(tmp_path)
