"""A program of several processes, started by `mlx.launch` over the loopback network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(sys.executable).with_name("mlx.launch")


def free_port() -> int:
    """The first of two ports that nobody has."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def launch() -> list[str]:
    """The command that starts two of a program."""
    port = str(free_port())
    return [str(LAUNCH), "-n", "2", "--backend", "ring", "--starting-port", port]


needs_launch = pytest.mark.skipif(not LAUNCH.exists(), reason="this MLX has no mlx.launch")


@needs_launch
def test_two_processes_train_and_decode_as_without_the_patch(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("launched.py")
    settings = {
        "MLX_FLASH_REPORT": "report.json",
        "MLX_FLASH_ROUTE": "blockwise",
        # MLX 0.32.4 itself waits for ever in a compiled function with an `all_sum` on the CPU.
        "MLX_DISABLE_COMPILE": "1",
    }
    done = subprocess.run(
        [*launch(), sys.executable, str(script)],
        env={**environment, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told = sorted(map(json.loads, lines), key=lambda one: one["rank"])
    assert [(one["rank"], one["size"]) for one in told] == [(0, 2), (1, 2)], done.stderr
    for one in told:
        (plain_losses, *plain_tokens), (losses, *tokens) = one["plain"], one["patched"]
        assert losses == pytest.approx(plain_losses, rel=1e-4)
        assert len(losses) == 3
        assert tokens == plain_tokens
        assert all(len(set(of_one_model)) > 3 for of_one_model in tokens)
    # Said by the first process alone; a report each.
    assert done.stderr.count("flash attention: on") == 1
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["report.1.json", "report.json"]
    for path in tmp_path.glob("*.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        assert report["routes"].keys() == {"blockwise"}
        assert report["calls"] > 0


COMPARED = """\
import sys
import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention
enable_flash_attention("--disable-flash-attention" not in sys.argv)
group = mx.distributed.init(strict=True)
x = mx.random.normal((1, 2, 64, 32), key=mx.random.key(group.rank()))
mine = mx.fast.scaled_dot_product_attention(x, x, x, scale=0.2)
total = mx.distributed.all_sum(mine).sum().item()
if group.rank() == 0:
    print(group.size(), "processes:", round(total, 3))
"""


@needs_launch
def test_comparing_a_program_of_several_processes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(COMPARED)
    command = [sys.executable, "-m", "mlx_flash_runtime.tools.cli", "compare", "--runs", "1", "--"]
    done = subprocess.run(
        [*command, *launch(), sys.executable, "script.py"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "the outputs agree" in done.stdout
    assert "(1 line compared" in done.stdout


CHILDREN = """\
import multiprocessing
import sys
import mlx.core as mx
{at_module_level}
def is_patched(_):
    return hasattr(mx.fast.scaled_dot_product_attention, "flash_attention_patched_by")
if __name__ == "__main__":
    {in_main}
    print(is_patched(None), end=" ")
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(*pool.map(is_patched, [0]), end=" ")
"""
ENABLE = "__import__('mlx_flash_runtime').enable_flash_attention()"


@pytest.mark.parametrize(
    ("at_module_level", "in_main", "runner", "patched"),
    [
        (ENABLE, "pass", (), "True True True True"),
        ("", ENABLE, (), "True True False False"),
        ("", "pass", ("-m", "mlx_flash_runtime"), "True True False False"),
    ],
)
def test_children_are_patched_as_the_readme_says(
    at_module_level: str,
    in_main: str,
    runner: tuple[str, ...],
    patched: str,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILDREN.format(at_module_level=at_module_level, in_main=in_main))
    done = subprocess.run(
        [sys.executable, *runner, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == patched, done.stderr


INHERITING = """\
import multiprocessing
import sys
import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention
from mlx_flash_runtime.patching import patch
def chosen(_):
    enable_flash_attention(inherit=True)
    planner = patch.active()
    return planner and planner.settings.block_size
if __name__ == "__main__":
    enable_flash_attention(sys.argv[1] == "on", sys.argv[2])
    print(chosen(None), end=" ")
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(*pool.map(chosen, [0]), end=" ")
"""


@pytest.mark.parametrize(("choice", "expected"), [("on", "64"), ("off", "None")])
def test_a_worker_does_what_its_parent_has_chosen(
    choice: str, expected: str, environment: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(INHERITING)
    done = subprocess.run(
        [sys.executable, str(script), choice, "64"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [expected] * 4, done.stderr


APP = """\
import os
from pathlib import Path
import mlx.core as mx
{at_module_level}
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    is_patched = hasattr(mx.fast.scaled_dot_product_attention, "flash_attention_patched_by")
    Path(f"{{os.getpid()}}.worker").write_text(str(is_patched))
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    await send({{"type": "lifespan.shutdown.complete"}})
"""


@pytest.mark.skipif(os.name != "posix", reason="interrupts the server")
@pytest.mark.parametrize(
    ("at_module_level", "runner", "patched"),
    [
        (ENABLE, (), "True"),
        ("", ("-m", "mlx_flash_runtime"), "False"),
        (ENABLE.replace("()", "(inherit=True)"), ("-m", "mlx_flash_runtime"), "True"),
    ],
)
def test_workers_of_uvicorn_are_patched_as_the_readme_says(
    at_module_level: str,
    runner: tuple[str, ...],
    patched: str,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: it comes with GROUPS='dev vision'")
    (tmp_path / "app.py").write_text(APP.format(at_module_level=at_module_level))
    server = ("-m", "uvicorn", "--workers", "2", "--port", "0", "app:app")
    process = subprocess.Popen(
        [sys.executable, *runner, *server],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    while len(said) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
        said = [text for file in tmp_path.glob("*.worker") if (text := file.read_text())]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert said == [patched, patched]


ANSWERS = """\
import mlx.core as mx


def answer(prompt, answers=None):
    queries = mx.zeros((1, 2, 8, 16))
    attention = mx.fast.scaled_dot_product_attention
    mx.eval(attention(queries, queries, queries, scale=1.0))
    said = f"{prompt} {hasattr(attention, 'flash_attention_patched_by')}"
    return said if answers is None else answers.put(said)
"""
STARTS = """\
import argparse
import multiprocessing

from concurrent.futures import ProcessPoolExecutor

from answers import answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", default="hello")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=answer, args=(args.prompt, answers))
    process.start()
    print(answers.get(), end=", ")
    process.join()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(*pool.map(answer, [args.prompt]), end=", ")
    print(answer(args.prompt))


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(("flags", "on"), [((), True), (("--disable-flash-attention",), False)])
def test_processes_that_a_patched_script_starts_are_patched_as_it_is(
    flags: tuple[str, ...], on: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "answers.py").write_text(ANSWERS)
    (tmp_path / "start.py").write_text(STARTS)
    command = [sys.executable, "-m", "flash_integrate", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py"), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == ", ".join([f"hello {on}"] * 3), done.stderr
