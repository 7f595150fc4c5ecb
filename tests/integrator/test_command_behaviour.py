"""Commands of click and typer among decorators and imports that two more options could break: each
runs as it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from outcomes import run

from forked import Runner

STAND_INS = {
    "mlx_lm.py": "def load(model=None):\n    return model\n",
    "slack_bolt.py": "class App(dict):\n    def command(self, name):\n"
    "        return lambda function: self.setdefault(name, function)\n",
    "dash.py": "class Dash:\n    def callback(self, *outputs):\n"
    "        return lambda function: function\n",
    "mlx_flash_runtime.py": """\
import sys


def enable_flash_attention(enabled=True, block_size=None, *, inherit=False):
    print("enabled", enabled, block_size, file=sys.stderr)
""",
}


@dataclass(frozen=True)
class Case:
    """A script with its command line; without a `note` the codemod gives it the flags, else the
    call alone."""

    text: str
    argv: str
    codemod: str
    note: str | None = None


TIMED = """\
import functools

import click
from mlx_lm import load


def timed(function):
    @functools.wraps(function)
    def inner({parameters}):
        return function({arguments})

    return inner


@click.command()
@click.option("--model")
@click.argument("prompt")
{decorator}
def main(model, prompt):
    print(load(model), prompt)


if __name__ == "__main__":
    main()
"""
OPTIONS = """\
import click
from mlx_lm import load

config = click.option("--config")


def shared(function):
    function = click.option("--model")(function)
    return click.option("--prompt", default="hi")(function)


@click.command()
@config
@shared
@click.pass_context
@click.version_option("1.0")
def main(context, model, prompt, config):
    print(load(model), prompt, config, context.info_name is not None)


if __name__ == "__main__":
    main()
"""
TYPER = """\
{imports}
import typer
from mlx_lm import load

app = typer.Typer()
{more}

@app.command()
{decorator}
def main(model: str = "tiny", layers: int = 2):
    print(load(model), layers)


if __name__ == "__main__":
    app()
"""
LOGGED = """\


def logged(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        print(kwargs)
        return function(*args, **kwargs)

    return inner

"""
BOLT = """\
import typer
from mlx_lm import load
from slack_bolt import App

bolt = App()


@bolt.command("/ask")
def ask(ack, say):
    ack()
    say(load("tiny"))


def main(model: str = "tiny"):
    print(load(model))
    bolt["/ask"](str, print)


if __name__ == "__main__":
    typer.run(main)
"""
DASH = """\
import click
from dash import Dash
from mlx_lm import load

app = Dash()


@app.callback("output", "input")
def answer(value):
    return load(value)


if __name__ == "__main__":
    print(click.unstyle(answer("tiny")))
"""
LATE_TYPER = """\
from mlx_lm import load


def main(model: str = "tiny"):
    print(load(model))


if __name__ == "__main__":
    import typer

    typer.run(main)
"""
CHECKED = (
    "from typing import TYPE_CHECKING\n\n"
    "if TYPE_CHECKING:\n    from typing import Annotated, Optional"
)
IN_A_FUNCTION = (
    "\n\ndef other():\n    from typing import Annotated, Optional\n\n"
    "    return Annotated[Optional[int], 1]\n"
)
CASES = {
    "timed": Case(
        TIMED.format(parameters="model, prompt", arguments="model, prompt", decorator="@timed"),
        "--model m hi",
        "command-call",
        "main is decorated with timed, which may not hand on other arguments",
    ),
    "timed_and_passed_on": Case(
        TIMED.format(parameters="*args, **kwargs", arguments="*args, **kwargs", decorator="@timed"),
        "--model m hi",
        "click-command",
    ),
    "of_another_package": Case(
        TIMED.format(
            parameters="*args, **kwargs", arguments="*args, **kwargs", decorator="@functools.cache"
        ),
        "--model m hi",
        "command-call",
        "main is decorated with functools.cache, which may not hand on other arguments",
    ),
    "own_options": Case(OPTIONS, "--model m --config c", "click-command"),
    "logged": Case(
        TYPER.format(imports="import functools\n", more=LOGGED, decorator="@logged"),
        "--model m",
        "command-call",
        "main is decorated with logged, which may not hand on other arguments",
    ),
    "typing_only_checked": Case(
        TYPER.format(imports=CHECKED, more="", decorator=""), "--model m", "typer-command"
    ),
    "typing_in_a_function": Case(
        TYPER.format(imports="", more=IN_A_FUNCTION, decorator=""), "--model m", "typer-command"
    ),
    "typer_imported_late": Case(
        LATE_TYPER, "--model m", "command-call", "typer.Option has no name in this file"
    ),
    "bolt": Case(BOLT, "--model m", "typer-command"),
    "dash": Case(DASH, "", "application"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_patched_command_does_what_it_did(name: str, tmp_path: Path, runner: Runner) -> None:
    case = CASES[name]
    (tmp_path / "packages").mkdir()
    for module, text in STAND_INS.items():
        (tmp_path / "packages" / module).write_text(text)
    script = tmp_path / "repo" / "script.py"
    outcome = run(script.parent, {"script.py": case.text.replace("\n\n\n\n", "\n\n\n")})[
        "script.py"
    ]
    assert outcome.codemod == case.codemod, outcome.reason
    assert [note.reason for note in outcome.notes] == (
        [] if case.note is None else [f"no flags: {case.note}"]
    )
    expected = runner.run(script, case.argv.split(), tmp_path / "packages")
    assert expected.code == 0, expected.stderr
    script.write_bytes(outcome.after)
    seen = runner.run(script, case.argv.split(), tmp_path / "packages")
    assert (seen.code, seen.stdout, seen.stderr) == (0, expected.stdout, "enabled True None\n")
    if case.codemod in ("click-command", "typer-command"):
        flags = ["--disable-flash-attention", "--flash-block-size", "64"]
        steered = runner.run(script, [*flags, *case.argv.split()], tmp_path / "packages")
        assert (steered.code, steered.stdout, steered.stderr) == (
            0,
            expected.stdout,
            "enabled False 64\n",
        )


APP = "import click\nfrom mlx_lm import load\n\n\n@click.group()\ndef app():\n    pass\n"
IN_ANOTHER_FILE = """\
import click
from app import app
from mlx_lm import load


@app.command()
def answer(model="tiny"):
    print(load(model))


if __name__ == "__main__":
    app()
"""


def test_a_group_of_another_file_makes_commands(tmp_path: Path) -> None:
    outcomes = run(tmp_path, {"app.py": APP, "main.py": IN_ANOTHER_FILE})
    assert outcomes["main.py"].codemod == "click-command"
