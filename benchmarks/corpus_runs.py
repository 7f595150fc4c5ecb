"""Runs a version of flash-integrate on one public repo, and says what came of it."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from corpus_repos import Repo, unpack

FLAG = "--disable-flash-attention"
CALL = "enable_flash_attention"
REWRITTEN = "attention rewritten"
"""What becomes of a model's file that gains neither flags nor the call."""
ROOT = Path(__file__).parents[1]
FORMATTERS = {
    "black": ["black", "--check"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    "isort": ["isort", "--check-only", "--profile", "black"],
}
# Black, ruff and isort name each file that they would change, or can't read.
_NAMED = re.compile(r"(?:would reformat|cannot format|Would reformat:|-->|ERROR:) (.+?\.py)\b")
_LACKS_IMPORT = ("ModuleNotFoundError", "ImportError")


@dataclass(frozen=True)
class Tool:
    """A version of flash-integrate: the folder that holds its `integrator/` and `codemods/`."""

    label: str
    folder: Path

    def run(self, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(self.folder / name) for name in ("integrator", "codemods"))
        command = [sys.executable, "-m", "flash_integrate", str(target), *options]
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=environment
        )


@dataclass
class Seen:
    """What a version of the tool did to one repo."""

    diffs: dict[str, list[str]] = field(default_factory=dict)
    """Per changed file the lines of its unified diff, without the two names."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """Per changed file `flags+patch`, `patch-only` or `attention rewritten`."""
    seconds: float = 0.0
    passed: dict[str, list[str]] = field(default_factory=dict)
    """Per formatter the changed files that it passed before."""
    broken: dict[str, list[str]] = field(default_factory=dict)
    """Per formatter those of them that it does not pass any more."""
    help_shown: list[str] = field(default_factory=list)
    help_not_importable: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def hunks(self) -> int:
        return sum(line.startswith("@@") for diff in self.diffs.values() for line in diff)

    @property
    def added(self) -> int:
        return sum(line.startswith("+") for diff in self.diffs.values() for line in diff)


def try_on(repo: Repo, git: Path, tool: Tool, *, formatters: bool, run_help: bool) -> Seen:
    """Applies, applies again and reverts, in a copy of the repo; `run_help` also runs the patched
    scripts with `--help`, which runs the repo's own code."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / repo.name.rpartition("/")[2]
        unpack(repo, git, folder)
        before = contents(folder)
        scripts = [path for path in before if path.endswith(".py")]
        start = time.perf_counter()
        _apply(tool, folder, seen)
        seen.seconds = time.perf_counter() - start
        after = contents(folder)
        changed = sorted(path for path in before if after.get(path) != before[path])
        for path in changed:
            seen.diffs[path] = diff(before[path], after[path])
            seen.outcomes[path] = _outcome(path, after[path])
        changed_scripts = [path for path in changed if path in set(scripts)]
        _compile(changed_scripts, before, after, seen)
        if run_help:
            for path in changed_scripts:
                if FLAG.encode() in after[path]:
                    _show_help(folder, path, seen)
        rejected_after = _rejected(folder, changed_scripts) if formatters else {}
        _apply(tool, folder, seen)
        if contents(folder) != after:
            seen.problems.append("a second run changed something")
        _apply(tool, folder, seen, "--revert")
        if contents(folder) != before:
            seen.problems.append("--revert did not give back every byte")
        if formatters:
            _compare_formatters(_rejected(folder, changed_scripts), rejected_after, seen)
    return seen


def _outcome(path: str, after: bytes) -> str:
    """What became of a changed file."""
    if FLAG.encode() in after:
        return "flags+patch"
    without_call = path.endswith(".py") and CALL.encode() not in after
    return REWRITTEN if without_call else "patch-only"


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it, but those that running its code leaves
    behind."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


def diff(before: bytes, after: bytes) -> list[str]:
    """The lines of a unified diff, without the two names at its head."""
    old, new = (data.decode(errors="replace").splitlines() for data in (before, after))
    return list(difflib.unified_diff(old, new, lineterm=""))[2:]


def _apply(tool: Tool, folder: Path, seen: Seen, *options: str) -> None:
    run = tool.run(folder, *options)
    # 2 where a file of the repo is no Python: the tool names it and goes on.
    broken = [path for path in folder.rglob("*.py") if _error(path.read_bytes()) is not None]
    if run.returncode not in (0, 2 if broken else 0):
        words = " ".join(["flash-integrate", *options])
        seen.problems.append(f"{words} exited with {run.returncode}: {run.stderr.strip()}")


def _compile(
    paths: list[str], before: dict[str, bytes], after: dict[str, bytes], seen: Seen
) -> None:
    for path in paths:
        # A file may be written for a newer Python than this one.
        if _error(before[path]) is None and (error := _error(after[path])) is not None:
            seen.problems.append(f"{path}: does not compile: {error}")


def _error(data: bytes) -> str | None:
    """Why a file is no Python, None if it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(data, "file", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return str(error)
    return None


def _rejected(folder: Path, paths: list[str]) -> dict[str, set[str]]:
    """Per formatter the files that it would write in another way, as the repo configures it."""
    found: dict[str, set[str]] = {}
    for name, (program, *options) in FORMATTERS.items():
        # Not `python -m`, which would take modules from the repo.
        command = [str(Path(sys.executable).with_name(program)), *options, *paths]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        named = _NAMED.findall(run.stdout + run.stderr)
        found[name] = {os.path.relpath(folder / path, folder) for path in named}
        if run.returncode and not named:  # a configuration that this formatter does not take
            found[name] = set(paths)
    return found


def _compare_formatters(
    before: dict[str, set[str]], after: dict[str, set[str]], seen: Seen
) -> None:
    for name in FORMATTERS:
        scripts = [path for path in seen.diffs if path.endswith(".py")]
        seen.passed[name] = [path for path in scripts if path not in before[name]]
        seen.broken[name] = [path for path in seen.passed[name] if path in after[name]]


def _show_help(folder: Path, path: str, seen: Seen) -> None:
    """Whether a patched script shows the flags in its help, where its imports are installed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
    module = path.removesuffix(".py").replace("/", ".")
    in_package = (folder / path).with_name("__init__.py").exists()
    target = ["-m", module] if in_package else [Path(path).name]
    where = folder if in_package else (folder / path).parent
    command = [sys.executable, *target, "--help"]
    try:
        run = subprocess.run(
            command, cwd=where, capture_output=True, text=True, timeout=120, env=environment
        )
    except subprocess.TimeoutExpired:
        seen.problems.append(f"{path}: --help did not end within two minutes")
        return
    if any(word in run.stderr for word in _LACKS_IMPORT):
        seen.help_not_importable.append(path)
    elif run.returncode == 0 and FLAG in run.stdout:
        seen.help_shown.append(path)
    elif run.returncode == 0 and not run.stdout:
        # Its main() is called by an installed command alone.
        seen.help_not_importable.append(path)
    else:
        last = run.stderr.strip()[-300:]
        seen.problems.append(f"{path}: --help exited with {run.returncode}: {last}")
