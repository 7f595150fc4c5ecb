"""A `.git` that names programs wherever git runs some: none of them runs, and what git has is told
all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hostile_run import Completed, checked

import forked
from flash_integrate.disk import committed
from flash_integrate.disk.committed import uncommitted
from flash_integrate.errors import FileError

SCRIPT = "from mlx_lm import load\n\nload('tiny')\n"
PROGRAMS = [
    *(
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.gitProxy",
        "core.askPass",
    ),
    *(
        "core.alternateRefsCommand",
        "pager.cat-file",
        "pager.check-attr",
        "pager.status",
        "credential.helper",
    ),
    *(
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "uploadpack.packObjectsHook",
        "gpg.program",
    ),
    *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process"),
]
HOOKS = [
    "fsmonitor-watchman",
    "post-index-change",
    "reference-transaction",
    "pre-auto-gc",
    "post-checkout",
]
PARTIAL_CLONE = {
    "core.repositoryFormatVersion": "1",
    "extensions.partialClone": "origin",
    "remote.origin.promisor": "true",
    "protocol.allow": "always",
    "protocol.ext.allow": "always",
}


def git(folder: Path, *args: str) -> str:
    identity = (
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "core.autocrlf=false",
    )
    command = ["git", *identity, *args]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def flash_integrate(*args: object, env: dict[str, str] | None = None) -> Completed:
    return checked(forked.flash_integrate(*args, env=os.environ | (env or {})))


def is_patched(path: Path) -> bool:
    return "enable_flash_attention" in path.read_text()


class Traps:
    """Programs that leave a mark when they are run, as a repo's configuration can name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)

    def program(self, name: str) -> str:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\ntouch '{self.marks / name}'\nexit 1\n")
        path.chmod(0o755)
        return str(path)

    def set_in(self, folder: Path) -> None:
        """Puts them into a checkout, in whose files git then sees a change that it has to look
        into."""
        (self.folder / "hooks").mkdir(exist_ok=True)
        for hook in HOOKS:
            self.program(f"hooks/{hook}")
        for key in PROGRAMS:
            git(folder, "config", key, self.program(key))
        git(folder, "config", "core.hooksPath", str(self.folder / "hooks"))
        (Path(git(folder, "rev-parse", "--absolute-git-dir")) / "info").mkdir(exist_ok=True)
        (Path(git(folder, "rev-parse", "--absolute-git-dir")) / "info" / "attributes").write_text(
            "*.py diff=evil\n"
        )
        for path in folder.glob("*.py"):
            os.utime(path, (1, 1))
        for hook in HOOKS:
            (self.marks / "hooks").mkdir(exist_ok=True)
            (self.marks / "hooks" / hook).unlink(missing_ok=True)
        self.sprung()

    def sprung(self) -> list[str]:
        """The programs that ran since this was last asked."""
        found = [path for path in self.marks.rglob("*") if path.is_file()]
        for path in found:
            path.unlink()
        return sorted(path.name for path in found)


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path / "traps")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return checkout(tmp_path / "repo")


