"""One file that is too much for a parser, or for this tool, costs that file: it is named, the
others are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_run import Completed, checked

from forked import flash_integrate

SCRIPT = "from mlx_lm import generate, load\n\nprint(generate(*load('tiny'), 'hello'))\n"
OF_MLX = "import mlx.core as mx\nfrom mlx_lm import load\n\n"
WORKS = "\nload('tiny')\n"


def run(*args: object) -> Completed:
    return checked(flash_integrate(*args))


def is_patched(path: Path) -> bool:
    return "enable_flash_attention" in path.read_text()


def chain(operator: str, count: int = 8000) -> str:
    return f"{OF_MLX}x = {operator.join(['a'] * count)}{WORKS}"


def nested(opening: str, closing: str, count: int, before: str = "x = ", after: str = "") -> str:
    return f"{OF_MLX}{before}{opening * count}a{closing * count}{after}{WORKS}"


PATTERN = {"before": "match load:\n    case ", "after": ":\n        pass"}
NEWER = "type Pair[T] = tuple[T, T]\n"  # Python 3.12: `ast` of an older one leaves it to LibCST
DEEP: dict[str, str] = {
    "sum": chain(" + "),
    "thousand terms": chain(" + ", 1000),
    "and": chain(" and "),
    "power": chain(" ** "),
    "attributes": f"{OF_MLX}x = a{'.b' * 8000}{WORKS}",
    "calls": f"{OF_MLX}x = a{'.b(1)' * 8000}{WORKS}",
    "items": f"{OF_MLX}x = a{'[0]' * 8000}{WORKS}",
    "not": f"{OF_MLX}x = {'not ' * 8000}a{WORKS}",
    "lambda": f"{OF_MLX}x = {'lambda: ' * 8000}a{WORKS}",
    "conditions": f"{OF_MLX}x = {'a if b else ' * 8000}a{WORKS}",
    "elif": f"{OF_MLX}if load:\n    pass\n" + "elif mx:\n    pass\n" * 8000 + WORKS,
    "dots of an import": f"{OF_MLX}import a{'.b' * 8000}{WORKS}",
    "f-string": f'{OF_MLX}x = f"{{{"+".join(["a"] * 8000)}}}"{WORKS}',
    "parentheses": nested("(", ")", 8000),
    "lists": nested("[", "]", 150),
    "parentheses in a pattern": nested("(", ")", 60, **PATTERN).replace("a)", "1)"),
    "dicts in a pattern": nested("{1: ", "}", 40, **PATTERN),
    "and in newer syntax": NEWER + chain(" and ", 20_000),
    "an f-string in newer syntax": (
        f'{NEWER}{OF_MLX}x = f"{{{" and ".join(["a"] * 20_000)}}}"{WORKS}'
    ),
    "brackets in newer syntax": NEWER + nested("(", ")", 8000),
    "digits": f"{OF_MLX}x = {'9' * 100_000}{WORKS}",
}
FINE = {"lists"}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    for name, text in DEEP.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "zz.py").write_text(SCRIPT)
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_expressions_too_deep_for_a_parser(deep: Path, jobs: int) -> None:
    """CPython's parser says so where they are; LibCST's overflows its stack, or takes for ever."""
    report = deep / "report.json"
    assert run(deep, "--check", "-j", jobs, "--json", report).returncode == 2
    outcomes = {Path(item["path"]).stem: item for item in json.loads(report.read_text())["files"]}
    assert {name for name in DEEP if outcomes[name]["status"] == "would-change"} == FINE
    assert all(
        outcomes[name]["status"] == "failed" and outcomes[name]["line"]
        for name in DEEP.keys() - FINE
    )
    assert outcomes["zz"]["status"] == "would-change"


def test_they_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(DEEP["sum"])
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path)
    assert result.returncode == 2
    assert "deep.py" in result.stderr
    assert (tmp_path / "deep.py").read_text() == DEEP["sum"]
    assert is_patched(tmp_path / "run.py")
    assert run(tmp_path, "--revert").returncode == 0
    assert (tmp_path / "run.py").read_text() == SCRIPT


@pytest.mark.parametrize("name", ["sum", "and in newer syntax"])
def test_standard_input(name: str) -> None:
    result = checked(flash_integrate("-", given=DEEP[name].encode()))
    assert result.returncode == 2
    assert result.stderr.startswith("error: <stdin>:")


def notebook(source: object, **metadata: object) -> str:
    cell = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]}, indent=1
    )


NOTEBOOKS: dict[str, tuple[str, str]] = {
    "digits": (
        notebook(SCRIPT, n=0).replace('"n": 0', '"n": ' + "9" * 100_000),
        "a number has too many digits",
    ),
    "nested": (
        notebook(SCRIPT, n=0).replace('"n": 0', '"n": ' + "[" * 100_000),
        "nested too deeply to be parsed",
    ),
    "sum": (notebook(DEEP["sum"]), "nested too deeply"),
    "magics": (notebook(SCRIPT + "!ls\nx = 1\n" * 1000), "more than 500 magics"),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks(tmp_path: Path, name: str) -> None:
    text, reason = NOTEBOOKS[name]
    (tmp_path / "bad.ipynb").write_text(text)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path)
    if name == "sum" and sys.version_info < (
        3,
        11,
    ):  # there the tree has no depth that it can't have
        return
    assert result.returncode == 2
    assert "bad.ipynb:" in result.stderr
    assert reason in result.stderr
    assert (tmp_path / "bad.ipynb").read_text() == text
    assert is_patched(tmp_path / "run.py")


def test_folders_within_each_other(tmp_path: Path) -> None:
    """Deeper than calls may nest in Python."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    with open(os.open("deep.py", os.O_WRONLY | os.O_CREAT, dir_fd=here), "w") as file:
        file.write(SCRIPT)
    os.close(here)
    (tmp_path / "run.py").write_text(SCRIPT)
    try:
        assert run(tmp_path).returncode == 0
        assert is_patched(tmp_path / "run.py")
        assert is_patched(tmp_path.joinpath(*["d"] * 1200, "deep.py"))
    finally:
        # Deeper than Python's own way to remove it reaches.
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


