"""Servers of chat models as real processes, and what they say."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

Message = dict[str, Any]


@contextmanager
def serving(environment: dict[str, str], *command: str) -> Iterator[str]:
    """The address of `python COMMAND --host ... --port ...`, a server that runs for the length of
    a `with` block and is then interrupted as by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _is_up(address):
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def _is_up(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=10):
            return True
    except (URLError, OSError):
        return False


def answer(
    address: str, model: Path, messages: list[Message], max_tokens: int = 24, **more: str
) -> dict[str, Any]:
    """The greedy answer to a chat, as the server has it."""
    body = {
        "model": str(model),
        "max_tokens": max_tokens,
        "temperature": 0,
        "messages": messages,
        **more,
    }
    headers = {"Content-Type": "application/json"}
    request = Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=120) as response:
        answered: dict[str, Any] = json.load(response)
    return answered


def text_of(answered: dict[str, Any]) -> str:
    """What the model said."""
    text: str = answered["choices"][0]["message"]["content"]
    return text
