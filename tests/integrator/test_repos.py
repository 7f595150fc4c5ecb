"""Scripts whose parser, entry point or attention is in another file of the repo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run
from outcomes import changed, run

MLX_LM = "mlx_lm.load -> mlx_lm.models.base -> mx.fast.scaled_dot_product_attention"
SHARED_PARSER = """\
import argparse


def build_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    return parser


def parse_arguments():
    return build_parser().parse_args()
"""
OWN_PARSER = f"""\
from mlx_lm import load

{SHARED_PARSER}

if __name__ == "__main__":
    args = parse_arguments()
    load(args.model)
"""
USES_PARSER = """\
from mlx_lm import load

from options import build_parser

if __name__ == "__main__":
    parser = build_parser()
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    load(args.model)
    print(sorted(vars(args)))
"""
USES_ARGUMENTS = """\
import options
from mlx_lm import load


def main():
    args = options.parse_arguments()
    load(args.model)
    print(args.model)


if __name__ == "__main__":
    main()
"""
SUBCLASS = """\
import argparse


class ModelParser(argparse.ArgumentParser):
    def add_model_arguments(self):
        self.add_argument("--model", default="tiny")

    def parse_args(self, *args, **kwargs):
        namespace = super().parse_args(*args, **kwargs)
        namespace.model = namespace.model.upper()
        return namespace
"""
USES_SUBCLASS = """\
from mlx_lm import load

from options import ModelParser


def main():
    parser = ModelParser(description="generate")
    parser.add_model_arguments()
    args = parser.parse_args()
    load(args.model)
    print(args.model)


if __name__ == "__main__":
    main()
"""
UTILITIES = """\
import json

from mlx_lm import load


def read(path):
    return json.load(path)


def model():
    return load("tiny")
"""
ADDS_OPTIONS = """\
def add_data_options(parser):
    parser.add_argument("--data")
"""
HANDS_OVER_PARSER = """\
import argparse

from common import add_data_options
from mlx_lm import load

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_data_options(parser)
    args = parser.parse_args()
    load(args.data)
    print(args.data)
"""
PASSES_ARGUMENTS = """\
import argparse

from mlx_lm import load


