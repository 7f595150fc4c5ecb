"""A notebook's cells as lines of Python, put in and taken out of its JSON text."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_integrate.errors import UnreadableSource
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.magics import as_python


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("!pip install \\\n  mlx \\\n  mlx-lm\nx = 1", "\n\npass\nx = 1"),
        ("!mlx_lm.lora \\\n    --model a/Llama-3.2-1B \\\n    --train\nx = 1", "\n\npass\nx = 1"),
        (
            "if colab:\n    !pip install mlx\nelse:\n    pass",
            "if colab:\n    pass\nelse:\n    pass",
        ),
        ("files = !ls 'it\nhome = %env HOME", "pass\npass"),
        ("?load\nload??\nmx.fast?", "pass\npass\npass"),
        ("%%time\nload()", "\nload()"),
        ("\n%%capture out\n%%time\nload()", "\n\n\nload()"),
        ("%%bash\nls", "\n"),
        ("x = (a\n  % b)\ny = '''\n!ls\n'''", "x = (a\n  % b)\ny = '''\n!ls\n'''"),
        ("# -*- coding: klingon -*-\nx = 1", "# -*- coding: klingon -*-\nx = 1"),
        ("await load()", "await load()"),
        ("", ""),
    ],
)
def test_what_only_ipython_understands_is_blanked_on_its_line(cell: str, python: str) -> None:
    assert "\n".join(as_python(cell.splitlines(keepends=True))) == python


def test_a_cell_that_is_neither_python_nor_magics_is_an_error() -> None:
    with pytest.raises(UnreadableSource) as raised:
        as_python(["%time x\n", "print 'hello'\n"])
    assert raised.value.line == 2


CHARACTERS = st.sampled_from([*"ab \"\\/'#é", "\u2028", "\x0c", "\x7f", "\x00", "📚", "\ud800"])


LINES = st.lists(st.text(CHARACTERS, max_size=4), min_size=1, max_size=6)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """The lines of a source, and a notebook that holds it as one string or in a list, cut
    anywhere."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    lines = [line + newline for line in draw(LINES)]
    if draw(st.booleans()) and lines[-1] != newline:
        lines[-1] = lines[-1].removesuffix(newline)
    source: str | list[str] = "".join(lines)
    if draw(st.booleans()):
        cuts = draw(st.sets(st.integers(0, len(source))))
        source = lines if draw(st.booleans()) else cut(str(source), sorted(cuts))
    document = {"cells": [{"cell_type": "code", "source": source}], "nbformat": 4}
    indent, ascii_only = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only or "\ud800" in repr(source))
    try:
        return lines, text.encode()
    except UnicodeEncodeError:  # a half of a character can only be written as an escape
        return lines, json.dumps(document, indent=indent).encode()


def cut(text: str, positions: list[int]) -> list[str]:
    edges = [0, *positions, len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(chunked(), st.randoms(use_true_random=False))
def test_lines_can_be_put_below_any_line_and_taken_out_again(
    written: tuple[list[str], bytes], chosen: random.Random
) -> None:
    lines, data = written
    before = Notebook(Path("chat.ipynb"), data)
    [cell] = before.cells
    assert cell.lines == lines
    index = chosen.randrange(len(lines)) + 1
    after = Notebook(before.path, before.edited([cell.insert(index, "\none\ntwo\n")]))
    [edited] = after.cells
    bodies = [line.rstrip("\r\n") for line in lines]
    assert [line.rstrip("\r\n") for line in edited.lines] == [
        *bodies[:index],
        "",
        "one",
        "two",
        *bodies[index:],
    ]
    assert after.edited(edited.remove({index, index + 1, index + 2})) == data


@given(chunked(), st.randoms(use_true_random=False))
def test_any_lines_can_be_taken_out(
    written: tuple[list[str], bytes], chosen: random.Random
) -> None:
    lines, data = written
    before = Notebook(Path("chat.ipynb"), data)
    gone = set(chosen.sample(range(len(lines)), chosen.randrange(len(lines) + 1)))
    [cell] = before.cells
    [edited] = Notebook(before.path, before.edited(cell.remove(gone))).cells
    kept = [line for index, line in enumerate(lines) if index not in gone]
    if kept and len(lines) - 1 in gone and not lines[-1].endswith("\n"):
        kept[-1] = kept[-1].rstrip("\r\n")
    assert edited.source == "".join(kept)
