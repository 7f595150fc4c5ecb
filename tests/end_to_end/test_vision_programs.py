"""mlx-vlm's own commands on a local folder, through `python -m mlx_flash_runtime`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import answer, serving, text_of

pytest.importorskip("mlx_vlm", reason="mlx-vlm is not installed: make test GROUPS='dev vision'")
from tiny_vision_model import make_folder

QUESTION = "Tell me a story about the baker."
PATCHED = ("-m", "mlx_flash_runtime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("vision"))


@pytest.fixture
def offline(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def test_generate_says_the_same(folder: Path, offline: dict[str, str], tmp_path: Path) -> None:
    options = ("--model", folder, "--image", folder.parent / "image.png", "--prompt", QUESTION)
    generate = ("-m", "mlx_vlm", "generate", *options, "--max-tokens", 24, "--temperature", 0)

    def said(*patched: str) -> str:
        command = [sys.executable, *patched, *map(str, generate)]
        environment = {**offline, "MLX_FLASH_REPORT": str(tmp_path / "report.json")}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=True
        ).stdout

    plain = said()
    assert len(set(plain)) > 10  # not one token again and again
    assert said(*PATCHED) == plain
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    parts = {layer["name"].split(".")[0] for layer in report["layers"]}
    assert parts == {"vision_tower", "model"}


def ask(address: str, folder: Path, question: str, image: Path | None = None) -> str:
    """What the server says, about an image if there is one."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if image is not None:
        data = base64.b64encode(image.read_bytes()).decode()
        url = {"url": f"data:image/png;base64,{data}"}
        content.insert(0, {"type": "image_url", "image_url": url})
    return text_of(answer(address, folder, [{"role": "user", "content": content}]))


@pytest.mark.skipif(os.name != "posix", reason="interrupts the server")
def test_the_server_says_the_same_to_several_at_once(
    folder: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    # At once without the image: mlx-vlm cannot batch Gemma 3's prompts of several lengths with it.
    questions = [QUESTION, "Who is at the mill?", "What happens at noon at the market square?"]
    environment = {**offline, "MLX_FLASH_REPORT": str(tmp_path / "report.json")}
    said = []
    for patched in ((), PATCHED):
        server = (*patched, "-m", "mlx_vlm", "server", "--model", str(folder))
        with serving(environment, *server) as address, ThreadPoolExecutor() as together:
            asked = [together.submit(ask, address, folder, question) for question in questions]
            answers = [answer.result() for answer in asked]
            answers.append(ask(address, folder, QUESTION, folder.parent / "image.png"))
            said.append(answers)
    assert said[0] == said[1]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["calls"] > 0
    assert report["unrecognised"] == []
