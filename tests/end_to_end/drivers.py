"""Run a script as a real process: to its end, in a pseudo-terminal, or as a web server answering
requests."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pexpect

HANG = 180  # seconds after which a child counts as hanging


@dataclass(frozen=True)
class Outcome:
    """What came out of a finished process. For a web server, `stdout` is a JSON object of what it
    answered."""

    stdout: str
    stderr: str
    returncode: int


def run_plain(command: list[str], env: dict[str, str], work: Path, said: list[str]) -> Outcome:
    """Run to the end."""
    done = subprocess.run(
        command, env=env, cwd=work, capture_output=True, text=True, timeout=HANG, check=False
    )
    return Outcome(done.stdout, done.stderr, done.returncode)


def run_terminal(command: list[str], env: dict[str, str], work: Path, said: list[str]) -> Outcome:
    """Type `said` line by line into a pseudo-terminal, each at the next prompt, then /quit.

    A terminal shows stdout and stderr as one (`input` itself may prompt on stderr): both are in
    the outcome's stdout.
    """
    child = pexpect.spawn(
        command[0], command[1:], env=env, cwd=str(work), timeout=HANG, encoding="utf-8", echo=False
    )
    transcript = ""
    for line in [*said, "/quit"]:
        child.expect_exact("you> ")
        transcript += child.before
        child.sendline(line)
    child.expect(pexpect.EOF)
    transcript = (transcript + child.before).replace("\r\n", "\n")
    child.close()
    return Outcome(transcript, "", child.exitstatus)


def run_web(command: list[str], env: dict[str, str], work: Path, said: list[str]) -> Outcome:
    """Start the server, look at the page, ask for whole and streamed replies to all of `said` at
    once, stop it."""
    errors = work / "stderr.txt"
    with open(errors, "w") as stderr:
        server = subprocess.Popen(
            command, env=env, cwd=work, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        assert server.stdout is not None
        address = next(
            (m[1] for line in server.stdout if (m := re.match(r"Serving on (\S+)", line))), None
        )
        assert address, f"the server did not start:\n{errors.read_text()}"
        page = fetch(f"{address}/").partition("\n")[0]
        health = json.loads(fetch(f"{address}/health"))["status"]
        bodies = [{"messages": [{"role": "user", "content": text}]} for text in said]
        with ThreadPoolExecutor() as pool:
            whole = pool.map(lambda body: json.loads(fetch(f"{address}/api/chat", body)), bodies)
            streamed = pool.map(
                lambda body: read_events(fetch(f"{address}/api/stream", body)), bodies
            )
            answers = {
                "page": page,
                "health": health,
                "whole": list(whole),
                "streamed": list(streamed),
            }
    finally:
        server.terminate()
        server.wait(timeout=HANG)
    return Outcome(json.dumps(answers), errors.read_text(), server.returncode)


def fetch(url: str, body: object = None) -> str:
    """GET, or POST `body` as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=HANG) as response:
        return response.read().decode()


def read_events(stream: str) -> dict[str, object]:
    """The text and the tokens of a stream of server-sent events, and whether it said that it was
    done."""
    events = [event.removeprefix("data: ") for event in stream.split("\n\n") if event]
    pieces = [json.loads(event) for event in events if event != "[DONE]"]
    return {
        "reply": "".join(piece["text"] for piece in pieces),
        "tokens": [piece["token"] for piece in pieces],
        "done": events[-1] == "[DONE]",
    }
