"""Files that only start others: one call is enough, where the flags are."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import BY_HAND, CLI, MODEL, SCRIPTS
from outcomes import changed, run

from flash_integrate.planning.codemod import offered
from flash_integrate.planning.plan import Status
from flash_integrate.planning.run import integrate
from flash_integrate.project.config import load


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


HANDS_OVER = """\
def main():
    from .cli import main as start

    start()


if __name__ == "__main__":
    main()
"""


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


def test_a_script_is_not_handed_over_to_what_gets_no_call(tmp_path: Path) -> None:
    cli = CLI.replace(".model", "model")
    main = "from cli import main\n\nif __name__ == '__main__':\n    main()\n"
    outcomes = run(tmp_path, {"model.py": BY_HAND, "cli.py": cli, "start.py": main})
    assert changed(outcomes) == {}
    assert outcomes["start.py"].reason == "its only attention is written by hand"


def test_a_script_that_starts_an_application_is_handed_over_to_it(tmp_path: Path) -> None:
    """The call runs when the application's module is imported."""
    app = (
        "from fastapi import FastAPI\n\nfrom .model import answer\n\napp = FastAPI()\n\n\n"
        "def main():\n    app.serve(answer)\n"
    )
    main = 'from .app import main\n\nif __name__ == "__main__":\n    main()\n'
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/app.py": app}
    outcomes = run(tmp_path, {**files, "bot/__main__.py": main})
    assert changed(outcomes) == {"bot/app.py": "application"}
    assert (
        outcomes["bot/__main__.py"].reason == "only starts bot/app.py, which turns the runtime on"
    )


def test_a_guard_that_starts_an_installed_command_is_handed_over_to_it(tmp_path: Path) -> None:
    cli = 'from .model import answer\n\n\ndef main():\n    answer("hi")\n'
    old = "def main():\n    from .cli import main as start\n\n    start()\n\n\n"
    guard = 'if __name__ == "__main__":\n    main()\n'
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/cli.py": cli}
    files |= {"bot/old.py": old + guard, "pyproject.toml": SCRIPTS.format("bot.cli:main")}
    outcomes = run(tmp_path, files)
    assert changed(outcomes) == {"bot/cli.py": "console-script"}
    assert outcomes["bot/old.py"].reason == "only starts bot/cli.py, which turns the runtime on"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ('only = ["flat-script"]', "argparse-script is left out"),
        ('skip = ["argparse-script"]', "argparse-script is left out"),
        ('exclude = ["cli.py"]', "this run does not change it"),
    ],
)
def test_a_script_that_is_left_out_turns_nothing_on(
    setting: str, reason: str, tmp_path: Path
) -> None:
    files = {"model.py": MODEL, "cli.py": CLI.replace(".model", "model")}
    files["start.py"] = "from cli import main\n\nmain()\n"
    files["pyproject.toml"] = f"[tool.flash-integrate]\n{setting}\n"
    (tmp_path / "pyproject.toml").write_text(files["pyproject.toml"])
    outcomes = run(tmp_path, files, load(tmp_path, list(offered())))
    assert changed(outcomes) == {}
    assert (
        outcomes["start.py"].reason == f"only starts cli.py, where the call belongs, and {reason}"
    )