def checkout(folder: Path, *options: str, attributes: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(SCRIPT)
    (folder / ".gitignore").write_text("scratch.py\n")
    if attributes:
        (folder / ".gitattributes").write_text(attributes)
    git(folder, "init", "-q", *options)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def test_nothing_runs_where_all_is_committed(repo: Path, traps: Traps) -> None:
    traps.set_in(repo)
    git(repo, "status")
    assert "core.fsmonitor" in traps.sprung()  # so they are traps
    assert flash_integrate(repo).returncode == 0
    assert is_patched(repo / "run.py")
    assert traps.sprung() == []


@pytest.mark.parametrize(
    "change", ["modified", "staged", "untracked", "ignored", "never committed"]
)
def test_nothing_runs_where_something_is_not(repo: Path, traps: Traps, change: str) -> None:
    path = repo / {"untracked": "new.py", "ignored": "scratch.py"}.get(change, "run.py")
    path.write_text(SCRIPT + "# more\n")
    if change == "staged":
        git(repo, "add", "-A")
    if change == "never committed":
        git(repo, "update-ref", "-d", "HEAD")
    traps.set_in(repo)
    traps.sprung()
    result = flash_integrate(path)
    assert result.returncode == 2
    assert f"\n  {path.name}\n" in result.stderr
    assert path.read_text() == SCRIPT + "# more\n"
    assert flash_integrate(path, "--force").returncode == 0
    assert is_patched(path)
    assert traps.sprung() == []


@pytest.mark.parametrize(
    "url", ["{repo}", "file://{repo}", "ext::{program}", "ssh://host/x", "git://127.0.0.1:1/x"]
)
def test_a_partial_clone_fetches_nothing(repo: Path, traps: Traps, url: str) -> None:
    """Its objects may be missing, and git has a program fetch what it is asked for."""
    traps.set_in(repo)
    address = url.format(repo=repo, program=traps.program("ext"))
    settings = PARTIAL_CLONE | {
        "remote.origin.url": address,
        "remote.origin.uploadpack": traps.program("uploadpack"),
    }
    for key, value in settings.items():
        git(repo, "config", key, value)
    blob = git(repo, "rev-parse", "HEAD:run.py")
    (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    subprocess.run(
        ["git", "cat-file", "-t", blob],
        cwd=repo,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert traps.sprung() != []
    result = flash_integrate(repo)
    assert (result.returncode, is_patched(repo / "run.py")) == (2, False)
    assert traps.sprung() == []


def test_a_git_folder_somewhere_in_an_archive(tmp_path: Path, traps: Traps) -> None:
    outer = checkout(tmp_path / "outer")
    traps.set_in(checkout(outer / "parts" / "inner"))
    pointed = checkout(outer / "pointed")
    (pointed / ".git").rename(outer / "elsewhere")
    (pointed / ".git").write_text("gitdir: ../elsewhere\n")
    traps.set_in(pointed)
    assert flash_integrate(outer).returncode == 0
    for folder in (outer, pointed, outer / "parts" / "inner"):
        assert is_patched(folder / "run.py")
    assert traps.sprung() == []


def test_a_folder_that_looks_like_a_bare_repo_is_none(
    repo: Path, tmp_path: Path, traps: Traps
) -> None:
    bare = tmp_path / "bare"
    (repo / ".git").rename(bare)
    (bare / "run.py").write_text(SCRIPT)
    (bare / ".git").mkdir()
    git(tmp_path, "config", "--file", str(bare / "config"), "core.bare", "true")
    git(
        tmp_path,
        "config",
        "--file",
        str(bare / "config"),
        "core.fsmonitor",
        traps.program("core.fsmonitor"),
    )
    result = flash_integrate(bare / "run.py")
    assert (result.returncode, is_patched(bare / "run.py")) == (2, False)
    assert "With --force" in result.stderr
    assert traps.sprung() == []


def test_a_submodule_with_a_configuration_of_its_own(
    repo: Path, tmp_path: Path, traps: Traps
) -> None:
    library = checkout(tmp_path / "library")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "library")
    git(repo, "commit", "-qm", "library")
    traps.set_in(repo / "library")
    git(repo, "status")
    assert traps.sprung() != []
    assert flash_integrate(repo).returncode == 0
    assert is_patched(repo / "library" / "run.py")
    assert traps.sprung() == []


def test_a_file_that_git_filters_is_uncertain(tmp_path: Path, traps: Traps) -> None:
    """As nbstripout and LFS do: only the filter could tell whether the file is what was
    committed."""
    repo = checkout(tmp_path / "repo", attributes="*.py filter=evil\n")
    traps.set_in(repo)
    assert flash_integrate(repo, "--check").returncode == 1
    # Of the same length: git has to look into it.
    (repo / "run.py").write_text(SCRIPT.replace("tiny", "huge"))
    subprocess.run(["git", "status"], cwd=repo, capture_output=True, timeout=60)
    assert "filter.evil.process" in traps.sprung()
    result = flash_integrate(repo)
    assert result.returncode == 2
    assert "run.py: git converts it (filter=evil)" in result.stderr
    assert flash_integrate(repo, "--force").returncode == 0
    assert traps.sprung() == []


def test_line_endings_that_git_may_convert_are_uncertain(tmp_path: Path) -> None:
    repo = checkout(tmp_path / "repo", attributes="*.py text eol=crlf\n")
    (repo / "run.py").unlink()
    git(repo, "checkout", "run.py")
    assert b"\r\n" in (repo / "run.py").read_bytes()
    assert git(repo, "status", "--porcelain") == ""
    result = flash_integrate(repo)
    assert result.returncode == 2
    assert "run.py: differs from git's copy in line endings alone" in result.stderr


def test_a_repo_with_longer_hashes(tmp_path: Path) -> None:
    repo = checkout(tmp_path / "repo", "--object-format=sha256")
    held = {repo / "run.py": SCRIPT.encode()}
    assert uncommitted(held) == {}
    assert uncommitted({repo / "run.py": b"other"}) == {repo / "run.py": ""}


def test_variables_that_speak_of_another_repo_are_not_heeded(repo: Path, tmp_path: Path) -> None:
    """A hook sets them, for its own repo."""
    other = checkout(tmp_path / "other")
    (other / "run.py").write_text("print()\n")
    git(other, "commit", "-qam", "another script")
    assert (
        flash_integrate(
            repo, env={"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}
        ).returncode
        == 0
    )
    assert is_patched(repo / "run.py")


def test_the_repo_of_another_user_is_asked_only_if_it_is_called_safe(repo: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repo, *repo.rglob("*")):
        os.chown(path, 12345, 12345)
    result = flash_integrate(repo, env={"HOME": str(repo)})
    assert (result.returncode, is_patched(repo / "run.py")) == (2, False)
    assert "safe.directory" in result.stderr
    safe = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(repo),
    }
    assert flash_integrate(repo, env={"HOME": str(repo), **safe}).returncode == 0
    assert is_patched(repo / "run.py")


def test_a_link_is_as_committed_as_the_file_it_leads_to(repo: Path) -> None:
    (repo / "link.py").symlink_to("run.py")
    assert uncommitted({repo / "link.py": SCRIPT.encode()}) == {}
    assert uncommitted({repo / "link.py": b"other"}) == {repo / "link.py": ""}


def test_a_git_folder_that_holds_a_pipe(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / ".git" / "config").unlink()
    os.mkfifo(repo / ".git" / "config")
    monkeypatch.setattr(committed, "_SECONDS", 1)
    with pytest.raises(FileError, match="has not answered for 1 seconds"):
        uncommitted({repo / "run.py": SCRIPT.encode()})
