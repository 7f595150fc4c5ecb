"""Processes and programs that a file starts: they get the call too, or are named as not covered."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import MODEL
from outcomes import changed, run

STARTS_ANEW = """\
import multiprocessing

import {module}
from mlx_lm import load


def main():
    load("warm")
    process = multiprocessing.Process(target={target})
    process.start()


if __name__ == "__main__":
    main()
"""


def test_a_process_gets_the_call_where_its_function_is(tmp_path: Path) -> None:
    starts = STARTS_ANEW.format(module="model", target="model.answer")
    outcomes = run(tmp_path, {"model.py": MODEL, "start.py": starts})
    assert changed(outcomes) == {"model.py": "worker-process", "start.py": "main-guard"}
    assert outcomes["start.py"].notes == ()


@pytest.mark.parametrize("target", ["elsewhere.work", "lambda: load(1)", "TARGETS[0]"])
def test_a_process_that_runs_what_is_not_found_is_not_covered(tmp_path: Path, target: str) -> None:
    starts = STARTS_ANEW.format(module="elsewhere", target=target)
    [uncovered] = run(tmp_path, {"start.py": starts})["start.py"].uncovered
    assert (uncovered.line, uncovered.entry) == (9, "the process started here")
    assert uncovered.reason.startswith("what it runs was not found in the project")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ('sys.executable, "-m", "mlx_lm", "lora", "--data", path', "mlx_lm lora"),
        ('"python", "-m", "mlx_vlm.generate"', "mlx_vlm.generate"),
        ('"python", "-m", "mlx_lm.convert"', None),
        ('"python", "-m", "http.server"', None),
        ('"python", "-m", "mlx_lm", name', None),
        ('"mlx_lm.lora", "--train"', "mlx_lm.lora"),
        ('"uv", "run", "mlx_lm.lora", "--train"', "mlx_lm.lora"),
        ('"mlx_lm.convert", "--hf-path", "m"', None),
        ('"mlx_lm.lora", "mlx_lm.generate"', None),
        ('"bash", "-c", f"cd {path} && python -m mlx_lm lora --train"', "mlx_lm lora"),
        ('"bash", "-c", COMMAND', "mlx_lm.generate"),
    ],
)
def test_a_command_of_a_library_that_a_script_runs_is_named(
    words: str, command: str | None, tmp_path: Path
) -> None:
    command_line = 'COMMAND = "cd models; mlx_lm.generate --prompt hello"\n'
    script = f"import subprocess\nimport sys\n\n{command_line}subprocess.run([{words}])\n"
    found = run(tmp_path, {"run.py": script})["run.py"].uncovered
    assert [item.entry for item in found] == ([f"the command {command}"] if command else [])
    assert all(f"python -m mlx_flash_runtime -m {command}" in item.reason for item in found)


@pytest.mark.parametrize(
    ("call", "commands"),
    [
        ('subprocess.run("python3 -u -m mlx_lm lora --train", shell=True)', ["mlx_lm lora"]),
        ('os.system(f"mlx_lm.generate --model {MODEL}")', ["mlx_lm.generate"]),
        ("os.system(LINES)", ["mlx_lm.lora", "mlx_lm.generate"]),
        ('os.system("mlx_lm.fuse --model m")', []),
        ('print("run mlx_lm.generate --model m, or python -m mlx_lm lora")', []),
    ],
)
def test_a_command_of_a_library_in_the_text_for_a_shell_is_named(
    call: str, commands: list[str], tmp_path: Path
) -> None:
    lines = 'LINES = """\nmlx_lm.lora --train\nmlx_lm.generate --model m\n"""\n'
    script = f'import os\nimport subprocess\n\nMODEL = "m"\n{lines}{call}\n'
    found = run(tmp_path, {"run.py": script})["run.py"].uncovered
    assert [item.entry for item in found] == [f"the command {command}" for command in commands]


TRAINS = """\
#!/bin/bash
# python -m mlx_lm.lora --train
echo "then: python -m mlx_lm.generate --model m"
python3 -m mlx_lm.lora \\
  --train
