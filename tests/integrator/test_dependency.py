"""Where the runtime is asked for, by which address, and what a run says of it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from conftest import commit_all, git
from marked import pair
from packaging.requirements import Requirement

from flash_integrate.vendor.dependency import (
    Manifest,
    added,
    find_manifests,
    lock_commands,
    removed,
    suggestion,
)
from flash_integrate.vendor.origin import Origin, origin
from flash_integrate.vendor.pyproject_toml import (
    add_to_pyproject,
    remove_from_pyproject,
)
from flash_integrate.vendor.requirement import (
    CannotAdd,
    requirement_beside,
)
from flash_integrate.vendor.requirements_txt import (
    add_to_requirements,
    remove_from_requirements,
)

INDEX = Origin()


GIT = Origin(git="https://example.org/owner/repo")


ADDRESS = "mlx-flash-runtime @ git+https://example.org/owner/repo#subdirectory=runtime"


ADDRESSED = {
    "requirements": f"mlx\n«{ADDRESS}\n»",
    "requirements with a marker": (
        f"mlx; sys_platform == 'darwin'\n«{ADDRESS} ; sys_platform == 'darwin'\n»"
    ),
    "array": f'[project]\ndependencies = ["mlx"«, "{ADDRESS}"»]\n',
    "group": f'[dependency-groups]\nrun = [\n  "mlx",\n«  "{ADDRESS}",\n»]\n',
    "Poetry": (
        '[tool.poetry.dependencies]\nmlx = "*"\n«mlx-flash-runtime = '
        '{ git = "https://example.org/owner/repo", subdirectory = "runtime" }\n»'
    ),
}


@pytest.mark.parametrize("marked", ADDRESSED.values(), ids=ADDRESSED)
def test_until_it_is_published_its_address_is_written(marked: str) -> None:
    before, after = pair(marked)
    is_toml = marked.startswith("[")
    add = add_to_pyproject if is_toml else add_to_requirements
    remove = remove_from_pyproject if is_toml else remove_from_requirements
    assert add(before, GIT) == after
    assert add(after, GIT) == add(after, INDEX) == after
    assert remove(after) == before


def test_what_is_written_is_a_requirement_that_packaging_reads() -> None:
    folder = Origin(folder="/clones/flash integrate/runtime")
    for source, url in [
        (GIT, "git+https://example.org/owner/repo#subdirectory=runtime"),
        (folder, "file:///clones/flash%20integrate/runtime"),
    ]:
        text = requirement_beside(["mlx; os_name == 'nt'"], source.requirement)
        parsed = Requirement(text)
        assert (parsed.name, parsed.url) == ("mlx-flash-runtime", url)
        assert str(parsed.marker) == 'os_name == "nt"'


def test_hatchling_takes_an_address_only_where_it_is_told_to() -> None:
    head = '[build-system]\nbuild-backend = "hatchling.build"\n[project]\ndependencies = ["mlx"]\n'
    with pytest.raises(CannotAdd, match="allow-direct-references"):
        add_to_pyproject(head.encode(), GIT)
    allowed = f"{head}[tool.hatch.metadata]\nallow-direct-references = true\n"
    assert ADDRESS.encode() in add_to_pyproject(allowed.encode(), GIT)
    assert b'"mlx-flash-runtime"' in add_to_pyproject(head.encode(), INDEX)


CLONE_OF = {
    "https://user:secret@example.org/owner/repo.git": "https://example.org/owner/repo.git",
    "git@example.org:owner/repo.git": "ssh://git@example.org/owner/repo.git",
    "ssh://git@example.org/owner/repo": "ssh://git@example.org/owner/repo",
}


@pytest.mark.parametrize("remote", [*CLONE_OF, "/mirrors/repo.git", None])
def test_the_address_is_that_of_the_clone_or_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str | None
) -> None:
    clone = tmp_path / "clone"
    (clone / "runtime").mkdir(parents=True)
    git(clone, "init", "-q")
    if remote:
        git(clone, "remote", "add", "origin", remote)
    installed(
        tmp_path, monkeypatch, {"url": (clone / "runtime").as_uri(), "dir_info": {"editable": True}}
    )
    known = CLONE_OF.get(remote or "")
    assert origin() == (Origin(git=known) if known else Origin(folder=str(clone / "runtime")))


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (None, Origin()),
        (
            {"url": "https://example.org/o/r", "vcs_info": {"vcs": "git"}, "subdirectory": "x"},
            Origin(git="https://example.org/o/r"),
        ),
        ({"url": "https://example.org/runtime-0.1.whl", "archive_info": {}}, Origin()),
    ],
)
def test_one_from_an_index_is_asked_for_by_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: dict[str, object] | None,
    expected: Origin,
) -> None:
    installed(tmp_path, monkeypatch, recorded)
    assert origin() == expected


def installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, object] | None
) -> None:
    """Puts a package of the runtime's name in front of this process's path."""
    metadata = folder / "site" / "mlx_flash_runtime-9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: mlx-flash-runtime\nVersion: 9\n")
    if recorded is not None:
        (metadata / "direct_url.json").write_text(json.dumps(recorded))
    monkeypatch.syspath_prepend(metadata.parent)


def write_files(top: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)


def names(manifests: list[Manifest]) -> list[str]:
    return [str(manifest.name) for manifest in manifests]


def test_the_nearest_manifests_that_list_mlx_are_found(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "requirements.txt": "mlx\n",
            "requirements-dev.txt": "pytest\n",
            "llama/requirements.txt": "mlx-lm\n",
            "llama/pyproject.toml": '[project]\ndependencies = ["mlx"]\n',
            "tools/requirements.txt": "numpy\n",
            "other/requirements.txt": "mlx\n",
        },
    )
    scripts = [
        PurePosixPath(name) for name in ("llama/deep/run.py", "tools/run.py", "llama/chat.py")
    ]
    found = ["llama/pyproject.toml", "llama/requirements.txt", "requirements.txt"]
    assert names(find_manifests(tmp_path, scripts).found) == found
    assert names(find_manifests(tmp_path, scripts[:1]).found) == found[:2]
    assert find_manifests(tmp_path, []).found == []


def test_a_broken_manifest_is_named_and_hides_no_other(tmp_path: Path) -> None:
    write_files(tmp_path, {"sub/pyproject.toml": "[project\n", "sub/requirements.txt": "mlx\n"})
    manifests = find_manifests(tmp_path, [PurePosixPath("sub/run.py")])
    assert [str(manifest.name) for manifest in manifests.found] == ["sub/requirements.txt"]
    [problem] = manifests.problems
    assert problem.startswith("sub/pyproject.toml: not valid TOML")


def test_the_diffs_are_what_git_applies(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "mlx",
        "a/requirements.txt": "numpy\nmlx\n",
        "b/pyproject.toml": '[project]\ndependencies = ["mlx"]\n',
        "c/pyproject.toml": '[project]\ndependencies = [\n  "mlx",\n]\n',
    }
    write_files(tmp_path, files)
    commit_all(tmp_path)
    scripts = [PurePosixPath(name).parent / "run.py" for name in files]
    for change, whole in [(lambda manifest: added(manifest, INDEX), 3), (removed, 3)]:
        edits = [change(manifest) for manifest in find_manifests(tmp_path, scripts).found]
        assert sum(edit.lines is not None for edit in edits) == whole
        diff = tmp_path.parent / "dependency.diff"
        diff.write_bytes(b"".join(line for edit in edits for line in edit.diff()))
        git(tmp_path, "apply", str(diff))
        assert [edit.path.read_bytes() for edit in edits] == [edit.after for edit in edits]
    assert git(tmp_path, "status", "--porcelain") == b""


def test_the_suggestion_names_what_is_missing_and_why_it_is_not_done(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "requirements.txt": "mlx\n",
            "requirements-dev.txt": "mlx\nmlx-flash-runtime\n",
            "requirements-lock.txt": "# autogenerated by uv\nmlx==0.30\n",
        },
    )
    scripts = [PurePosixPath("run.py")]
    assert suggestion(find_manifests(tmp_path, scripts).found, INDEX) == [
        "Add 'mlx-flash-runtime' to requirements.txt; --add-dependency does it.",
        "requirements-lock.txt is generated: "
        "add mlx-flash-runtime to the file that it is made from.",
    ]
    (tmp_path / "requirements-lock.txt").unlink()
    (tmp_path / "requirements.txt").write_text("mlx\nmlx-flash-runtime\n")
    assert suggestion(find_manifests(tmp_path, scripts).found, INDEX) == []
    [told] = suggestion([], INDEX)
    assert told.endswith("Where the scripts run: pip install mlx-flash-runtime")


def test_lock_files_beside_an_edited_pyproject_are_to_be_renewed(tmp_path: Path) -> None:
    write_files(tmp_path, {"pyproject.toml": '[project]\ndependencies = ["mlx"]\n', "uv.lock": ""})
    [manifest] = find_manifests(tmp_path, [PurePosixPath("run.py")]).found
    assert lock_commands([added(manifest, INDEX)]) == ["uv lock"]
    assert lock_commands([removed(manifest)]) == []
