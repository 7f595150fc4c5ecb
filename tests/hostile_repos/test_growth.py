"""What a run costs grows as its input does: no quadratic time, no gigabyte for a megabyte, or a
word that says so."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from hostile_run import GIBIBYTE, Completed, checked

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.run import integrate
from flash_integrate.vendor.dependency import ManifestEdit
from flash_integrate.vendor.requirement import name_of
from forked import flash_integrate

SCRIPT = "from mlx_lm import generate, load\n\nprint(generate(*load('tiny'), 'hello'))\n"
PARSES = """\
import argparse
from mlx_lm import generate, load

{above}
p = argparse.ArgumentParser()
p.add_argument("--model")
{between}
args = p.parse_args({argv})
{below}
print(generate(*load(args.model), "hello"))
"""


def work_of(function: Callable[[], object]) -> int:
    """How many calls it makes, those of C functions and the steps of generators too."""
    counter = itertools.count()
    sys.setprofile(lambda *_: next(counter) and None)
    try:
        function()
    finally:
        sys.setprofile(None)
    return next(counter)


def outcome_of(path: Path, text: str) -> Outcome:
    path.write_text(text)
    [outcome] = integrate([path], (), lambda files, stage: files, jobs=1)
    return outcome


def lines(template: str, count: int) -> str:
    return "\n".join(template.replace("#", str(number)) for number in range(count))


def parses(
    above: str = "", between: str = "", below: str = "", argv: str = "", count: int = 0
) -> str:
    parts = {"above": above, "between": between, "below": below}
    return PARSES.format(**{name: lines(part, count) for name, part in parts.items()}, argv=argv)


SHAPES: dict[str, Callable[[int], str]] = {
    "options": lambda count: parses(between="p.add_argument('--m#')", count=count),
    "uses": lambda count: parses(below="print(args.m#)", count=count),
    "functions that are given the namespace": lambda count: parses(
        above="def f#(args):\n    print(args.m)", below="f#(args)", count=count
    ),
    "functions": lambda count: parses(
        above="def f#():\n    return 1", below="x# = f#()", count=count
    ),
    "groups": lambda count: parses(
        between="g# = p.add_argument_group('#')\ng#.add_argument('--m#')", count=count
    ),
    "options of a loop": lambda count: parses(
        between="for name in ['a', 'b']:\n    pass", count=1
    ).replace("    pass", "    p.add_argument(f'--{name}')\n" * count),
    "guards": lambda count: SCRIPT + lines("if __name__ == '__main__':\n    print(#)", count),
    "commands of click": lambda count: (
        "import click\nfrom mlx_lm import generate, load\n\n\n"
        "@click.group()\ndef cli():\n    pass\n\n\n"
        + lines("@cli.command()\ndef c#():\n    generate(*load('tiny'), 'hello')\n\n", count)
        + "\ncli()\n"
    ),
    "commands of typer": lambda count: (
        "import typer\nfrom mlx_lm import generate, load\n\napp = typer.Typer()\n\n\n"
        + lines(
            "@app.command()\ndef c#(model: str):\n    generate(*load(model), 'hello')\n\n", count
        )
        + "\napp()\n"
    ),
    "attention by hand": lambda count: parses(
        above="s# = q @ k\nw# = mx.softmax(s#)\no# = w# @ v", count=count
    ),
    "imports": lambda count: parses(above="import a#\nfrom b# import c#", count=count),
    "statements of a line": lambda count: parses(above="a = #;", count=count).replace(";\n", ";"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_scripts(tmp_path: Path, shape: str) -> None:
    few, many = (
        work_of(lambda n=n: outcome_of(tmp_path / "run.py", SHAPES[shape](n))) for n in (60, 240)
    )  # type: ignore[misc]
    assert many < 7 * few  # four times as much, where each with each other would be sixteen times


def test_a_list_that_is_made_of_two_of_the_one_before(tmp_path: Path) -> None:
    """Each may be the program's command line: who follows both would follow two to the power of
    sixty."""
    above = "a0 = [1]\n" + "\n".join(
        f"a{number + 1} = a{number} + a{number}" for number in range(60)
    )
    script = PARSES.format(above=above, between="", below="", argv="a60")
    assert outcome_of(tmp_path / "run.py", script).status is not Status.FAILED


def notebook(path: Path, sources: list[str]) -> Callable[[], Outcome]:
    cells = [
        {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source.splitlines(True),
        }
        for source in [SCRIPT, *sources]
    ]
    text = json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}, indent=1
    )
    return lambda: outcome_of(path, text)


@pytest.mark.parametrize(
    "source", ["x = 1\n", "import a\n", "!ls\nx = 1\n", "softmax(q @ k.T) @ v\n"]
)
def test_cells(tmp_path: Path, source: str) -> None:
    path = tmp_path / "book.ipynb"
    few, many = (work_of(notebook(path, [source] * count)) for count in (100, 400))
    assert many < 7 * few


def test_lines_of_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "book.ipynb"
    few, many = (work_of(notebook(path, ["x = 1\n" * count])) for count in (200, 800))
    assert many < 7 * few


def test_a_tree_of_files_that_import_each_other(tmp_path: Path) -> None:
    def tree(count: int) -> Callable[[], object]:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"m{number}.py").write_text(f"from m{(number + 1) % count} import f\n")
        (folder / "run.py").write_text(SCRIPT)
        return lambda: integrate([folder], (), lambda files, stage: files, jobs=1)

    few, many = (work_of(tree(count)) for count in (60, 240))
    assert many < 7 * few


def run(*args: object) -> Completed:
    """The command, which has little memory, and a minute of a processor: each takes seconds."""
    return checked(flash_integrate(*args, memory=GIBIBYTE))


MANIFESTS: dict[str, tuple[str, str]] = {
    "lists that do not end": ("setup.py", "console_scripts=[" * 50_000),
    "sections": ("setup.py", "[console_scripts]" * 50_000),
    "blanks": ("setup.cfg", "[options.entry_points]\na" + " " * 500_000 + "b\n"),
    "a line of blanks": ("setup.cfg", "[options.entry_points]\na = 1\n" + " " * 500_000 + "b\n"),
    "dots": ("pyproject.toml", "a" + ".a" * 400_000 + " = 1\n"),
    "a URL": ("requirements.txt", "mlx\nhttp://" + ".git" * 100_000 + "\n"),
    "a URL without a name": ("requirements.txt", "mlx\ngit+https://" + "/@#" * 100_000 + "\n"),
    "names": ("requirements.txt", "mlx\n" + "a-" * 200_000 + " !\n"),
    "continued lines": ("requirements.txt", "mlx\n" + "a\\\n" * 200_000 + "\n"),
    "comments": ("requirements.txt", "mlx\n" + " #" * 200_000 + "\n"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(tmp_path: Path, name: str) -> None:
    file, text = MANIFESTS[name]
    (tmp_path / file).write_text(text)
    (tmp_path / "run.py").write_text(SCRIPT)
    assert run(tmp_path, "--dry-run", "--add-dependency").returncode in (0, 2)


@pytest.mark.parametrize(
    "options", [[], ["--exclude", "*a" * 12 + "*b"]], ids=[".gitignore", "option"]
)
def test_patterns_with_many_wildcards(tmp_path: Path, options: list[str]) -> None:
    if not options:
        (tmp_path / ".gitignore").write_text("# a comment\n" + "*a" * 12 + "*b\n")
    (tmp_path / ("a" * 100 + ".py")).write_text(SCRIPT)
    result = run(tmp_path, *options)
    assert result.returncode == 2
    assert "more than 4 wildcards" in result.stderr
    assert options or ".gitignore" in result.stderr


def test_script_metadata_that_begins_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("# /// script\n" * 100_000 + SCRIPT)
    assert run(tmp_path, "--dry-run").returncode == 0


def test_lines_of_a_requirements_file(tmp_path: Path) -> None:
    before = b"".join(b"package-%d\n" % number for number in range(200_000))
    edit = ManifestEdit(
        PurePosixPath("requirements.txt"), tmp_path, before, before + b"new\n", removes=False
    )
    assert edit.lines == {200_001}


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("git+https://github.com/ml-explore/mlx-lm.git@main#egg=mlx_lm", "mlx-lm"),
        ("-e git+https://user@example.org/ml-explore/mlx-lm@feature/x", "mlx-lm"),
        ("https://example.org/mlx_lm", "mlx-lm"),
        ("http://" + ".git" * 10_000, None),
        ("http://[", None),
    ],
)
def test_names_in_urls(requirement: str, name: str | None) -> None:
    assert name_of(requirement) == name


def tables() -> Iterator[tuple[str, str, str]]:
    values = "x = [" + "1," * 250_000 + "]\n"
    yield "numbers.py", SCRIPT + values, "names and values, more than LibCST can take"
    yield "large.py", SCRIPT + "x = [" + "1," * 1_100_000 + "]\n", "more than 2 MiB of Python"


@pytest.mark.parametrize(("name", "text", "reason"), list(tables()), ids=["numbers", "large"])
def test_what_is_too_much_is_said(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = run(tmp_path)
    assert result.returncode == 2
    assert name in result.stderr
    assert reason in result.stderr
    assert (tmp_path / name).read_text() == text
    assert "enable_flash_attention" in (tmp_path / "run.py").read_text()
