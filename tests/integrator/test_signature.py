"""Two parameters go into any signature and come out again, to the byte; the function is called as
before."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash_integrate.python.signature import Position, Signature

ADDED = ["disable_flash_attention=False", "flash_block_size=None"]
PARAMETERS = [
    "a",
    "b: int",
    "c=1",
    "d: str = (')')",
    "e={'x': [1, 2]}",
    "f: 'dict[str, int]' = {}",
    "g=lambda x, y: (x, y)",
]
LAYOUTS: dict[str, Callable[[list[str]], str]] = {
    "one line": lambda items: f"({', '.join(items)})",
    "spaces": lambda items: f"( {' , '.join(items)} )",
    "trailing comma": lambda items: f"({''.join(f'{item}, ' for item in items)})",
    "own lines": lambda items: "(\n" + "".join(f"    {item},\n" for item in items) + ")",
    "own lines, comments": lambda items: (
        "(\n" + "".join(f"    {item},  # (, \n" for item in items) + "    # end\n)"
    ),
    "own lines, comments, no comma": lambda items: (
        "(\n    " + ",  # (, \n    ".join(items) + "  # the last\n)"
    ),
    "aligned, comments": lambda items: (
        "(" + ",  # )\n             ".join(items) + "  # the last\n    )"
    ),
    "own lines, no comma": lambda items: "(\n    " + ",\n    ".join(items) + "\n)",
    "aligned": lambda items: "(" + ",\n             ".join(items) + ")",
    "tabs": lambda items: "(\n" + "".join(f"\t\t{item},\n" for item in items) + "\t)",
}


@st.composite
def signatures(draw: st.DrawFn) -> str:
    plain = draw(st.lists(st.sampled_from(PARAMETERS[:2]), unique=True)) + draw(
        st.lists(st.sampled_from(PARAMETERS[2:]), unique=True)
    )
    rest = draw(st.sampled_from([[], ["*"], ["*rest"]]))
    keywords = (
        draw(st.lists(st.sampled_from(["k", "l=2"]), unique=True, min_size=rest == ["*"]))
        if rest
        else []
    )
    last = draw(st.sampled_from([[], ["**options"]]))
    items = [*plain, *rest, *keywords, *last]
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))] if items else LAYOUTS["one line"]
    return layout(items)


def inserted(lines: list[str], addition: list[tuple[Position, str]]) -> str:
    text = "".join(lines)
    for at, added in sorted(addition, reverse=True):
        text = text[: index(lines, at)] + added + text[index(lines, at) :]
    return text


def without(lines: list[str], cuts: list[tuple[Position, Position]]) -> str:
    text = "".join(lines)
    for start, end in sorted(cuts, reverse=True):
        text = text[: index(lines, start)] + text[index(lines, end) :]
    return text


def index(lines: list[str], at: Position) -> int:
    return sum(map(len, lines[: at[0] - 1])) + at[1]


def function(text: str) -> ast.FunctionDef:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


@given(signatures(), st.sampled_from([30, 120]))
@settings(max_examples=300, deadline=None)
def test_there_and_back(signature: str, width: int) -> None:
    text = f"def command{signature} -> None:\n    pass\n"
    lines = text.splitlines(keepends=True)
    node = function(text)
    patched = inserted(lines, Signature.of(node, lines).addition(ADDED, width))
    new = function(patched)
    # The own parameters are the same, in their order; the two are there, and need not be given.
    names = {"disable_flash_attention", "flash_block_size"}
    every = [item for item in ast.walk(new.args) if isinstance(item, ast.arg)]
    assert names <= {item.arg for item in every}
    kept = [item.arg for item in every if item.arg not in names]
    assert kept == [item.arg for item in ast.walk(node.args) if isinstance(item, ast.arg)]
    scope: dict[str, object] = {}
    exec(patched, scope)
    assert {"disable_flash_attention", "flash_block_size"} <= set(new_defaults(scope["command"]))
    # And out again.
    new_lines = patched.splitlines(keepends=True)
    found = Signature.of(new, new_lines)
    places = [index for index, element in enumerate(found.elements) if element.first in names]
    assert without(new_lines, found.removal(*places)) == text


def test_what_was_added_to_one_line_since_stays() -> None:
    patched = (
        "def f(\n    a,\n    {}b=1,\n    *,\n"
        "    disable_flash_attention=False,\n    flash_block_size=None,\n{}):\n    pass\n"
    )
    for before, after, without_the_two in (
        ("", "", "def f(a, b=1):\n"),
        ("c=0, ", "", "def f(a, c=0, b=1):\n"),
        ("# why\n    ", "", "def f(\n    a,\n    # why\n    b=1,\n):\n"),
        ("", "    # why\n", "def f(\n    a,\n    b=1,\n    # why\n):\n"),
        (
            "",
            "    k,\n",
            "def f(\n    a,\n    b=1,\n    *,\n    k,\n):\n",
        ),
    ):
        text = patched.format(before, after)
        lines = text.splitlines(keepends=True)
        found = Signature.of(function(text), lines)
        names = [element.first for element in found.elements]
        first = names.index("disable_flash_attention")
        left = without(lines, found.removal(first, first + 1))
        assert left == without_the_two + "    pass\n"


def new_defaults(command: object) -> list[str]:
    parameters = inspect.signature(command).parameters.values()  # type: ignore[arg-type]
    return [item.name for item in parameters if item.default is not inspect.Parameter.empty]


@pytest.mark.parametrize("header", ["async def f(a):", "def f[T: (int, str)](a: T):"])
def test_other_headers(header: str) -> None:
    lines = [header + "\n", "    pass\n"]
    try:
        node = ast.parse("".join(lines)).body[0]
    except SyntaxError:
        pytest.skip("newer syntax than this Python's")
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    assert inserted(lines, Signature.of(node, lines).addition(["b=1"], 88)).startswith(
        header[:-2] + ", b=1):"
    )
