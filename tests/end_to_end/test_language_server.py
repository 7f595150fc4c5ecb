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


def one_after_another(address: str, model: Path, **more: str) -> tuple[list[str], list[int]]:
    """What is said in a conversation, and after another end of its first question; and how many
    tokens of each prompt were cached."""
    first = answer(address, model, [user(LONG)], **more)
    so_far = [user(LONG), {"role": "assistant", "content": text_of(first)}]
    second = answer(address, model, [*so_far, user(QUESTIONS[0])], **more)
    other = answer(address, model, [user(LONG + QUESTIONS[2])], **more)
    answers = [first, second, other]
    return [text_of(one) for one in answers], [cached(one) for one in answers]


@pytest.mark.skipif(os.name != "posix", reason="interrupts the server")
def test_the_server_says_the_same(
    models: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    own = {**environment, "PYTHONWARNINGS": "ignore", "MLX_FLASH_REPORT": str(report_file)}
    llama, gemma = models / "llama", models / "gemma"
    said = []
    for patched in ((), ("-m", "mlx_flash_runtime")):
        server = (*patched, "-m", "mlx_lm", "server", "--log-level", "ERROR")
        with serving(own, *server) as address:
            said.append(
                [
                    at_once(address, llama),
                    one_after_another(address, llama),
                    at_once(address, gemma),
                    one_after_another(address, gemma),
                    one_after_another(address, llama, draft_model=str(llama)),
                ]
            )
    assert said[0] == said[1]
    assert len({text for texts in (said[0][0], said[0][2]) for text in texts}) == 10
    (_, llama_cached), (_, gemma_cached), (_, draft_cached) = said[0][1], said[0][3], said[0][4]
    for numbers in (llama_cached, draft_cached):
        assert numbers[1] > 0  # the conversation goes on from a cache
        assert numbers[2] > 0  # which is trimmed to what two questions begin with
    assert gemma_cached[1] > 0
    report = json.loads(report_file.read_text(encoding="utf-8"))
    assert report["unrecognised"] == []
    assert report["calls"] == sum(report["routes"].values())
    # Of two models with three layers each, the most there are at a time: those that are loaded
    # later are counted where others, which are gone, were.
    assert len(report["layers"]) == 6
