"""mlx-lm's own server through `python -m mlx_flash_runtime`: several requests at once, prompt
caches that are reused and trimmed, a draft model; the answers are those of MLX's own attention."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import Message, answer, serving, text_of

QUESTIONS = [
    "Who is at the mill?",
    "Tell me a story about the baker.",
    "What happens at noon at the market square?",
    "Who is at the library every Monday?",
]
# So that the window of the model with one is full.
LONG = "Tell me a story about the captain, who paints seven lamps. " * 8


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def cached(answered: dict[str, Any]) -> int:
    """How many tokens of the prompt were in a cache of an earlier one."""
    number: int = answered["usage"]["prompt_tokens_details"]["cached_tokens"]
    return number


def at_once(address: str, model: Path) -> list[str]:
    """What is said to several at once, of lengths of their own."""
    with ThreadPoolExecutor() as together:
        asked = [
            together.submit(answer, address, model, [user(text)], max_tokens=8 + 4 * place)
            for place, text in enumerate([*QUESTIONS, LONG])
        ]
        return [text_of(one.result()) for one in asked]


def one_after_another(address: str, model: Path, **more: str) -> list[dict[str, Any]]:
    """The answers in a conversation, and after another end of its first question."""
    first = answer(address, model, [user(LONG)], **more)
    so_far = [user(LONG), {"role": "assistant", "content": text_of(first)}]
    second = answer(address, model, [*so_far, user(QUESTIONS[0])], **more)
    other = answer(address, model, [user(LONG + QUESTIONS[2])], **more)
    return [first, second, other]


@pytest.mark.skipif(os.name != "posix", reason="interrupts the server")
def test_the_server_says_the_same(
    models: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    own = {**environment, "PYTHONWARNINGS": "ignore", "MLX_FLASH_REPORT": str(report_file)}
    llama, gemma = models / "llama", models / "gemma"
    said, from_caches = [], []
    for patched in ((), ("-m", "mlx_flash_runtime")):
        server = (*patched, "-m", "mlx_lm", "server", "--log-level", "ERROR")
        with serving(own, *server) as address:
            together = [at_once(address, model) for model in (llama, gemma)]
            asked = {
                "trimmed": one_after_another(address, llama),
                "rotating": one_after_another(address, gemma),
                "drafted": one_after_another(address, llama, draft_model=str(llama)),
            }
        said.append([together, [list(map(text_of, answers)) for answers in asked.values()]])
        from_caches.append({name: list(map(cached, answers)) for name, answers in asked.items()})
    assert said[0] == said[1]
    assert len({text for texts in said[0][0] for text in texts}) == 10
    for found in from_caches:
        # The conversation goes on from a cache, which is trimmed to what two questions begin with.
        assert all(found[name][1] > 0 for name in found)
        assert found["trimmed"][2] > 0
        assert found["drafted"][2] > 0
    report = json.loads(report_file.read_text(encoding="utf-8"))
    assert report["unrecognised"] == []
    assert report["calls"] == sum(report["routes"].values())
    names = {layer["name"] for layer in report["layers"]}
    assert names == {f"model.layers.{place}.self_attn" for place in range(3)}
