"""The command `mlx-flash` itself: fast to start, helpful without its packages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mlx_flash_runtime import __version__
from mlx_flash_runtime.tools.cli.bench import BENCHES
from mlx_flash_runtime.tools.cli.group import COMMANDS, mlx_flash

SHAPE = ["--heads", "8", "--head-dim", "64"]
HEAVY = ("rich", "matplotlib", "mlx_lm", "transformers", "numpy", "mlx_flash_runtime.tools.bench")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_it_starts_without_importing_what_it_does_not_need(option: str) -> None:
    code = (
        f"import sys; sys.argv = ['mlx-flash', '{option}']\n"
        "from mlx_flash_runtime.tools.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: status = end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], status)"
    )
    done = python(code)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr
    assert __version__ in done.stdout or "Commands:" in done.stdout


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_its_packages_it_says_what_to_install(package: str) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None; sys.argv = ['mlx-flash', 'bench', 'grid']\n"
        "from mlx_flash_runtime.tools.cli import main; main()"
    )
    done = python(code)
    assert done.returncode == 2
    needs = (
        f"mlx-flash needs {package}, which is not installed: pip install 'mlx-flash-runtime[cli]'"
    )
    assert done.stderr.splitlines() == [needs]


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("matplotlib", ["bench", "grid", "--plot", "x.png"], "plot"),
        ("mlx_lm", ["bench", "workflow", "chat"], "lm"),
    ],
)
def test_without_an_extra_the_subcommand_says_what_to_install(
    package: str, command: list[str], extra: str
) -> None:
    code = (
        f"import sys; sys.modules['{package}'] = None; sys.argv = ['mlx-flash', *{command!r}]\n"
        "from mlx_flash_runtime.tools.cli import main; main()"
    )
    done = python(code)
    assert done.returncode == 2
    assert f"pip install 'mlx-flash-runtime[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp437"])
@pytest.mark.parametrize("command", [["explain", *SHAPE], ["compare", "--", "x×.py"], ["--help"]])
def test_it_prints_in_any_encoding(command: list[str], encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_flash_runtime.tools.cli", *command],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    said = (done.stdout + done.stderr).decode(encoding, "replace")
    assert said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "path", [[name] for name in COMMANDS] + [["bench", name] for name in BENCHES]
)
def test_every_subcommand_is_where_its_registration_says(path: list[str]) -> None:
    result = CliRunner().invoke(mlx_flash, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: mlx-flash {' '.join(path)} ")


def test_an_unknown_subcommand_is_refused() -> None:
    result = CliRunner().invoke(mlx_flash, ["benhc"])
    assert result.exit_code == 2
    assert "No such command 'benhc'" in result.output


@pytest.mark.parametrize("wrong", [["benhc"], ["--nope"], ["explain", "--nope"]])
def test_a_wrong_command_line_is_told_as_every_error_is(wrong: list[str]) -> None:
    result = CliRunner().invoke(mlx_flash, wrong)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("error: No such ")


def test_defaults_are_shown_as_they_are_typed() -> None:
    shown = CliRunner().invoke(mlx_flash, ["bench", "grid", "--help"], terminal_width=200).output
    assert "[models: 128,512,1024,4096; claims: 64,128]" in shown
    assert "[models: 2]; else as many as --heads" in shown


@pytest.mark.parametrize(
    "path",
    [["bench"], *(["bench", name] for name in BENCHES), *([name] for name in COMMANDS)],
)
def test_every_help_has_an_example(path: list[str]) -> None:
    shown = CliRunner().invoke(mlx_flash, [*path, "--help"]).output
    assert (
        f"\n  mlx-flash {' '.join(path)} " in shown or f"\n  mlx-flash {' '.join(path)}\n" in shown
    )
