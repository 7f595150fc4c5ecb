"""Scripts in a Python that is newer than the one the tool runs on are read all the same, line for
line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import Run

from flash_integrate.python.newer_syntax import in_older_syntax

NEWER = '''\
from mlx_lm import generate, load

names = {"model": "tiny"}
print(f"loading {names["model"]} {f"{names["model"]}"}")
text = f"""
{names["model"]!r:>{10}}
"""
type Names = dict[str, str]


def first[T](items: list[T]) -> T:
    return items[0]


if __name__ == "__main__":
    print(generate(*load(f"{names["model"]}"), "hello"))
'''


def test_the_statements_stay_on_their_lines() -> None:
    older = in_older_syntax(NEWER)
    assert older is not None
    assert [node.lineno for node in ast.parse(older).body] == [1, 3, 4, 5, 8, 11, 15]
    assert ast.parse(older, feature_version=(3, 10))


def test_a_script_in_newer_syntax_is_integrated_and_reverted(
    flash_integrate: Run, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(NEWER)
    result = flash_integrate(tmp_path)
    assert result.returncode == 0, result.stderr
    patched = (tmp_path / "run.py").read_text()
    assert (
        '    enable_flash_attention()\n    print(generate(*load(f"{names["model"]}"), "hello"))\n'
        in patched
    )
    assert b"1 already integrated" in flash_integrate(tmp_path).stderr
    flash_integrate(tmp_path, "--revert")
    assert (tmp_path / "run.py").read_text() == NEWER


@pytest.mark.parametrize("text", ["x = = 1\n", "(" * 20_000 + ")" * 20_000, "def f(:\n"])
def test_what_is_no_python_stays_unread(text: str) -> None:
    assert in_older_syntax(text) is None