HF_HOME=models exec mlx_lm.generate --model m && mlx_lm.fuse --model m
python run.py
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_shell_script_that_runs_a_model_is_named(newline: str, tmp_path: Path) -> None:
    files = {"train.sh": TRAINS.replace("\n", newline), "run.sh": "python run.py\n"}
    files |= {"vendor/train.sh": TRAINS, "own/train.sh": "python -m mlx_own.train\n"}
    files["mlx_own/train.py"] = "import mlx.core as mx\n"
    outcomes = run(tmp_path, files)
    assert {name for name in outcomes if name.endswith(".sh")} == {"train.sh"}
    found = [(item.line, item.entry) for item in outcomes["train.sh"].uncovered]
    assert found == [(4, "the command mlx_lm.lora"), (6, "the command mlx_lm.generate")]


PROGRAM = """\
import subprocess
import sys

text = f'''
from mlx_lm import {names}

run("{{sys.argv[1]}}")
'''
subprocess.run([sys.executable, "-c", text])
"""


@pytest.mark.parametrize(("names", "is_named"), [("load, generate", True), ("convert", False)])
def test_a_program_that_is_given_as_a_text_is_named(
    names: str, is_named: bool, tmp_path: Path
) -> None:
    found = run(tmp_path, {"run.py": PROGRAM.format(names=names)})["run.py"].uncovered
    told = [(9, "the program given with -c")] if is_named else []
    assert [(item.line, item.entry) for item in found] == told


STARTS = """\
import argparse
import subprocess
import sys
from pathlib import Path

from mlx_lm import generate, load

HERE = Path(__file__).parent
WORK = HERE / "bot" / "work.py"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    args = parser.parse_args()
    generate(*load(args.model))
    subprocess.run({command})


if __name__ == "__main__":
    main()
"""
WORKS = 'from .model import answer\n\nif __name__ == "__main__":\n    answer(1)\n'


@pytest.mark.parametrize(
    ("command", "inherits"),
    [
        ('[sys.executable, "-m", "bot.work", "--fast"]', True),
        ('[sys.executable, "-u", "-m", "bot"]', False),
        ('[sys.executable, str(HERE / "bot" / "work.py"), "1"]', True),
        ('[sys.executable, "bot/work.py"]', True),
        ("[sys.executable, str(WORK)]", True),
        ('[sys.executable, "-m", "bot.model"]', False),
        ('["ls", "bot/work.py"]', False),
    ],
)
def test_a_program_that_another_one_starts_does_what_that_has_chosen(
    command: str, inherits: bool, tmp_path: Path
) -> None:
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/work.py": WORKS}
    files["bot/__main__.py"] = WORKS
    outcomes = run(tmp_path, {**files, "start.py": STARTS.format(command=command)})
    assert set(changed(outcomes)) == {"start.py", "bot/work.py", "bot/__main__.py"}
    assert (b"inherit=True" in outcomes["bot/work.py"].after) == inherits
    assert (b"inherit=True" in outcomes["bot/__main__.py"].after) == ('"bot"]' in command)


@pytest.mark.parametrize(
    ("command", "is_named"),
    [
        ("[sys.executable, sys.argv[1]]", True),
        ('[sys.executable, "-u", args.model]', True),
        ('[sys.executable, "-m", args.model, "bot"]', True),
        ("[sys.executable, *sys.argv[1:]]", True),
        ("[sys.executable, str(HERE / args.model)]", True),
        ('[sys.executable, "-X", "dev", sys.argv[1]]', True),
        ('[sys.executable, getattr(args, "model")]', True),
        ("[sys.executable, Path(__file__).parent / args.model]", True),
        ('[sys.executable, "-c", args.model]', False),
        ('[sys.executable, "-m", "pip"]', False),
        ("[sys.executable, str(WORK)]", False),
        ('[sys.executable, __file__, "--model", args.model]', False),
        ("[sys.executable, str(Path(__file__).resolve()), args.model]", False),
        ("[args.model, sys.executable]", False),
    ],
)
def test_a_program_that_is_chosen_when_it_is_started_is_not_covered(
    command: str, is_named: bool, tmp_path: Path
) -> None:
    start = STARTS.format(command=command)
    found = run(tmp_path, {"start.py": start})["start.py"].uncovered
    line = start.splitlines().index(f"    subprocess.run({command})") + 1
    assert [(item.line, item.entry) for item in found] == (
        [(line, "the process started here")] if is_named else []
    )
