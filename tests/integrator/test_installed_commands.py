"""Functions that a project's packaging installs as commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import CLI, MODEL, SCRIPTS
from outcomes import changed, run

WRAPPED = {
    "a wrapper": "menu_main = runner(menu.main)",
    "partial": "menu_main = functools.partial(menu.main)",
    "another name": "menu_main = menu.main",
    "a lambda": "menu_main = lambda: menu.main()",
    "a lambda that prepares": 'menu_main = lambda: print("bot") or runner(menu.main())',
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


LAMBDA = "from mlx_lm import load\n\nmenu_main = lambda: load(1)\n"


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        (LAMBDA, False),
        (f"{LAMBDA}\n\ndef other():\n    load(2)\n", True),
        (LAMBDA.replace("load(1)", "print(1)"), False),
        (f"{LAMBDA}\nmenu_main()\n", False),
    ],
)
def test_a_command_that_is_a_lambda_is_named(tmp_path: Path, text: str, is_named: bool) -> None:
    """Unless the call runs when the command imports the file, as for a script."""
    scripts = SCRIPTS.format("bot.entry:menu_main") + 'other = "bot.entry:other"\n'
    files = {"bot/__init__.py": "", "bot/entry.py": text, "pyproject.toml": scripts}
    found = run(tmp_path, files)["bot/entry.py"].uncovered
    assert [(item.entry, item.line, item.reason) for item in found] == (
        [("the command bot", 3, "no line can be inserted into a lambda")] if is_named else []
    )


TABLE = """\
from .serve import serve
from .version import version

HANDLERS = {"serve": "serve", "version": "version"}


def main(command="serve"):
    return globals()[HANDLERS[command]]()
"""


def test_a_command_that_looks_its_functions_up_by_name(tmp_path: Path) -> None:
    """Those of the module whose names are texts in it."""
    files = {
        "bot/__init__.py": TABLE,
        "bot/model.py": MODEL,
        "bot/serve.py": "from .model import answer\n\n\ndef serve():\n    return answer(1)\n",
        "bot/version.py": "def version():\n    return 1\n",
        "bot/__main__.py": 'from . import main\n\nif __name__ == "__main__":\n    main()\n',
    }
    assert changed(run(tmp_path, files)) == {"bot/__main__.py": "main-guard"}
    files["bot/__init__.py"] = TABLE.replace('"serve"', '"version"')
    assert changed(run(tmp_path / "other", files)) == {}
