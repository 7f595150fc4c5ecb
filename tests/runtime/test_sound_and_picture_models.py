"""Models of mlx-audio and mflux on every route, against MLX's own attention."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import model_runs
import pytest

from mlx_flash_runtime import enable_flash_attention, report
from mlx_flash_runtime.planning.layers import forget
from mlx_flash_runtime.problem.masks import Causal, structure_of
from mlx_flash_runtime.routes import ROUTES
from sound_and_picture_models import TRANSFORMERS, make

ROOT = Path(__file__).resolve().parents[2]
INSTALLED_BY = {
    "mlx-audio": "make test GROUPS='dev vision'",
    "mflux": "pip install --no-deps mflux piexif toml",
}
OWN_ROUTES = [
    route.name for route in ROUTES if route.name not in ("native", "forced", "unfused", "reference")
]
HEADS, HEAD_DIM, LENGTH = 2, 32, 36


def need(library: str) -> None:
    pytest.importorskip(library.replace("-", "_"), reason=f"no {library}: {INSTALLED_BY[library]}")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_same_on_every_route(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = TRANSFORMERS[name]
    need(transformer.library)
    model = make(name, HEADS, HEAD_DIM, LENGTH)
    plain = {"out": transformer.run(model, LENGTH)}
    mx.eval(plain)
    assert mx.isfinite(plain["out"]).all()
    with model_runs.rounded(model, 0):
        near = {"out": transformer.run(model, LENGTH)}
        mx.eval(near)
    ran = set()
    for route in OWN_ROUTES:
        forget()
        monkeypatch.setenv("MLX_FLASH_ROUTE", route)
        enable_flash_attention(block_size=8)
        own = {"out": transformer.run(model, LENGTH)}
        if route in report().as_dict()["routes"]:  # else there is nothing new to compute
            ran.add(route)
            model_runs.assert_within_rounding(own, plain, [near])
    # Whisper writes its attention out, and returns the scores: no call is made.
    assert bool(ran) == (name != "whisper")


def test_masks_of_pocket_tts_are_known_as_causal() -> None:
    need("mlx-audio")
    from mlx_audio.tts.models.pocket_tts import transformer

    enable_flash_attention()
    mask = transformer.create_additive_causal_mask(5, offset=3).astype(mx.bfloat16)
    assert structure_of(mask, 5, 8) == Causal()


def test_the_page_says_where_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    need("mlx-audio")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = importlib.import_module("libraries").PAGE.read_text(encoding="utf-8")
    table = importlib.import_module("sound_and_pictures")
    assert table.INTRODUCTION in page
    reasons = importlib.import_module("numbered_reasons").NumberedReasons()
    for name, transformer in TRANSFORMERS.items():
        if find_spec(transformer.library.replace("-", "_")) is not None:
            for row in table.rows(name, reasons):
                assert row in page.splitlines()
    assert set(reasons.lines()) <= set(page.splitlines())