def test_a_chain_of_imports(tmp_path: Path) -> None:
    """Longer than calls may nest in Python, from the script to the file that runs attention."""
    for number in range(1200):
        (tmp_path / f"m{number}.py").write_text(
            f"from m{number + 1} import f{number + 1} as f{number}\n"
        )
    (tmp_path / "m1200.py").write_text(
        "import mlx.core as mx\n\nf1200 = mx.fast.scaled_dot_product_attention\n"
    )
    (tmp_path / "run.py").write_text("from m0 import f0\n\nprint(f0(1))\n")
    assert run(tmp_path).returncode == 0
    assert is_patched(tmp_path / "run.py")


def test_a_chain_of_functions(tmp_path: Path) -> None:
    functions = "".join(
        f"def f{number}():\n    return f{number + 1}()\n\n\n" for number in range(1200)
    )
    (tmp_path / "run.py").write_text(
        f"{OF_MLX}{functions}def f1200():\n    return load('tiny')\n\n\nprint(f0())\n"
    )
    assert run(tmp_path).returncode == 0
    assert is_patched(tmp_path / "run.py")


def test_chains_of_functions_and_classes_of_parsers(tmp_path: Path) -> None:
    functions = "".join(f"def f{n}():\n    return f{n + 1}()\n\n\n" for n in range(1200))
    classes = "".join(f"class C{n}(C{n + 1}):\n    pass\n\n\n" for n in reversed(range(1200)))
    (tmp_path / "run.py").write_text(
        f"import argparse\n\n{OF_MLX}{functions}"
        f"def f1200():\n    return argparse.ArgumentParser()\n\n\n{classes}"
        "args = f0().parse_args()\nother = C0().parse_args()\nload(args.model)\n"
    )
    assert run(tmp_path).returncode == 0
    assert is_patched(tmp_path / "run.py")


def test_modules_that_take_everything_of_each_other(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import mlx.core as mx\nfrom two import *\n")
    (tmp_path / "two.py").write_text("import mlx.core as mx\nfrom one import *\n")
    (tmp_path / "run.py").write_text("import mlx.core as mx\nfrom one import *\n\nprint(1)\n")
    assert run(tmp_path).returncode == 0
    assert not is_patched(tmp_path / "run.py")


DIGITS, ARRAYS = "x = " + "9" * 100_000, "x = " + "[" * 100_000
MANIFESTS: dict[str, tuple[str, str]] = {
    "digits": ("pyproject.toml", DIGITS),
    "nested": ("pyproject.toml", ARRAYS),
    "NUL": ("pyproject.toml", "[project]\0\n"),
    "configured NUL": ("pyproject.toml", '[tool.flash-integrate]\nexclude = ["a\\u0000b"]\n'),
    "dotted": ("pyproject.toml", "[" + "a." * 100_000 + "a]\n"),
    "deep tables": (
        "pyproject.toml",
        "[" + "a." * 900 + 'a]\n[project]\ndependencies = ["mlx-lm"]\n',
    ),
    "setup.cfg NUL": (
        "setup.cfg",
        "[options.entry_points]\nconsole_scripts =\n    a = run\0:main\n",
    ),
    "setup.py NUL": ("setup.py", "console_scripts=['a = run\0:main']\n"),
    "requirements NUL": ("requirements.txt", "mlx-lm\0\nmlx\n"),
    "URL": ("requirements.txt", "mlx\nhttp://[\n"),
}


@pytest.mark.parametrize("options", [[], ["--add-dependency"]], ids=["plain", "dependency"])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(tmp_path: Path, name: str, options: list[str]) -> None:
    """One that can't be read is told of, or is as if it were not there; it is never a traceback."""
    file, text = MANIFESTS[name]
    (tmp_path / file).write_text(text)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path, *options)
    assert (result.returncode, is_patched(tmp_path / "run.py")) in ((0, True), (2, False))
    assert result.returncode == 0 or file in result.stderr


@pytest.mark.parametrize(
    "block", [DIGITS, ARRAYS, "a" + ".a" * 100_000 + " = 1"], ids=["digits", "nested", "dotted"]
)
def test_script_metadata(tmp_path: Path, block: str) -> None:
    (tmp_path / "run.py").write_text(f"# /// script\n# {block}\n# ///\n{SCRIPT}")
    assert run(tmp_path).returncode == 0
    assert is_patched(tmp_path / "run.py")


def test_a_vendored_manifest_that_is_nested(tmp_path: Path) -> None:
    (tmp_path / "mlx_flash_runtime").mkdir()
    (tmp_path / "mlx_flash_runtime" / "VENDORED.json").write_text("[" * 100_000)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path, "--vendor")
    assert result.returncode == 2
    assert "VENDORED.json" in result.stderr


def test_an_error_outside_of_any_file_is_no_work_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: Callable[[list[str]], int]
) -> None:
    """Exit status 1 says to CI that `--check` found work."""
    from flash_integrate.cli import command

    def fails(*_: object) -> None:
        raise KeyError("a table")

    monkeypatch.setattr(command, "load_for", fails)
    assert run_main([str(tmp_path), "--check"]) == 2


@pytest.fixture
def run_main() -> Callable[[list[str]], int]:
    from click.testing import CliRunner

    from flash_integrate.cli.command_line import main

    return lambda args: CliRunner().invoke(main, args).exit_code
