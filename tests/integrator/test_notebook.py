"""Notebooks: only the source of one cell changes, in whatever way the file is written, and comes
back byte for byte."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import Run, commit_all, git
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbformat import v4

from flash_integrate.errors import UnreadableSource
from flash_integrate.inserted.snippets import Style, enable
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.magics import as_python

ROOT = Path(__file__).parents[2]
CASES = ROOT / "fixtures" / "notebooks"
CALL = enable(Style(), 0)
INSERTED = "\n" + CALL
IMPORTS = "import time\n\nfrom mlx_lm import generate, load\n"
WORK = 'prompt = "¿Dónde está la biblioteca? 📚 \u2028"\nmodel, tokenizer = load("model")'


def notebook(*sources: str) -> Any:
    """A notebook with a Markdown cell, code cells and an output that speak of MLX too."""
    image = v4.new_output(
        "display_data", {"image/png": "iVBORw0KGgo=\n", "text/plain": "<mlx_lm – plot>"}
    )
    cells = [
        v4.new_code_cell(source, outputs=[image], id=f"cell-{number}")
        for number, source in enumerate(sources)
    ]
    metadata = {
        "language_info": {"name": "python"},
        "custom": {"a/b": 1e-07, "z": "import mlx_lm\n"},
    }
    return v4.new_notebook(
        cells=[v4.new_markdown_cell("# `import mlx_lm`", id="title"), *cells], metadata=metadata
    )


# The ways in which programs write the same notebook.


def as_saved_by_jupyter(made: Any) -> bytes:
    return (nbformat.writes(made) + "\n").encode()


def indented_by_two(made: Any) -> bytes:
    return (
        json.dumps(json.loads(nbformat.writes(made)), indent=2, ensure_ascii=False).encode() + b"\n"
    )


def in_ascii(made: Any) -> bytes:
    return json.dumps(json.loads(nbformat.writes(made)), indent=1, sort_keys=True).encode()


def on_one_line(made: Any) -> bytes:
    return json.dumps(json.loads(nbformat.writes(made))).encode()


def with_string_sources(made: Any) -> bytes:
    return json.dumps(made, indent=1, ensure_ascii=False).encode() + b"\n"


def with_one_item_per_source(made: Any) -> bytes:
    document = json.loads(json.dumps(made))
    for cell in document["cells"]:
        cell["source"] = [cell["source"]]
    return json.dumps(document, indent=4).encode() + b"\n"


def with_crlf(made: Any) -> bytes:
    return as_saved_by_jupyter(made).replace(b"\n", b"\r\n")


def with_tabs(made: Any) -> bytes:
    return json.dumps(
        json.loads(nbformat.writes(made)), indent="\t", separators=(" ,", " : ")
    ).encode()


def without_final_newline(made: Any) -> bytes:
    return as_saved_by_jupyter(made).rstrip(b"\n")


WRITERS = [
    as_saved_by_jupyter,
    indented_by_two,
    in_ascii,
    on_one_line,
    with_string_sources,
    with_one_item_per_source,
    with_crlf,
    with_tabs,
    without_final_newline,
]
Writer = Callable[[Any], bytes]
SOURCES = {
    "in the middle": [IMPORTS + WORK, "generate(model, tokenizer, prompt)"],
    "at the end": ["import os", IMPORTS.rstrip("\n"), WORK],
    "at the end, with a newline": [IMPORTS, WORK],
    "one line": ["from mlx_lm import load", WORK],
    "windows": [(IMPORTS + WORK).replace("\n", "\r\n")],
}


def write_all(folder: Path, made: dict[str, Any]) -> dict[str, bytes]:
    """Writes notebooks in every way; the files by their names."""
    files = {
        f"{name}, {write.__name__}.ipynb": write(made[name]) for name in made for write in WRITERS
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}


def sources(data: bytes) -> list[str]:
    return [
        cell.source for cell in nbformat.reads(data, as_version=4).cells if cell.cell_type == "code"
    ]


def test_apply_then_apply_again_then_revert(flash_integrate: Run, tmp_path: Path) -> None:
    before = write_all(tmp_path, {name: notebook(*cells) for name, cells in SOURCES.items()})
    commit_all(tmp_path)
    diff = flash_integrate(tmp_path, "--dry-run").stdout
    assert contents(tmp_path) == before
    assert flash_integrate(tmp_path).returncode == 0
    after = contents(tmp_path)
    for name, data in after.items():
        assert_only_the_import_cell_gained(SOURCES[name.rpartition(", ")[0]], sources(data))
        assert without_code(data) == without_code(before[name])

    git(tmp_path, "checkout", "-q", ".")
    apply(tmp_path, diff)
    assert contents(tmp_path) == after

    again = flash_integrate(tmp_path, "--force")
    assert f"{len(after)} already integrated".encode() in again.stderr
    assert contents(tmp_path) == after

    diff = flash_integrate(tmp_path, "--revert", "--dry-run").stdout
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    assert contents(tmp_path) == before
    for name, data in after.items():
        (tmp_path / name).write_bytes(data)
    apply(tmp_path, diff)
    assert contents(tmp_path) == before


def apply(folder: Path, diff: bytes) -> None:
    """Applies a diff, as git takes it, to the files of a checkout."""
    (folder / "the.diff").write_bytes(diff)
    git(folder, "apply", "--whitespace=nowarn", "the.diff")


def assert_only_the_import_cell_gained(before: list[str], after: list[str]) -> None:
    [number] = [number for number, source in enumerate(before) if "from mlx_lm" in source]
    assert after[:number] + after[number + 1 :] == before[:number] + before[number + 1 :]
    newline = "\r\n" if "\r\n" in before[number] else "\n"
    inserted = INSERTED.replace("\n", newline)
    line = re.search(r".*from mlx_lm[^\r\n]*(\r?\n)?", before[number], re.DOTALL)
    assert line is not None
    if line.group(1) is None:
        assert after[number] == before[number] + newline + inserted.removesuffix(newline)
    else:
        assert (
            after[number] == before[number][: line.end()] + inserted + before[number][line.end() :]
        )


def without_code(data: bytes) -> Any:
    document = json.loads(data)
    for cell in document["cells"]:
        if cell["cell_type"] == "code":
            del cell["source"]
    return json.dumps(document)  # with the order of the keys


def test_revert_keeps_what_the_user_wrote_since(flash_integrate: Run, tmp_path: Path) -> None:
    def edited(source: str) -> Any:
        source = source.replace("import time", "import time as t")
        return notebook("# new: first things first", f"{source}\nmodel?", WORK)

    write_all(tmp_path, {"chat": edited(IMPORTS + INSERTED + WORK)})
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    reverted = contents(tmp_path)
    assert reverted == write_all(tmp_path, {"chat": edited(IMPORTS + WORK)})


def test_revert_after_jupyter_saved_the_notebook(flash_integrate: Run, tmp_path: Path) -> None:
    made = {name: notebook(*cells) for name, cells in SOURCES.items()}
    write_all(tmp_path, made)
    assert flash_integrate(tmp_path).returncode == 0
    for name, data in contents(tmp_path).items():
        (tmp_path / name).write_bytes(as_saved_by_jupyter(nbformat.reads(data, as_version=4)))
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    for name, data in contents(tmp_path).items():
        assert data == as_saved_by_jupyter(made[name.rpartition(", ")[0]])


def test_revert_finds_lines_that_were_moved_and_cells_that_were_split(
    flash_integrate: Run, tmp_path: Path
) -> None:
    call = CALL.rstrip("\n")
    write_all(tmp_path, {"chat": notebook(IMPORTS + "\n", call, WORK + "\n" + call)})
    commit_all(tmp_path)
    diff = flash_integrate(tmp_path, "--revert", "--dry-run").stdout
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    reverted = contents(tmp_path)
    assert [sources(data) for data in reverted.values()] == [[IMPORTS + "\n", "", WORK]] * len(
        WRITERS
    )
    git(tmp_path, "checkout", "-q", ".")
    apply(tmp_path, diff)
    assert contents(tmp_path) == reverted


def test_revert_leaves_a_notebook_alone_that_would_not_be_python_without_the_call(
    flash_integrate: Run, tmp_path: Path
) -> None:
    path = tmp_path / "chat.ipynb"
    indented = "if True:\n" + "".join(f"    {line}\n" for line in CALL.splitlines())
    broken = as_saved_by_jupyter(notebook(IMPORTS, indented))
    path.write_bytes(broken)
    result = flash_integrate(path, "--revert")
    assert result.returncode == 2
    assert b"would not be valid" in result.stderr
    assert path.read_bytes() == broken


def test_a_name_that_is_still_used_keeps_the_notebook_as_it_is_and_is_named_with_its_line(
    flash_integrate: Run, tmp_path: Path
) -> None:
    path = tmp_path / "chat.ipynb"
    path.write_bytes(
        as_saved_by_jupyter(notebook(IMPORTS + INSERTED + WORK, "print(enable_flash_attention)"))
    )
    result = flash_integrate(path, "--revert")
    lines = path.read_text(encoding="utf-8").split("\n")
    number = next(number for number, line in enumerate(lines, start=1) if "print(enable" in line)
    assert f"chat.ipynb:{number}" in result.stderr.decode()
    assert b"enable_flash_attention is used here" in result.stderr
    assert result.returncode == 2


# Fixtures


def test_before_becomes_after(flash_integrate: Run, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in CASES.glob("*.before.ipynb")}
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    assert flash_integrate(tmp_path).returncode == 0
    for name, data in contents(tmp_path).items():
        assert (
            data.decode() == (CASES / name.replace(".before.", ".after.")).read_bytes().decode()
        ), name
        nbformat.validate(nbformat.reads(data, as_version=nbformat.NO_CONVERT))
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    assert contents(tmp_path) == before


def test_noop_is_left_alone_with_a_reason(flash_integrate: Run, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in CASES.glob("*.noop.ipynb")}
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)
    result = flash_integrate(tmp_path, "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr
    outcomes = json.loads((tmp_path / "report.json").read_bytes())["files"]
    assert {outcome["path"] for outcome in outcomes} == set(before)
    for outcome in outcomes:
        assert outcome["status"] in ("skipped", "already-integrated")
        first = nbformat.reads(before[outcome["path"]], as_version=4).cells[0]
        assert first.source == "expect: " + outcome["reason"]
    assert contents(tmp_path) == before


# A tree


def test_a_tree_is_walked_for_notebooks_and_checkpoints_are_left_out(
    flash_integrate: Run, repo: Path
) -> None:
    for folder in (repo, repo / ".ipynb_checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / "chat.ipynb").write_bytes(as_saved_by_jupyter(notebook(IMPORTS + WORK)))
    result = flash_integrate(repo, "--check", "-v")
    assert result.returncode == 1
    assert b"2 would change" in result.stderr
    assert b"checkpoints" not in result.stderr


def test_notebooks_are_left_alone_where_only_scripts_are_asked_for(
    flash_integrate: Run, repo: Path
) -> None:
    (repo / "chat.ipynb").write_bytes(as_saved_by_jupyter(notebook(IMPORTS + WORK)))
    result = flash_integrate(repo, "--check", "--only", "argparse-script", "-v")
    assert b"1 would change" in result.stderr
    assert b"would be changed by notebook, which is left out" in result.stderr


@pytest.mark.parametrize(("option", "changed"), [("--only", "chat.ipynb"), ("--skip", "run.py")])
def test_notebooks_are_chosen_as_codemods_are(
    flash_integrate: Run, repo: Path, option: str, changed: str
) -> None:
    (repo / "chat.ipynb").write_bytes(as_saved_by_jupyter(notebook(IMPORTS + WORK)))
    assert (
        flash_integrate(repo, "--dry-run", option, "notebook").stdout.count(
            f"+++ b/{changed}\n".encode()
        )
        == 1
    )
    assert b"1 would change" in flash_integrate(repo, "--check", option, "notebook").stderr


def test_attention_is_reached_through_a_local_module(flash_integrate: Run, repo: Path) -> None:
    path = repo / "train.ipynb"
    path.write_bytes(
        as_saved_by_jupyter(notebook("x = 1", "from model import attention\n\nattention(64, 4)"))
    )
    result = flash_integrate(repo, "-v")
    assert b" -> model.py:" in result.stderr
    assert sources(path.read_bytes()) == [
        "x = 1",
        f"from model import attention\n{INSERTED}\nattention(64, 4)",
    ]


BROKEN = {
    "cut off": (b'{\n "cells": [\n  "mlx",\n }', 4, "not a notebook"),
    "no format": (b'{\n "cells": "import mlx_lm"\n}', 1, "not a notebook: it states no nbformat"),
    "a list": (b'["import mlx_lm"]', 1, "not a notebook: it states no nbformat"),
    "no cells": (b'{\n "nbformat": 4,\n "mlx": 1}', 1, "not a notebook: it has no list of cells"),
    "no source": (
        b'{"nbformat": 4, "cells": [\n{"cell_type": "code", "mlx": 1}]}',
        2,
        "cell 1 has no source",
    ),
    "numbers": (
        b'{"nbformat": 4, "cells": [\n{"cell_type": "code", "source": [1], "mlx": 1}]}',
        2,
        "has no source",
    ),
    "no Python": (
        b'{"nbformat": 4, "cells": [{"cell_type": "code", "source":\n["import mlx\\n",\n"x ="]}]}',
        3,
        "cell 1: ",
    ),
    "no UTF-8": (b'{"nbformat": 4,\n "name": "mlx \xff"}', 2, "not valid utf-8"),
    "nested": (b'{"mlx": ' + b"[" * 100_000, 1, "nested too deeply"),
}


def test_a_broken_notebook_is_reported_with_its_line_and_the_rest_is_done(
    flash_integrate: Run, repo: Path
) -> None:
    for name, (data, _, _) in BROKEN.items():
        (repo / f"{name}.ipynb").write_bytes(data)
    result = flash_integrate(repo, "--json", repo / "report.json")
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    outcomes = json.loads((repo / "report.json").read_bytes())["files"]
    failed = {outcome["path"]: outcome for outcome in outcomes if outcome["status"] == "failed"}
    assert set(failed) == {f"{name}.ipynb" for name in BROKEN}
    for name, (_, line, reason) in BROKEN.items():
        assert failed[f"{name}.ipynb"]["line"] == line
        assert reason in failed[f"{name}.ipynb"]["reason"]
    assert b"1 changed" in result.stderr
    for name, (data, _, _) in BROKEN.items():
        assert (repo / f"{name}.ipynb").read_bytes() == data


def test_a_broken_notebook_that_does_not_name_mlx_is_nobody_s_business(
    flash_integrate: Run, repo: Path
) -> None:
    (repo / "cut off.ipynb").write_bytes(b"{")
    (repo / "no cells.ipynb").write_bytes(b'{"nbformat": 4}')
    assert flash_integrate(repo).returncode == 0


# Magics


@pytest.mark.parametrize(
    ("cell", "python"),
    [
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("!pip install \\\n  mlx \\\n  mlx-lm\nx = 1", "\n\npass\nx = 1"),
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


# Edits of a source, for any source, in any chunks

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


# In a kernel

ATTENTION = """\
import mlx.core as mx
import mlx.nn as nn

