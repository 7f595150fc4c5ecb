"""Which notebooks of a tree are changed, which are left alone and why, which are broken."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from conftest import Run

from notebooks import (
    CASES,
    IMPORTS,
    INSERTED,
    WORK,
    as_saved_by_jupyter,
    contents,
    notebook,
    sources,
)


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


def test_what_a_shell_runs_is_not_covered(flash_integrate: Run, tmp_path: Path) -> None:
    shell = """!pip install mlx_lm
!mlx_lm.convert --hf-path model
!python3 -m mlx_lm.lora \\
    --train
for prompt in prompts:
    !mlx_lm generate --prompt {prompt}
!mlx_whisper speech.mp3
"""
    path = tmp_path / "chat.ipynb"
    path.write_bytes(as_saved_by_jupyter(notebook(IMPORTS, shell, WORK)))
    result = flash_integrate(tmp_path, "--dry-run")
    text = path.read_text(encoding="utf-8").splitlines()
    for command in ("mlx_lm.lora", "mlx_lm generate"):
        line = next(number for number, line in enumerate(text, 1) if command in line)
        said = (
            f"chat.ipynb:{line}: not covered: the command {command}: a shell runs it in a process "
            f"of its own; python -m mlx_flash_runtime -m {command} ... has flash attention there"
        )
        assert said in " ".join(result.stderr.decode().split())
    assert result.stderr.count(b"not covered") == 2


def test_a_tree_is_walked_for_notebooks_and_hidden_folders_are_left_out(
    flash_integrate: Run, repo: Path
) -> None:
    for folder in (repo, repo / ".ipynb_checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / "chat.ipynb").write_bytes(as_saved_by_jupyter(notebook(IMPORTS + WORK)))
    virtual = repo / ".virtual_documents" / "chat.ipynb"  # of jupyterlab-lsp: no notebook
    virtual.parent.mkdir()
    virtual.write_text(WORK)
    trial = repo / ".runs" / "trial.py"
    trial.parent.mkdir()
    trial.write_text("``\nimport mlx\n")
    result = flash_integrate(repo, "--check", "-v")
    assert result.returncode == 1
    assert b"2 would change" in result.stderr
    assert b"checkpoints" not in result.stderr
    assert b"virtual" not in result.stderr
    assert b"trial" not in result.stderr


def test_attention_by_hand_in_a_notebook_is_noted(flash_integrate: Run, repo: Path) -> None:
    cell = "import mlx.core as mx\n\ndef attend(q, k, v):\n"
    cell += "    return mx.softmax(q @ k.swapaxes(-1, -2), axis=-1) @ v\n"
    repo.mkdir(exist_ok=True)
    (repo / "chat.ipynb").write_bytes(as_saved_by_jupyter(notebook(cell)))
    result = flash_integrate(repo / "chat.ipynb", "--check")
    said = b"attention written by hand stays as it is: in notebooks and on standard input it is not"
    assert said in b" ".join(result.stderr.split())


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