def main(args):
    load(args.model)
    print(args.model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tiny")
    main(parser.parse_args())
"""
ONE = """\
import argparse

import two


def parser():
    return argparse.ArgumentParser()
"""
TWO = """\
import argparse

import one
from mlx_lm import load


def main():
    args = one.parser().parse_args()
    load(args)
"""


ADDS_A_FOLDER = """\
import os
import sys
from pathlib import Path

{line}

from engine.model import answer

if __name__ == "__main__":
    print(answer("hello"))
"""
ENGINE = """\
from mlx_lm import load


def answer(text):
    load("tiny")
    return text
"""


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def statuses(flash_integrate: Run, repo: Path, report: Path) -> dict[str, tuple[str, str]]:
    flash_integrate(repo, "--dry-run", "--json", report)
    files = json.loads(report.read_text())["files"]
    return {
        entry["path"]: (entry["codemod"] or entry["status"], entry["reason"]) for entry in files
    }


def run_script(path: Path, *args: str) -> str:
    """Runs a script with a stand-in for mlx_lm, without the runtime."""
    stand_ins = path.parent / "stand_ins"
    make(
        stand_ins,
        {"mlx_lm.py": "def load(model): pass\n", "mlx_flash_runtime.py": "raise ImportError\n"},
    )
    environment = {**os.environ, "PYTHONPATH": str(stand_ins)}
    result = subprocess.run(
        [sys.executable, path, *args], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_parser_of_another_module_stays_as_it_is_and_each_script_gets_the_call_alone(
    flash_integrate: Run, tmp_path: Path
) -> None:
    files = {"options.py": SHARED_PARSER, "train.py": USES_PARSER, "chat.py": USES_ARGUMENTS}
    repo = make(tmp_path / "repo", files)
    before = {name: run_script(repo / name) for name in ("train.py", "chat.py")}
    result = flash_integrate(repo)
    assert result.returncode == 0
    assert b"train.py: note: no flags: its parser is built in options.py" in result.stderr
    assert (repo / "options.py").read_text() == SHARED_PARSER
    for name in before:
        assert "    enable_flash_attention()" in (repo / name).read_text()
        assert run_script(repo / name) == before[name]
    assert flash_integrate(repo, "--check").returncode == 0
    assert flash_integrate(repo, "--revert").returncode == 0
    assert {name: (repo / name).read_text() for name in files} == files


@pytest.mark.parametrize(
    "uses", ["build_parser().parse_args()", "parse_arguments()"], ids=["parser", "arguments"]
)
def test_a_parser_that_another_script_uses_too_gets_no_flags(
    flash_integrate: Run, tmp_path: Path, uses: str
) -> None:
    """They would be two arguments that the other script does not know."""
    show = f"import train\n\nprint(vars(train.{uses}))\n"
    files = {"train.py": OWN_PARSER, "show.py": show}
    repo = make(tmp_path / "repo", files)
    before = run_script(repo / "show.py")
    result = flash_integrate(repo)
    assert b"no flags: show.py parses its arguments with the same parser" in result.stderr
    assert "    enable_flash_attention()" in (repo / "train.py").read_text()
    assert run_script(repo / "show.py") == before


def test_a_test_may_use_the_parser_of_a_script(flash_integrate: Run, tmp_path: Path) -> None:
    test = "import train\n\nargs = train.build_parser().parse_args([])\n"
    repo = make(tmp_path / "repo", {"train.py": OWN_PARSER, "tests/test_train.py": test})
    assert flash_integrate(repo).returncode == 0
    assert run_script(repo / "train.py", "--disable-flash-attention") == ""


def test_a_subclass_of_the_parser_in_another_module(flash_integrate: Run, tmp_path: Path) -> None:
    repo = make(tmp_path / "repo", {"options.py": SUBCLASS, "run.py": USES_SUBCLASS})
    assert flash_integrate(repo).returncode == 0
    assert (repo / "options.py").read_text() == SUBCLASS
    assert run_script(repo / "run.py", "--disable-flash-attention", "--model", "small") == "SMALL\n"


def test_attention_is_asked_of_names_and_not_of_files(flash_integrate: Run, tmp_path: Path) -> None:
    repo = make(
        tmp_path / "repo",
        {
            "utils.py": UTILITIES,
            "prepare.py": "from utils import read\n\nprint(read('data.json'))\n",
            "train.py": "from utils import model\n\nprint(model())\n",
            "by_name.py": "import utils\n\nprint(getattr(utils, 'model')())\n",
        },
    )
    found = statuses(flash_integrate, repo, tmp_path / "report.json")
    assert found["prepare.py"] == ("skipped", "no attention is reached from it")
    assert found["train.py"] == ("flat-script", f"train.py:3 -> utils.py:11 -> {MLX_LM}")
    assert found["by_name.py"] == ("flat-script", f"by_name.py:3 -> utils.py:11 -> {MLX_LM}")
    assert found["utils.py"] == ("skipped", "a library module: nothing in it starts a program")


@pytest.mark.parametrize(
    "line",
    [
        'sys.path.insert(0, str(Path(__file__).parent / "lib"))',
        'sys.path.append(os.path.join(os.path.dirname(__file__), "..", "tools", "lib"))',
        'sys.path.insert(\n    0, os.path.abspath(os.path.dirname(__file__) + "/lib/")\n)',
    ],
)
def test_a_folder_that_a_script_adds_to_the_path(
    line: str, flash_integrate: Run, tmp_path: Path
) -> None:
    files = {
        "tools/chat.py": ADDS_A_FOLDER.format(line=line),
        "tools/other.py": ADDS_A_FOLDER.format(line=""),
        "tools/lib/engine/model.py": ENGINE,
    }
    repo = make(tmp_path / "repo", files)
    before = run_script(repo / "tools" / "chat.py")
    found = statuses(flash_integrate, repo, tmp_path / "report.json")
    codemod, chain = found["tools/chat.py"]
    assert codemod == "main-guard"
    assert chain.endswith(f" -> tools/lib/engine/model.py:5 -> {MLX_LM}")
    assert found["tools/other.py"] == ("skipped", "no MLX")
    assert flash_integrate(repo).returncode == 0
    assert run_script(repo / "tools" / "chat.py") == before == "hello\n"


def test_an_option_that_another_module_adds(flash_integrate: Run, tmp_path: Path) -> None:
    files = {"common.py": ADDS_OPTIONS, "run.py": HANDS_OVER_PARSER}
    repo = make(tmp_path / "repo", files)
    before = run_script(repo / "run.py", "--data", "here")
    assert flash_integrate(repo).returncode == 0
    assert (repo / "common.py").read_text() == ADDS_OPTIONS
    assert run_script(repo / "run.py", "--data", "here", "--disable-flash-attention") == before


def test_a_function_that_another_file_calls_gets_no_call_for_flags(
    flash_integrate: Run, tmp_path: Path
) -> None:
    files = {
        "run.py": PASSES_ARGUMENTS,
        "notebook.py": "import types\n\nimport run\n\nrun.main(types.SimpleNamespace(model='x'))\n",
    }
    repo = make(tmp_path / "repo", files)
    before = {name: run_script(repo / name) for name in files}
    assert flash_integrate(repo).returncode == 0
    assert "enable_flash_attention()" in (repo / "run.py").read_text()
    assert {name: run_script(repo / name) for name in files} == before


def test_modules_that_import_each_other(flash_integrate: Run, tmp_path: Path) -> None:
    repo = make(
        tmp_path / "repo", {"one.py": ONE, "two.py": TWO, "run.py": "import two\n\ntwo.main()\n"}
    )
    result = flash_integrate(repo)
    assert result.returncode == 0, result.stderr
    assert "enable_flash_attention()" in (repo / "run.py").read_text()


def test_modules_that_parse_and_import_each_other_s_functions(tmp_path: Path) -> None:
    """What a function of the other file returns is asked while that file asks the same."""
    parses = "parser = argparse.ArgumentParser()\n    args = parser.parse_args()\n"
    text = (
        "import argparse\n\nfrom mlx_lm import load\n\nfrom {other} import {other}_value\n\n\n"
        "def {own}_value():\n    return 1\n\n\n"
        'if __name__ == "__main__":\n    ' + parses + "    load({other}_value())\n"
    )
    files = {
        "one.py": text.format(own="one", other="two"),
        "two.py": text.format(own="two", other="one"),
    }
    outcomes = run(tmp_path, files)
    assert changed(outcomes) == {"one.py": "argparse-script", "two.py": "argparse-script"}
