"""A repo brings its own VENDORED.json: what it names is neither read, written nor removed beyond
the copy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

import pytest
from hostile_run import SCRIPT, contents, is_patched, run

from flash_integrate.errors import FileError
from flash_integrate.vendor.runtime_copy import apply_plan, plan_removal, plan_vendor

VICTIM = b"precious\n"
DIGEST = hashlib.sha256(VICTIM).hexdigest()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo with a script and an empty copy, beside a file that is not its own."""
    repo = tmp_path / "repo"
    (repo / "mlx_flash_runtime").mkdir(parents=True)
    (repo / "run.py").write_text(SCRIPT)
    (repo / "own.py").write_bytes(VICTIM)
    (tmp_path / "victim").write_bytes(VICTIM)
    (tmp_path / "victim.py").write_bytes(VICTIM)
    (tmp_path / "mlx_flash_runtime.py").write_bytes(VICTIM)
    return repo


def put_manifest(repo: Path, text: str) -> None:
    (repo / "mlx_flash_runtime" / "VENDORED.json").write_text(text)


def name_files(repo: Path, *names: str) -> None:
    put_manifest(repo, json.dumps({"files": dict.fromkeys(names, DIGEST)}))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "../victim.py",
        "../mlx_flash_runtime.py",
        "mlx_flash_runtime/../../victim",
        "mlx_flash_runtime/../own.py",
        "sub/../../mlx_flash_runtime.py",
        "{outside}/victim",
        "{outside}/mlx_flash_runtime.py",
        "//{outside}/victim",
        "own.py",
        "run.py",
        ".git/config",
        "mlx_flash_runtime.py/own.py",
        "mlx_flash_runtime",
        "mlx_flash_runtime/VENDORED.json",
        "./own.py",
        ".",
        "..",
        "",
        "own.py\0mlx_flash_runtime.py",
        "mlx_flash_runtime/own.py\0",
        "mlx_flash_runtime/\ud800",
        "mlx_flash_runtime/" + "long" * 100,
    ],
)
def test_a_name_outside_the_copy_is_refused(repo: Path, name: str, force: bool) -> None:
    name_files(repo, name.format(outside=repo.parent))
    before = contents(repo.parent)
    with pytest.raises(FileError, match="mlx_flash_runtime/"):
        apply_plan(plan_removal(repo, [PurePosixPath("run.py")], force=force))
    with pytest.raises(FileError, match="mlx_flash_runtime/"):
        apply_plan(plan_vendor(repo, [PurePosixPath("run.py")], force=force))
    assert contents(repo.parent) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"files": []}',
        '{"files": {"a": 1',
        "\0",
        "[" * 100_000,
        '{"files": ' + "9" * 10_000 + "}",
    ],
    ids=["empty", "list", "null", "list of files", "broken", "NUL", "deep", "long number"],
)
def test_a_manifest_that_is_none_is_refused(repo: Path, text: str) -> None:
    put_manifest(repo, text)
    for plan in (plan_removal, plan_vendor):
        with pytest.raises(
            FileError, match=r"^mlx_flash_runtime/VENDORED\.json is not as --vendor wrote it$"
        ):
            plan(repo, [PurePosixPath("run.py")])


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_revert_after_a_clone_removes_nothing_else_and_reverts_the_scripts(
    repo: Path, force: list[str]
) -> None:
    run(repo)
    assert is_patched(repo / "run.py")
    name_files(repo, "../victim", str(repo.parent / "victim.py"))
    result = run(repo, "--revert", *force)
    assert result.returncode == 2
    assert "VENDORED.json names" in result.stderr
    assert (repo / "run.py").read_text() == SCRIPT
    assert (
        (repo.parent / "victim").read_bytes() == (repo.parent / "victim.py").read_bytes() == VICTIM
    )


def test_an_update_is_refused_before_anything_is_written(repo: Path) -> None:
    name_files(repo, "../victim")
    before = contents(repo.parent)
    result = run(repo, "--vendor", "--force")
    assert (result.returncode, "VENDORED.json names" in result.stderr) == (2, True)
    assert contents(repo.parent) == before


@pytest.mark.parametrize("target", ["{outside}/elsewhere", "src"])
@pytest.mark.parametrize("force", [False, True])
def test_a_copy_that_is_a_link_is_refused(repo: Path, target: str, force: bool) -> None:
    """It leads out of the repo, or to files of the repo that are no copy."""
    folder = repo / target.format(outside=repo.parent)
    folder.mkdir()
    (folder / "own.py").write_bytes(VICTIM)
    name_files(repo, "mlx_flash_runtime/own.py")
    (repo / "mlx_flash_runtime" / "VENDORED.json").rename(folder / "VENDORED.json")
    (repo / "mlx_flash_runtime").rmdir()
    (repo / "mlx_flash_runtime").symlink_to(folder)
    before = contents(repo.parent)
    for plan in (plan_removal, plan_vendor):
        with pytest.raises(FileError, match="by a link"):
            apply_plan(plan(repo, [PurePosixPath("run.py")], force=force))
    assert contents(repo.parent) == before


@pytest.mark.parametrize("name", ["mlx_flash_runtime/own.py", "mlx_flash_runtime.py"])
def test_a_file_of_the_copy_that_is_a_link_is_refused(repo: Path, name: str) -> None:
    (repo / name).symlink_to(repo.parent / "victim")
    name_files(repo, name)
    before = contents(repo.parent)
    with pytest.raises(FileError, match="by a link"):
        apply_plan(plan_removal(repo, [PurePosixPath("run.py")], force=True))
    assert contents(repo.parent) == before


def test_compiled_files_are_not_removed_through_a_link(repo: Path) -> None:
    outside = repo.parent / "outside"
    outside.mkdir()
    (outside / "own.cpython-311.pyc").write_bytes(VICTIM)
    (repo / "mlx_flash_runtime" / "own.py").write_bytes(VICTIM)
    (repo / "mlx_flash_runtime" / "__pycache__").symlink_to(outside)
    name_files(repo, "mlx_flash_runtime/own.py")
    apply_plan(plan_removal(repo, [PurePosixPath("run.py")]))
    assert not (repo / "mlx_flash_runtime" / "own.py").exists()
    assert (outside / "own.cpython-311.pyc").read_bytes() == VICTIM
