"""A file that black or ruff format leaves alone is left alone by them after it was patched too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from cases import CASES

FORMATTERS = {
    "black": ["black", "--check"],
    "ruff": ["ruff", "format", "--check", "--no-cache"],
    "isort": ["isort", "--check-only", "--profile", "black"],
}


def rejected(formatter: str, folder: Path, names: Iterable[str]) -> set[str]:
    """The files that a formatter would write in another way, as the folder configures it."""
    program, *options = FORMATTERS[formatter]
    command = [Path(sys.executable).with_name(program), *options, *names]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    output = run.stdout + run.stderr
    found = {name for name in names if name in output}
    assert bool(found) == bool(run.returncode), output
    return found


def patched(formatter: str, folder: Path, texts: dict[str, str]) -> list[str]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    assert not rejected(formatter, folder, texts)
    command = [sys.executable, "-m", "flash_integrate", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    changed = [name for name, text in texts.items() if (folder / name).read_text() != text]
    assert changed == list(texts)
    return changed


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_passed_before_passes_after(formatter: str) -> None:
    before = [path.relative_to(CASES).as_posix() for path in CASES.glob("*/*.before.py")]
    passed = set(before) - rejected(formatter, CASES, before)
    assert len(passed) > 30
    after = [name.replace(".before.", ".after.") for name in passed]
    broken = {name.removesuffix(".after.py") for name in rejected(formatter, CASES, after)}
    assert broken == set()


ARGPARSE = """\
import argparse

from mlx_lm import generate, load


def main():
    {name} = argparse.ArgumentParser()
    {name}.add_argument("--model")
    {names} = {name}.parse_args()
    print(generate(*load({names}.model), "hello"))


if __name__ == "__main__":
    main()
"""
CLICK = """\
import click
from mlx_lm import generate, load


@click.command()
@click.option("--model")
def {name}(model):
    print(generate(*load(model), "hello"))


if __name__ == "__main__":
    {name}()
"""
TYPER = """\
from typing import Annotated, Optional

import typer
from mlx_lm import generate, load

app = typer.Typer()


@app.command()
def {name}(
    model: Annotated[str, typer.Option()] = "tiny",
):
    print(generate(*load(model), "hello"))
"""
TYPER_ON_ONE_LINE = """\
import typer
from mlx_lm import generate, load

app = typer.Typer()


@app.command()
def main(model: str = "tiny", {name}: int = 1) -> None:
    print(generate(*load(model), "hello"))
"""
CLICK_ON_ONE_LINE = """\
import click
from mlx_lm import generate, load


@click.command()
@click.option("--model")
def main(model, {name}=1):
    print(generate(*load(model), "hello"))


if __name__ == "__main__":
    main()
"""
# A comment may be longer than a line of code, and says nothing of the width of one.
BY_HAND = """\
import mlx.core as mx


def attend(x, heads, scale, mask=None):
    B, L, _ = x.shape
    # batch, heads, length, head_dim{spaces}; one array for all three
    queries = keys = values = x.reshape(B, L, heads, -1).swapaxes(1, 2)
    scores = queries @ keys.swapaxes(-1, -2) * scale
    if mask is not None:
        scores = scores + mask
    {name} = mx.softmax(scores, axis=-1) @ values
    return {name}
"""


@pytest.mark.parametrize("formatter", ["black", "ruff"])
@pytest.mark.parametrize("width", [None, 79, 100, 120])
def test_lines_have_the_width_that_the_repo_sets(
    formatter: str, width: int | None, tmp_path: Path
) -> None:
    setting = "" if width is None else f"line-length = {width}\n"
    (tmp_path / "pyproject.toml").write_text(f"[tool.{formatter}]\n{setting}")
    texts = {"command.py": CLICK.format(name="main")}
    for length in range(1, 26, 4):
        name = "p" * length
        texts[f"args_{length}.py"] = ARGPARSE.format(name="parser", names=name)
        texts[f"parser_{length}.py"] = ARGPARSE.format(name=name, names="args")
        texts[f"typer_{length}.py"] = TYPER.format(name=name)
        texts[f"typer_line_{length}.py"] = TYPER_ON_ONE_LINE.format(name=name)
        texts[f"click_line_{length}.py"] = CLICK_ON_ONE_LINE.format(name=name)
    texts["by_hand.py"] = BY_HAND.format(name="output", spaces=" " * 80)
    texts["by_hand_long.py"] = BY_HAND.format(name="o" * 16, spaces="")
    assert not rejected(formatter, tmp_path, patched(formatter, tmp_path, texts))


QUOTES = {
    "black": "[tool.black]\nskip-string-normalization = true\n",
    "ruff": '[tool.ruff.format]\nquote-style = "single"\n',
}


@pytest.mark.parametrize("formatter", ["black", "ruff"])
def test_strings_have_the_quotes_of_the_file(formatter: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(QUOTES[formatter])
    texts = {
        name: text.format(name="args", names="names").replace('"', "'")
        for name, text in {"parser.py": ARGPARSE, "command.py": CLICK, "typed.py": TYPER}.items()
    }
    assert not rejected(formatter, tmp_path, patched(formatter, tmp_path, texts))
    assert not any('"' in (tmp_path / name).read_text() for name in texts)
