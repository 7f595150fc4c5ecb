"""The copy of the runtime in the target repo: scripts find it, updates are whole, what users
changed stays theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from conftest import commit_all, git

from flash_integrate.errors import FileError
from flash_integrate.vendor.copied_files import MANIFEST
from flash_integrate.vendor.runtime_copy import (
    apply_plan,
    needed_by,
    plan_removal,
    plan_vendor,
)

PATCHED = """\
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    enable_flash_attention = None
print(enable_flash_attention and enable_flash_attention())
"""
RUN, SUB, DEEP = (PurePosixPath(name) for name in ("run.py", "sub/run.py", "sub/deep/run.py"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the runtime's name on this process's path, with a submodule, a data file and
    compiled leftovers."""
    package = tmp_path / "site" / "mlx_flash_runtime"
    (package / "routes").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "__init__.py").write_text("from .patch import enable_flash_attention\n")
    (package / "patch.py").write_text(
        "from .routes import NAME\n\n\ndef enable_flash_attention():\n    return NAME\n"
    )
    (package / "routes" / "__init__.py").write_text("NAME = 'version 1'\n")
    (package / "tools").mkdir()
    (package / "tools" / "__init__.py").write_text("import click\n")
    (package / "py.typed").write_bytes(b"")
    (package / "LICENSE").write_text("MIT, no final newline")
    (package / "__pycache__" / "patch.cpython-311.pyc").write_bytes(b"compiled")
    monkeypatch.syspath_prepend(package.parent)
    # `find_spec` would return the spec of a runtime that another test has imported.
    monkeypatch.delitem(sys.modules, "mlx_flash_runtime", raising=False)
    return package


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Patched scripts at the top, in a folder and below it."""
    top = tmp_path / "repo"
    for script in (RUN, SUB, DEEP):
        (top / script).parent.mkdir(parents=True, exist_ok=True)
        (top / script).write_text(PATCHED)
    return top


def tree(top: Path) -> dict[str, bytes]:
    return {
        path.relative_to(top).as_posix(): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }


def start(*command: str, cwd: Path) -> str:
    """The output of a Python that sees only what the repo holds, and compiles as it does for a
    user."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    result = subprocess.run(
        [sys.executable, "-S", *command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def vendor(top: Path, *scripts: PurePosixPath, force: bool = False) -> list[PurePosixPath]:
    plan = plan_vendor(top, scripts, force=force)
    apply_plan(plan)
    return [change.name for change in plan.changes]


def test_every_script_finds_the_one_copy_however_it_is_started(installed: Path, repo: Path) -> None:
    assert start("sub/run.py", cwd=repo) == "None"
    vendor(repo, RUN, SUB, DEEP)
    assert start("run.py", cwd=repo) == "version 1"
    assert start("sub/run.py", cwd=repo) == "version 1"
    assert start("sub/deep/run.py", cwd=repo) == "version 1"
    assert start("run.py", cwd=repo / "sub") == "version 1"
    assert start("-m", "sub.run", cwd=repo) == "version 1"
    assert len(list(repo.rglob("patch.py"))) == 1


def test_a_package_is_served_from_above_and_from_within(installed: Path, repo: Path) -> None:
    package = repo / "src" / "pack"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "relative.py").write_text("from . import __name__\n" + PATCHED)
    (package / "absolute.py").write_text(PATCHED)
    names = vendor(repo, PurePosixPath("src/pack/relative.py"))
    assert PurePosixPath("src/mlx_flash_runtime.py") in names
    assert not (package / "mlx_flash_runtime.py").exists()
    assert start("-m", "pack.relative", cwd=repo / "src") == "version 1"
    vendor(repo, PurePosixPath("src/pack/absolute.py"))
    assert start("absolute.py", cwd=package) == "version 1"
    assert start("-m", "pack.absolute", cwd=repo / "src") == "version 1"


def test_relative_imports_lead_above_folders_without_init(installed: Path, repo: Path) -> None:
    (repo / "sub" / "deep" / "up.py").write_text("from ..other import x\n")
    names = vendor(repo, PurePosixPath("sub/deep/up.py"))
    assert not [name for name in names if name.name == "mlx_flash_runtime.py"]


def test_a_script_that_is_moved_away_from_the_copy_runs_on_stock_attention(
    installed: Path, repo: Path
) -> None:
    vendor(repo, SUB)
    (repo / "sub").rename(repo.parent / "elsewhere")
    assert start("run.py", cwd=repo.parent / "elsewhere") == "None"


def test_the_copy_is_what_scripts_need_without_the_command_and_what_python_compiled(
    installed: Path, repo: Path
) -> None:
    (installed / "spare.py").write_text("from .routes import NAME\n")
    (installed / "tools" / "table.json").write_text("{}")
    vendor(repo, RUN)
    copied = {path.name for path in (repo / "mlx_flash_runtime").rglob("*")}
    assert copied == {"__init__.py", "patch.py", "routes", "py.typed", "LICENSE", "VENDORED.json"}