mx.random.seed(3)"""
TRAIN = """\
%%time
layer = nn.MultiHeadAttention(64, 4)
x = mx.random.normal((2, 100, 64))
mask = nn.MultiHeadAttention.create_additive_causal_mask(100)
out = layer(x, x, x, mask)
best = mx.argmax(out, axis=-1)"""
SHOW = "print(best.sum(axis=0).tolist()[:20])"


def run_in_kernel(path: Path) -> tuple[str, str]:
    """What the notebook's last two code cells print: the result, and whether the runtime is in
    use."""
    made = nbformat.read(path, as_version=4)
    NotebookClient(
        made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    *_, shown, enabled = (cell for cell in made.cells if cell.cell_type == "code")
    return shown.outputs[0].text, enabled.outputs[0].text


def test_a_patched_notebook_runs_in_its_kernel_with_and_without_the_runtime(
    flash_integrate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "attention.ipynb"
    probe = "print(globals().get('enable_flash_attention') is not None)"
    path.write_bytes(as_saved_by_jupyter(notebook(ATTENTION, TRAIN, SHOW, probe)))
    unpatched, enabled = run_in_kernel(path)
    assert enabled == "False\n"

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime"))
    assert flash_integrate(path).returncode == 0
    with_runtime, enabled = run_in_kernel(path)
    assert enabled == "True\n"
    assert with_runtime == unpatched

    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "mlx_flash_runtime.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(missing))
    without_runtime, enabled = run_in_kernel(path)
    assert enabled == "False\n"
    assert without_runtime == unpatched
