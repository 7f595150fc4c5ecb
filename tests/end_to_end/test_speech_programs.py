"""mlx-audio's own command on a local folder, through `python -m mlx_flash_runtime`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlx_audio", reason="mlx-audio is not installed: make test GROUPS='dev vision'")
from tiny_speech_model import make_folder


def test_a_transcription_is_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    options = ("--model", folder, "--audio", tmp_path / "sound.wav", "--output-path")

    def heard(name: str, *patched: str) -> str:
        command = [*patched, "-m", "mlx_audio.stt.generate", *map(str, options), name]
        subprocess.run(
            [sys.executable, *command],
            env={**environment, "MLX_FLASH_REPORT": "report.json"},
            cwd=tmp_path,
            capture_output=True,
            timeout=300,
            check=True,
        )
        return (tmp_path / f"{name}.txt").read_text(encoding="utf-8")

    plain = heard("plain")
    assert len(set(plain.split())) > 3
    assert heard("patched", "-m", "mlx_flash_runtime") == plain
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    names = [layer["name"] for layer in report["layers"]]
    assert names == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]