def test_what_is_imported_when_it_is_called_and_what_a_program_of_its_own_imports_is_copied(
    installed: Path, repo: Path
) -> None:
    started = "BUILD = 'from mlx_flash_runtime.routes.build import build'\n"
    later = "def __getattr__(name):\n    from .later import f\n"
    (installed / "__init__.py").write_text(started + later)
    (installed / "later.py").write_text("from .routes import kernel\n")
    for name in ("build.py", "kernel.py", "kernel.metal"):
        (installed / "routes" / name).touch()
    vendor(repo, RUN)
    copied = {path.name for path in (repo / "mlx_flash_runtime" / "routes").iterdir()}
    assert copied == {"__init__.py", "build.py", "kernel.py", "kernel.metal"}
    assert (repo / "mlx_flash_runtime" / "later.py").exists()
    assert not (repo / "mlx_flash_runtime" / "patch.py").exists()


def test_a_second_run_changes_nothing_and_an_update_reaches_every_file(
    installed: Path, repo: Path
) -> None:
    vendor(repo, RUN, SUB)
    assert vendor(repo, RUN, SUB) == []
    (installed / "routes" / "__init__.py").write_text("from .new import NAME\n")
    (installed / "routes" / "new.py").write_text("NAME = 'version 2'\n")
    (installed / "py.typed").unlink()
    # Another script is named: the folders of earlier runs are kept.
    assert [name.as_posix() for name in vendor(repo, RUN)] == [
        "mlx_flash_runtime/py.typed",
        "mlx_flash_runtime/routes/__init__.py",
        "mlx_flash_runtime/routes/new.py",
        "mlx_flash_runtime/VENDORED.json",
    ]
    assert start("sub/run.py", cwd=repo) == "version 2"
    assert not (repo / "mlx_flash_runtime" / "py.typed").exists()


def test_what_was_modified_by_hand_stays_unless_forced(installed: Path, repo: Path) -> None:
    vendor(repo, RUN)
    patch = repo / "mlx_flash_runtime" / "patch.py"
    patch.write_text("def enable_flash_attention():\n    return 'mine'\n")
    (installed / "routes" / "__init__.py").write_text("NAME = 'version 2'\n")
    plan = plan_vendor(repo, [RUN])
    assert [name.as_posix() for name in plan.modified] == ["mlx_flash_runtime/patch.py"]
    apply_plan(plan)
    assert start("run.py", cwd=repo) == "mine"
    assert vendor(repo, RUN, force=True) == [PurePosixPath("mlx_flash_runtime/patch.py")]
    assert start("run.py", cwd=repo) == "version 2"


def test_an_update_of_a_modified_file_is_refused_as_a_whole(installed: Path, repo: Path) -> None:
    vendor(repo, RUN)
    (repo / "mlx_flash_runtime" / "patch.py").write_text("mine = True\n")
    (installed / "patch.py").write_text("def enable_flash_attention():\n    return 'version 2'\n")
    (installed / "routes" / "__init__.py").unlink()
    before = tree(repo)
    with pytest.raises(FileError, match=r"nothing was copied:\n  mlx_flash_runtime/patch.py$"):
        vendor(repo, RUN)
    assert tree(repo) == before
    vendor(repo, RUN, force=True)
    assert start("run.py", cwd=repo) == "version 2"


def test_a_file_of_that_name_which_is_the_users_own_is_refused(installed: Path, repo: Path) -> None:
    (repo / "sub" / "mlx_flash_runtime.py").write_text("mine = True\n")
    with pytest.raises(FileError, match=r"sub/mlx_flash_runtime.py"):
        vendor(repo, SUB)
    assert not (repo / "mlx_flash_runtime").exists()


def test_removal_gives_back_the_tree_as_it_was(installed: Path, repo: Path) -> None:
    before = tree(repo)
    vendor(repo, RUN, SUB, DEEP)
    start("sub/run.py", cwd=repo)  # leaves compiled files behind
    apply_plan(plan_removal(repo, [RUN, SUB, DEEP]))
    assert tree(repo) == before
    assert {path.name for path in repo.rglob("*") if path.is_dir()} == {"sub", "deep"}


def test_nothing_is_removed_while_a_script_still_imports_it(installed: Path, repo: Path) -> None:
    vendor(repo, RUN, SUB, DEEP)
    assert sorted(needed_by(repo)) == [RUN, DEEP, SUB]
    assert plan_removal(repo, [RUN, SUB]).changes == ()
    assert plan_removal(repo, [RUN, SUB, DEEP]).changes != ()


@pytest.mark.parametrize("mark", ["\ufeff", "\f"], ids=ascii)
def test_nor_while_one_imports_it_in_its_first_line(installed: Path, repo: Path, mark: str) -> None:
    vendor(repo, RUN)
    (repo / RUN).write_text(f"{mark}import mlx_flash_runtime\n")
    assert RUN in needed_by(repo)


def test_a_notebook_that_imports_it_counts(installed: Path, repo: Path) -> None:
    vendor(repo, RUN, SUB, DEEP)
    source = (
        '"source": "import os\\ntry:\\n    from mlx_flash_runtime import enable_flash_attention"'
    )
    (repo / "chat.ipynb").write_text('{"cells": [{"cell_type": "code", ' + source + "}]}")
    assert plan_removal(repo, [RUN, SUB, DEEP]).changes == ()


