"""Notebooks: only the source of one cell changes, in whatever way the file is written, and comes
back byte for byte."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import Run, commit_all, git
from nbclient import NotebookClient

from notebooks import (
    CALL,
    IMPORTS,
    INSERTED,
    ROOT,
    SOURCES,
    WORK,
    WRITERS,
    as_saved_by_jupyter,
    contents,
    notebook,
    sources,
    write_all,
)


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
