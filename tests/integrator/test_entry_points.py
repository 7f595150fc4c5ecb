"""Which of a repo's files start its programs: each is found in repos as people lay them out, and
nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from outcomes import changed, run

from flash_integrate.planning.plan import Status
from flash_integrate.planning.run import integrate

MODEL = """\
from mlx_lm import load


def answer(prompt):
    return load(prompt)
"""
PARSER = """\
import argparse


def build_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    return parser
"""
CLI = """\
import argparse

from .model import answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt")
    args = parser.parse_args()
    print(answer(args.prompt))
"""
APP = """\
from fastapi import FastAPI

from .model import answer

app = FastAPI()


@app.post("/answer")
def post(prompt: str):
    return answer(prompt)
"""
SERVE = """\
import argparse

import uvicorn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    args = parser.parse_args()
    uvicorn.run("{application}", port=args.port)


if __name__ == "__main__":
    main()
"""
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


def test_a_test_that_uses_a_parser_is_no_reason_to_give_it_flags(tmp_path: Path) -> None:
    test = (
        "from options import build_parser\nimport mlx_lm\n\nargs = build_parser().parse_args([])\n"
    )
    outcomes = run(tmp_path, {"options.py": PARSER, "tests/test_options.py": test})
    assert changed(outcomes) == {}


@pytest.mark.parametrize(
    "body", ["main()", "raise SystemExit(main())", "import sys\n    sys.exit(main())"]
)
def test_a_main_that_only_starts_a_script_with_flags_gets_no_call(
    tmp_path: Path, body: str
) -> None:
    main = f'from .cli import main\n\nif __name__ == "__main__":\n    {body}\n'
    outcomes = run(
        tmp_path,
        {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/cli.py": CLI, "bot/__main__.py": main},
    )
    assert changed(outcomes) == {"bot/cli.py": "argparse-script"}
    assert (
        outcomes["bot/__main__.py"].reason == "only starts bot/cli.py, which turns the runtime on"
    )
    (tmp_path / "bot" / "cli.py").write_bytes(outcomes["bot/cli.py"].after)
    again = {
        str(outcome.name): outcome
        for outcome in integrate([tmp_path], (), lambda files, stage: files)
    }
    assert again["bot/__main__.py"].status is Status.SKIPPED


def test_a_main_that_starts_a_library_gets_the_call(tmp_path: Path) -> None:
    main = 'from .model import answer\n\nif __name__ == "__main__":\n    answer("hi")\n'
    outcomes = run(
        tmp_path, {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/__main__.py": main}
    )
    assert changed(outcomes) == {"bot/__main__.py": "main-guard"}


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
    ("package", "application"),
    [
        ("", "bot.app:app"),
        ("from .app import app\n", "bot:app"),
        ("from . import app as _module\n\napp = _module.app\n", "bot:app"),
        ("from . import app as _module\n\nglobals().update(vars(_module))\n", "bot:app"),
    ],
)
def test_the_script_that_serves_an_application_gets_the_flags(
    tmp_path: Path, package: str, application: str
) -> None:
    """And the application the call, which does what they say: a server's workers, and `uvicorn
    bot.app:app`, import it alone."""
    files = {"bot/__init__.py": package, "bot/model.py": MODEL, "bot/app.py": APP}
    outcomes = run(tmp_path, {**files, "bot/serve.py": SERVE.format(application=application)})
    assert changed(outcomes) == {"bot/serve.py": "argparse-script", "bot/app.py": "application"}
    assert b"enable_flash_attention(inherit=True)" in outcomes["bot/app.py"].after
    assert changed(run(tmp_path / "other", files)) == {"bot/app.py": "application"}


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


@pytest.mark.parametrize("name", ["convert.py", "convert-to-mlx.py", "split_weights.py"])
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


HANDS_OVER = """\
def main():
    from .cli import main as start

    start()


if __name__ == "__main__":
    main()
"""
SCRIPTS = '[project]\nname = "bot"\n\n[project.scripts]\nbot = "{}"\n'


@pytest.mark.parametrize("installed", ["bot.__main__:main", "bot.cli:main"])
def test_a_function_that_hands_over_to_a_script_with_flags_gets_no_call(
    tmp_path: Path, installed: str
) -> None:
    """A second call, before the flags are read, would say that attention is on when they say that
    it is off."""
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/cli.py": CLI}
    outcomes = run(
        tmp_path,
        {**files, "bot/__main__.py": HANDS_OVER, "pyproject.toml": SCRIPTS.format(installed)},
    )
    assert changed(outcomes) == {"bot/cli.py": "argparse-script"}
    reason = "only starts bot/cli.py, which turns the runtime on"
    assert outcomes["bot/__main__.py"].reason == reason
    works = HANDS_OVER.replace("    start()", '    from .model import answer\n\n    answer("hi")')
    outcomes = run(tmp_path / "works", {**files, "bot/__main__.py": works})
    assert set(changed(outcomes)) == {"bot/cli.py", "bot/__main__.py"}


WRAPPED = {
    "a wrapper": "menu_main = runner(menu.main)",
    "partial": "menu_main = functools.partial(menu.main)",
    "another name": "menu_main = menu.main",
}


@pytest.mark.parametrize("how", WRAPPED)
def test_an_installed_name_for_a_wrapped_function(tmp_path: Path, how: str) -> None:
    entry = f"import functools\n\nfrom . import menu\nfrom .run import runner\n\n{WRAPPED[how]}\n"
    menu = (
        'from .model import answer\n\n\ndef main():\n    answer("hi")\n\n\n'
        'if __name__ == "__main__":\n    main()\n'
    )
    outcomes = run(
        tmp_path,
        {
            "bot/__init__.py": "",
            "bot/model.py": MODEL,
            "bot/entry.py": entry,
            "bot/run.py": "def runner(function):\n    return lambda: function()\n",
            "bot/menu.py": menu,
            "pyproject.toml": SCRIPTS.format("bot.entry:menu_main"),
        },
    )
    assert changed(outcomes) == {"bot/menu.py": "console-script"}
    assert outcomes["bot/menu.py"].after.count(b"enable_flash_attention()") == 1
    assert not any(outcome.uncovered for outcome in outcomes.values())


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


BOTH = """\
import argparse

import uvicorn
from fastapi import FastAPI

from model import answer

app = FastAPI()


@app.post("/answer")
def post(prompt: str):
    return answer(prompt)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    uvicorn.run({what}, workers={workers})


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("what", "workers", "calls"),
    [
        ('"serve:app"', "args.workers", 2),
        ('"serve:app"', "4, reload=False", 2),
        ('"serve:app"', "1", 1),
        ("app", "1", 1),
    ],
)
def test_an_application_that_serves_itself_has_a_call_for_its_workers(
    tmp_path: Path, what: str, workers: str, calls: int
) -> None:
    serve = BOTH.replace("{what}", what).replace("{workers}", workers)
    outcomes = run(tmp_path, {"model.py": MODEL, "serve.py": serve})
    assert changed(outcomes) == {"serve.py": "argparse-script"}
    after = outcomes["serve.py"].after
    assert after.count(b"        enable_flash_attention(not args.") == 1
    assert after.count(b"    enable_flash_attention(") == calls


def test_tasks_of_an_application_that_another_file_makes(tmp_path: Path) -> None:
    app = 'from celery import Celery\n\napp = Celery("bot", include=["bot.tasks"])\n'
    tasks = (
        "from .celery import app\nfrom .model import answer\n\n\n"
        "@app.task\ndef reply(prompt):\n    return answer(prompt)\n"
    )
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/celery.py": app}
    outcomes = run(tmp_path, {**files, "bot/tasks.py": tasks})
    assert changed(outcomes) == {"bot/tasks.py": "application"}


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
    ("cli", "reason"),
    [
        ("# flash-integrate: skip\n" + CLI, "a comment in it says so"),
        (f"{MODEL}\n\ndef main(): answer(1)\n", "the function's body shares its line with the def"),
        (CLI, None),
        ("from .model import MODEL\n\n\ndef main():\n    print(MODEL)\n", None),
    ],
)
def test_installed_commands_that_get_no_call_are_named(
    tmp_path: Path, cli: str, reason: str | None
) -> None:
    model = f'MODEL = "tiny"\n{MODEL}'
    files = {"bot/__init__.py": "", "bot/model.py": model, "bot/cli.py": cli}
    outcomes = run(tmp_path, {**files, "pyproject.toml": SCRIPTS.format("bot.cli:main")})
    found = [item for outcome in outcomes.values() for item in outcome.uncovered]
    assert [(item.entry, item.reason) for item in found] == (
        [("the command bot", reason)] if reason else []
    )


def test_a_server_that_passes_by_the_command_line_is_named(tmp_path: Path) -> None:
    serve = BOTH.replace("{what}, workers={workers}", "app")
    [uncovered] = run(tmp_path, {"model.py": MODEL, "serve.py": serve})["serve.py"].uncovered
    assert (uncovered.line, uncovered.entry) == (8, "a server that imports serve:app")


BY_HAND = """\
import mlx.core as mx


def answer(q, k, v):
    weights = mx.softmax(q @ k.T, axis=-1)
    return weights @ v, weights
"""


def test_who_has_attention_by_hand_alone_is_no_user_of_the_flags(tmp_path: Path) -> None:
    """It gets no call that would take the two names out of its arguments again."""
    starts = (
        "from model import {name}\n\nfrom options import build_parser\n\n"
        "args = build_parser().parse_args()\n{name}(**vars(args))\n"
    )
    files = {
        "options.py": PARSER,
        "model.py": f"{BY_HAND}\n\n{MODEL.replace('answer', 'generate')}",
        "run.py": starts.format(name="generate"),
        "hand.py": starts.format(name="answer"),
    }
    outcomes = run(tmp_path, files)
    assert outcomes["hand.py"].reason == "its only attention is written by hand"
    assert changed(outcomes) == {"run.py": "flat-script"}


def test_a_script_is_not_handed_over_to_what_gets_no_call(tmp_path: Path) -> None:
    cli = CLI.replace(".model", "model")
    main = "from cli import main\n\nif __name__ == '__main__':\n    main()\n"
    outcomes = run(tmp_path, {"model.py": BY_HAND, "cli.py": cli, "start.py": main})
    assert changed(outcomes) == {}
    assert outcomes["start.py"].reason == "its only attention is written by hand"
