"""The public repos on which the integrator is tried, read from clones at the commits that
`fixtures/corpus.json` names."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "fixtures" / "corpus.json"

# What the integrator and the formatters read, or may write.
SUFFIXES = {".py", ".pyi", ".ipynb", ".toml", ".cfg", ".ini", ".txt", ".md", ".sh", ".yml", ".yaml"}
NAMES = {"Makefile", "Dockerfile", ".gitignore", ".editorconfig"}


@dataclass(frozen=True)
class Repo:
    """A public repo at a commit, with the outcome that each script of it should have."""

    name: str
    commit: str
    scripts: tuple[dict[str, Any], ...]

    @property
    def address(self) -> str:
        return f"https://github.com/{self.name}"


def listed_repos(only: list[str] | None = None) -> list[Repo]:
    """The repos of the corpus, or those whose names hold one of the words of `only`."""
    found = []
    for item in json.loads(CORPUS.read_text())["repos"]:
        repo = Repo(item["name"], item["commit"], tuple(item["scripts"]))
        if not only or any(word in repo.name for word in only):
            found.append(repo)
    return found


def clone_of(repo: Repo, clones: Path) -> Path | None:
    """The git directory of a repo in a folder of clones, bare or not: `NAME`, `OWNER+NAME` or
    `OWNER/NAME`."""
    owner, _, name = repo.name.partition("/")
    for folder in (clones / f"{owner}+{name}", clones / owner / name, clones / name):
        for git in (folder / ".git", folder / "repo", folder):
            if (git / "HEAD").is_file():
                return git
    return None


def how_to_fetch(repos: list[Repo], clones: Path) -> str:
    """The commands that bring the repos to a folder of clones."""
    lines = []
    for repo in repos:
        folder = clones / repo.name.replace("/", "+")
        lines.append(f"git init -q {folder} && git -C {folder} fetch -q --depth 1 ")
        lines[-1] += f"{repo.address} {repo.commit} && git -C {folder} branch -f main FETCH_HEAD"
    return "\n".join(lines)


def unpack(repo: Repo, git: Path, folder: Path) -> None:
    """Writes the text files of the repo's commit to a folder, without its history. Links, and
    files that the clone does not hold, are left out.

    Raises LookupError where the clone does not have the commit.
    """
    listing = _git(git, "ls-tree", "-r", "-z", repo.commit)
    if listing.returncode:
        raise LookupError(f"{git} does not have {repo.commit} of {repo.name}")
    files = []
    for line in listing.stdout.split(b"\0"):
        entry, _, name = line.partition(b"\t")
        path = Path(name.decode())
        if entry.startswith(b"100") and _is_of_interest(path):
            files.append((entry.split()[2], path))
    wanted = b"\n".join(name for name, _ in files) + b"\n"
    contents = _git(git, "cat-file", "--batch", stdin=wanted).stdout
    start = 0
    for _, path in files:
        end = contents.index(b"\n", start)
        head = contents[start:end].split()
        start = end + 1
        if head[-1] == b"missing":
            continue
        size = int(head[2])
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[start : start + size])
        start += size + 1


def _is_of_interest(path: Path) -> bool:
    return path.suffix in SUFFIXES or path.name in NAMES


def _git(
    git: Path, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "--git-dir", str(git), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True)
