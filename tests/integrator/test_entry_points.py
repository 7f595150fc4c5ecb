"""Which of a repo's files start its programs: each is found in repos as people lay them out, and
nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import CLI, MODEL
from outcomes import changed, run

PARSERS = """\
import argparse


class ModelParser(argparse.ArgumentParser):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_data = False

    def add_model_arguments(self):
        self.add_argument("--model")
        self._add_sizes()

    def add_data_arguments(self):
        self.supports_data = True
        self.add_argument("--data")

    def _add_sizes(self):
        self.add_argument("--files", type=int)

    def parse_args(self):
        namespace = super().parse_args()
        if getattr(self, "supports_data", False) and namespace.data is None:
            self.error("no data")
        return namespace
"""


TRAIN = """\
from mlx_lm import load

from parsers import ModelParser

parser = ModelParser()
{adds}
args = parser.parse_args()
load(args.model)
"""


GUARD = '\n\nif __name__ == "__main__":\n    {body}\n'


@pytest.mark.parametrize(
    ("body", "patched"),
    [
        ('print(load("model"))', False),
        ("test_answer()", False),
        ('answer("hi")', True),
        ('raise SystemExit(answer("hi"))', True),
    ],
)
def test_a_guard_that_tries_out_a_module_of_a_package_is_no_program(
    tmp_path: Path, body: str, patched: bool
) -> None:
    model = f"{MODEL}\n\ndef test_answer():\n    answer(1)\n" + GUARD.format(body=body)
    files = {"bot/__init__.py": "", "bot/model.py": model, "bot/cli.py": CLI}
    outcomes = run(tmp_path, files)
    assert outcomes["bot/model.py"].changes is patched
    assert (
        patched
        or outcomes["bot/model.py"].reason == "a library module: its guard only tries it out"
    )
    # A script beside others, or a module that nothing imports, is started by its guard.
    assert run(tmp_path / "alone", {"__init__.py": "", "model.py": model})["model.py"].changes
    scripts = {"model.py": model, "other.py": "from model import answer\n"}
    assert run(tmp_path / "scripts", scripts)["model.py"].changes


@pytest.mark.parametrize(
    ("adds", "shares"),
    [
        ("", False),
        ("parser.add_model_arguments()", True),
        ("if True:\n    parser.add_data_arguments()", True),
    ],
)
def test_the_options_of_a_parser_s_own_methods_are_those_that_are_called(
    tmp_path: Path, adds: str, shares: bool
) -> None:
    """`--f` and `--d` were short for `--files` and `--data`, and are said to be no more."""
    outcomes = run(tmp_path, {"parsers.py": PARSERS, "train.py": TRAIN.format(adds=adds)})
    assert changed(outcomes) == {"train.py": "argparse-script"}
    assert any("abbreviations" in note.reason for note in outcomes["train.py"].notes) == shares


@pytest.mark.parametrize("name", ["convert.py", "torch-to-mlx.py", "split_weights.py", "save.py"])
def test_a_converter_that_writes_texts_on_generation_runs_no_model(
    tmp_path: Path, name: str
) -> None:
    text = (
        CLI.replace(".model", "model").replace("print(answer(", "generate_readme(answer(")[:-1]
        + "\n\n\nmain()\n"
    )
    outcomes = run(tmp_path, {"model.py": MODEL, name: text})
    assert outcomes[name].reason == "converts weights without running the model"
    assert run(tmp_path / "runs", {"model.py": MODEL, name: text.replace("_readme", "")})[
        name
    ].changes


@pytest.mark.parametrize(
    ("registry", "imports"),
    [
        ("models/families/registry.py", "from . import llama"),
        ("models/registry.py", "from .families import llama"),
    ],
)
@pytest.mark.parametrize("module", ["llama.py", "llama/__init__.py"])
def test_a_module_or_package_that_a_registry_imports(
    tmp_path: Path, registry: str, imports: str, module: str
) -> None:
    makes = f"    def make(self):\n        {imports}\n        return llama.answer(1)\n"
    name = registry.removesuffix(".py").replace("/", ".")
    files = {
        "models/__init__.py": "",
        "models/families/__init__.py": "",
        f"models/families/{module}": MODEL,
        registry: f"class Registry:\n{makes}",
        "run.py": f"from {name} import Registry\n\nprint(Registry().make())\n",
    }
    assert changed(run(tmp_path, files)) == {"run.py": "flat-script"}


def test_a_class_that_is_called_as_its_module(tmp_path: Path) -> None:
    llama = (
        "from mlx_lm import load\n\n\nclass llama:\n    def make():\n        return load('tiny')\n"
    )
    files = {"llama.py": llama, "run.py": "from llama import llama\n\nprint(llama.make())\n"}
    assert changed(run(tmp_path, files)) == {"run.py": "flat-script"}


def test_a_package_of_the_project_that_is_named_as_a_library_is_none(tmp_path: Path) -> None:
    files = {
        "tools_mlx/__init__.py": "",
        "tools_mlx/paths.py": 'def home():\n    return "."\n',
        "list.py": "from tools_mlx.paths import home\n\nprint(home())\n",
        "torch_model.py": "import torch\n\nfrom tools_mlx.paths import home\n\n"
        "\nprint(torch.nn.functional.scaled_dot_product_attention(home()))\n",
    }
    assert changed(run(tmp_path, files)) == {}
    del files["tools_mlx/paths.py"], files["tools_mlx/__init__.py"]
    assert set(changed(run(tmp_path / "installed", files))) == {"list.py", "torch_model.py"}
