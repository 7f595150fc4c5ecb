"""`mlx-flash compare` on the ten scripts, patched by `flash-integrate`, and on scripts that it
cannot compare."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import run_terminal
from scripts import BY_NAME, REPO, WITH_SPEED, Script

# One that answers what it is told, two tables, and one that says nothing of its speed. What the
# others print is compared in test_patched_scripts.py.
COMPARED = [BY_NAME[name] for name in ("chat_cli", "qlora_finetune", "benchmark", "full_finetune")]

Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def patched(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repo with the codemods applied."""
    folder = tmp_path_factory.mktemp("compared") / "repo"
    repo = Path(shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns("__pycache__")))
    subprocess.run(
        [sys.executable, "-m", "flash_integrate", str(repo)], check=True, env=environment
    )
    return repo


@pytest.fixture
def compare(environment: dict[str, str], tmp_path: Path) -> Compare:
    """Runs the command; its options, then the script's command line."""

    def compare(
        *command: str,
        program: str | None = sys.executable,
        options: tuple[str, ...] = ("--runs", "1"),
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        own = () if program is None else (program,)
        words = [
            sys.executable,
            "-m",
            "mlx_flash_runtime.tools.cli",
            "compare",
            *options,
            "--",
            *own,
            *command,
        ]
        return subprocess.run(
            words,
            env={**environment, **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return compare


def command_of(
    script: Script, repo: Path, models: Path, work: Path
) -> tuple[list[str], dict[str, str]]:
    names = {name: models / name for name in ("llama", "gemma", "data")}
    names |= {"prompts": models / "prompts.txt", "repo": repo, "work": work}
    arguments = [part.format(**names) for part in shlex.split(script.arguments)]
    own = {name: value.format(**names) for name, value in script.environment.items()}
    return [str(repo / script.path), *arguments], own


@pytest.mark.parametrize("script", COMPARED, ids=lambda script: script.name)
def test_a_patched_script(
    script: Script, patched: Path, models: Path, compare: Compare, tmp_path: Path
) -> None:
    command, own = command_of(script, patched, models, tmp_path)
    options = ["--runs", "1", "--json", str(tmp_path / "compare.json")]
    if script.drive is run_terminal:
        (tmp_path / "said.txt").write_text("\n".join([*script.said, "/quit"]) + "\n")
        options += ["--stdin", str(tmp_path / "said.txt")]
    done = compare(*command, options=tuple(options), env=own)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["findings"][1].startswith("the outputs agree"), result["findings"][1]
    assert {row["mode"]: bool(row["routes"]) for row in result["rows"]} == {
        "ours": True,
        "stock": False,
    }
    assert all(
        row["seconds"] > 0 and row["peak_mib"] > row["mlx_peak_mib"] > 0 for row in result["rows"]
    )
    quantities = {row["quantity"].partition(":")[0]: row for row in result["summary"]}
    assert ("tokens/s" in quantities) == (script.name in WITH_SPEED)
    assert quantities["seconds"]["gain"] == round(
        quantities["seconds"]["stock"] / quantities["seconds"]["ours"], 2
    )
    assert result["findings"][2].startswith("its attention calls, by phase and route:\n  ")
    assert result["findings"][0] in done.stdout


CLIENT = """
import json, sys, time, urllib.request

url = f"http://127.0.0.1:{sys.argv[1]}/api/chat"
messages = [{"role": "user", "content": "What happens?"}]
body = json.dumps({"messages": messages, "max_tokens": 8}).encode()
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
for _ in range(600):
    try:
        print(json.load(urllib.request.urlopen(request))["reply"])
        break
    except OSError:
        time.sleep(0.1)
"""


def test_a_patched_server(patched: Path, models: Path, compare: Compare, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "client.py").write_text(CLIENT)
    command, _ = command_of(BY_NAME["web_app"], patched, models, tmp_path)
    command[command.index("--port") + 1] = port
    client = shlex.join([sys.executable, "client.py", port])
    done = compare(*command, options=("--runs", "1", "--client", client, "--json", "compare.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["findings"][1] == "the outputs agree to the letter (1 line compared)"
    assert {row["mode"]: bool(row["routes"]) for row in result["rows"]} == {
        "ours": True,
        "stock": False,
    }


@pytest.mark.parametrize(
    "server",
    [
        "import time\ntime.sleep(60)\n",
        # Its status after Ctrl-C is its own affair: also an interpreter that has only begun to
        # start ends with 1.
        "import sys, time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(1)\n",
    ],
    ids=["interrupted", "status-1"],
)
def test_a_server_whose_client_fails(server: str, compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(server)
    client = shlex.join([sys.executable, "-c", "raise SystemExit('no answer')"])
    done = compare("server.py", options=("--client", client))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: the client of server.py ended with status 1, with flash attention:",
        "  no answer",
    ]


# Has a lock for as long as it runs, which the client waits for.
FAILS = """
import fcntl, os, sys
fcntl.flock(os.open("begun", os.O_CREAT), fcntl.LOCK_EX)
os.rename("begun", "here")
sys.exit("no port")
"""
FAILS_LATER = """
import fcntl, os, time
while not os.path.exists("here"):
    time.sleep(0.05)
fcntl.flock(os.open("here", os.O_RDONLY), fcntl.LOCK_EX)
raise SystemExit("no answer")
"""


def test_a_server_that_fails_before_its_client(compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(FAILS)
    waiting = shlex.join([sys.executable, "-c", FAILS_LATER])
    done = compare("broken.py", options=("--client", waiting))
    assert done.stderr.splitlines()[-2:] == [
        "error: broken.py ended with status 1, with flash attention:",
        "  no port",
    ]


def test_a_client_that_cannot_be_run(compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("import time\ntime.sleep(60)\n")
    done = compare("server.py", options=("--client", "no-such-program"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no-such-program cannot be run: no such program\n"
    unbalanced = compare("server.py", options=("--client", "'"))
    assert (unbalanced.returncode, unbalanced.stdout) == (2, "")
    assert unbalanced.stderr.splitlines()[-1].endswith(
        '"\'" is not a command: No closing quotation'
    )


def test_a_server_is_ended_after_the_timeout(
    patched: Path, models: Path, compare: Compare, tmp_path: Path
) -> None:
    command, _ = command_of(BY_NAME["web_app"], patched, models, tmp_path)
    done = compare(*command, options=("--timeout", "2"))
    assert done.returncode == 1
    assert "web_app.py did not end within 2 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_is_not_patched(models: Path, compare: Compare, tmp_path: Path) -> None:
    command, _ = command_of(BY_NAME["inference_score"], REPO, models, tmp_path)
    done = compare(*command)
    assert done.returncode == 2
    assert "flash-integrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_that_crashes_says_how(compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(
        "import sys\nprint('so far so good')\nsys.exit('no such\\nmodel at all')\n"
    )
    done = compare("crash.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        "error: crash.py ended with status 1, with flash attention:",
        "  no such",
        "  model at all",
    ]


def test_a_patch_call_without_flags_is_switched_by_the_environment(
    compare: Compare, tmp_path: Path
) -> None:
    (tmp_path / "call.py").write_text(
        "import mlx.core as mx\n"
        "from mlx_flash_runtime import enable_flash_attention\n"
        "enable_flash_attention()\n"
        "x = mx.ones((1, 2, 8, 16))\n"
        "print(mx.fast.scaled_dot_product_attention(x, x, x, scale=0.25).sum().item())\n"
    )
    done = compare("call.py", options=("--runs", "5", "--json", "compare.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "compare.json").read_text())
    assert [bool(row["routes"]) for row in result["rows"] if row["mode"] == "stock"] == [False] * 5
    assert [bool(row["routes"]) for row in result["rows"] if row["mode"] == "ours"] == [True] * 5
    assert "with 95 % confidence between" in done.stdout


def test_an_unknown_option_is_none_of_the_scripts(compare: Compare) -> None:
    done = compare("x.py", options=("--run", "5"))
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("nowhere.py",), "nowhere.py: no such file"),
        (("x.ipynb",), "x.ipynb is a notebook"),
        ((), ""),
    ],
)
def test_nothing_to_run(command: tuple[str, ...], message: str, compare: Compare) -> None:
    done = compare(*command)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("nosuchcmd",), "nosuchcmd cannot be run: no such program"),
        (
            ("script.py",),
            "script.py cannot be run: no such program; a script runs as python script.py",
        ),
        (
            ("true",),
            "true did not enable flash attention: "
            "it is not patched, or the runtime is not installed for its Python",
        ),
        (
            ("python", "-m", "this"),
            "python did not enable flash attention: it is not patched, or the runtime is not "
            "installed for its Python. Without a patch: python -m mlx_flash_runtime -m this ...",
        ),
    ],
)
def test_a_command_that_runs_no_script(
    command: tuple[str, ...], message: str, compare: Compare, tmp_path: Path
) -> None:
    (tmp_path / "script.py").touch()
    done = compare(*command, program=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"error: {message}"


def test_an_interruption_ends_the_script_and_is_one_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "endless.py").write_text(
        "import os, time\nopen('started', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    words = [
        sys.executable,
        "-m",
        "mlx_flash_runtime.tools.cli",
        "compare",
        "--",
        sys.executable,
        "endless.py",
    ]
    running = subprocess.Popen(
        words,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = tmp_path / "started"
    while not (started.exists() and started.read_text()):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)  # the script itself takes ten minutes
    assert (running.returncode, out) == (130, "")
    assert err == "running endless.py 12 times ...\nstopped\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