def test_removal_leaves_what_was_modified_and_still_knows_it_later(
    installed: Path, repo: Path
) -> None:
    vendor(repo, SUB)
    before = tree(repo)
    (repo / "mlx_flash_runtime" / "patch.py").write_text("mine = True\n")
    plan = plan_removal(repo, [RUN, SUB, DEEP])
    assert plan.modified == (PurePosixPath("mlx_flash_runtime/patch.py"),)
    apply_plan(plan)
    assert tree(repo).keys() - {"run.py", "sub/run.py", "sub/deep/run.py"} == {
        "mlx_flash_runtime/patch.py",
        str(MANIFEST),
    }
    vendor(repo, SUB, force=True)
    assert tree(repo) == before


def test_the_diffs_are_what_git_applies(installed: Path, repo: Path) -> None:
    commit_all(repo)
    diff = repo.parent / "vendor.diff"
    steps = [lambda: plan_vendor(repo, [RUN, SUB]), lambda: plan_removal(repo, [RUN, SUB, DEEP])]
    for make_plan in steps:
        plan = make_plan()
        diff.write_bytes(b"".join(line for change in plan.changes for line in change.diff()))
        git(repo, "apply", "--index", str(diff))
        applied = tree(repo / "mlx_flash_runtime"), tree(repo / "sub")
        git(repo, "reset", "-q", "--hard")
        git(repo, "clean", "-qfd")
        apply_plan(plan)
        assert (tree(repo / "mlx_flash_runtime"), tree(repo / "sub")) == applied
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", "step")


def test_an_update_is_a_diff_of_the_changed_lines(installed: Path, repo: Path) -> None:
    vendor(repo, RUN)
    (installed / "LICENSE").write_text("MIT\n")
    [license_change, _] = plan_vendor(repo, [RUN]).changes
    assert b"".join(license_change.diff()).splitlines()[3:] == [
        b"@@ -1 +1 @@",
        b"-MIT, no final newline",
        b"\\ No newline at end of file",
        b"+MIT",
    ]


def test_the_runtime_is_found_without_being_imported(installed: Path, repo: Path) -> None:
    (installed / "__init__.py").write_text("raise RuntimeError('imported')\n")
    assert vendor(repo, RUN)


def test_without_the_runtime_the_error_says_how_to_install_it(repo: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from flash_integrate.vendor.runtime_copy import plan_vendor\n"
        "sys.path[:] = [path for path in sys.path "
        "if not (pathlib.Path(path) / 'mlx_flash_runtime').exists()]\n"
        "plan_vendor(pathlib.Path('.'), [])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert "-m pip install ./runtime" in result.stderr


@pytest.mark.parametrize("script", [RUN, SUB])
def test_the_copy_is_not_taken_for_the_installed_package(
    installed: Path, repo: Path, script: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor(repo, SUB)
    monkeypatch.syspath_prepend((repo / script).parent)
    with pytest.raises(FileError, match="is itself a copy made by --vendor"):
        plan_vendor(repo, [RUN])


def test_a_manifest_that_can_not_be_read_stops_the_run(installed: Path, repo: Path) -> None:
    vendor(repo, RUN)
    (repo / MANIFEST).write_text("[]")
    with pytest.raises(FileError, match="is not as --vendor wrote it"):
        plan_vendor(repo, [RUN])


REPORTS = """\
import sys

import mlx.core as mx
from mlx_flash_runtime import enable_flash_attention, report

read = []
sys.addaudithook(lambda event, args: read.append(str(args[0])) if event == "open" else None)
enable_flash_attention()
x = mx.random.normal((1, 2, 8, 64))
mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=0.125))
print(report())
print(*read, sep="\\n", file=sys.stderr)
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "mlx_flash_runtime":
        print(module.__file__, file=sys.stderr)
"""
ON_DEMAND = {
    "kernels/cpu/build.py": "a process that compiles",
    "attention.py": "what `__init__` gives when it is asked for",
    "ops/alignment.py": "what `attention.py` imports",
}


def test_a_vendored_script_runs_patched_and_reports_with_no_file_too_many(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(REPORTS)
    vendor(tmp_path, RUN)
    result = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "MLX_FLASH_BUILD": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 call" in result.stdout
    copy = tmp_path / "mlx_flash_runtime"
    used = {Path(line) for line in result.stderr.split("\n")}
    left = [path for path in copy.rglob("*") if path.is_file() and path not in used]
    code = {path for path in left if path.suffix == ".py"}
    kernels = {path for path in left if copy / "kernels" in path.parents} - code
    assert {path.relative_to(copy).as_posix() for path in code} == set(ON_DEMAND)
    assert {path.name for path in {*left} - code - kernels} == {
        "LICENSE",
        "py.typed",
        MANIFEST.name,
    }
    # What a compiler reads, here or for another device, is named: by its name or its suffix.
    texts = "".join(path.read_text() for path in (copy / "kernels").rglob("*.*") if path.is_file())
    assert [p for p in kernels if p.name not in texts and f"*{p.suffix}" not in texts] == []
