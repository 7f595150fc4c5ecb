"""Runs flash-integrate over checkouts of public MLX repos and holds the result against what is
expected of each script.

    git clone https://github.com/ml-explore/mlx-examples checkouts/mlx-examples
    python benchmarks/corpus.py checkouts

The first line for every repo of fixtures/corpus.json, at the commit that it names. Works on
copies. Per repo: scripts that end as expected, other files that changed, patched files that
compile, patched scripts whose `--help` shows the flags (of those whose imports are installed
here), and whether a second run changes nothing and `--revert` gives back every byte. Exits with 1
if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

EXPECTATIONS = Path(__file__).parents[1] / "fixtures" / "corpus.json"
FLAG = "--disable-flash-attention"


@dataclass
class Result:
    """What was seen of one repo; `problems` are the things that are not as they should be."""

    name: str
    listed: int = 0
    as_expected: int = 0
    changed: int = 0
    help_shown: int = 0
    help_not_importable: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkouts", type=Path, help="folder that holds the repos, each in a folder of its own name"
    )
    args = parser.parse_args()
    repos = json.loads(EXPECTATIONS.read_text())["repos"]
    missing = [repo["name"] for repo in repos if not (args.checkouts / folder_of(repo)).is_dir()]
    if missing:
        parser.error(f"not in {args.checkouts}: {', '.join(missing)}")
    results = [
        examine(repo, args.checkouts)
        for repo in track(repos, description="repos", console=Console(stderr=True))
    ]
    print_table(results)
    return 1 if any(result.problems for result in results) else 0


def folder_of(repo: dict[str, Any]) -> str:
    return str(repo["name"]).partition("/")[2]


def examine(repo: dict[str, Any], checkouts: Path) -> Result:
    """Applies, compares, runs and reverts in a copy of one repo."""
    result = Result(repo["name"])
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder_of(repo)
        shutil.copytree(
            checkouts / copy.name, copy, symlinks=True, ignore=shutil.ignore_patterns(".git")
        )
        before = contents(copy)
        integrate(copy, result)
        after = contents(copy)
        compare(repo, before, after, result)
        for path in (path for path in after if after[path] != before[path]):
            check_patched(copy, path, after[path], result)
        integrate(copy, result)
        if contents(copy) != after:
            result.problems.append("a second run changed something")
        integrate(copy, result, "--revert")
        if contents(copy) != before:
            result.problems.append("--revert did not give back every byte")
    return result


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*.py") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def integrate(folder: Path, result: Result, *options: str) -> None:
    command = [sys.executable, "-m", "flash_integrate", str(folder), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        result.problems.append(
            f"flash-integrate {' '.join(options)} exited with {run.returncode}: {run.stderr}"
        )


def compare(
    repo: dict[str, Any], before: dict[str, bytes], after: dict[str, bytes], result: Result
) -> None:
    """Holds each file's outcome against the expectation; a file that is not listed is to be
    skipped."""
    expected = {script["path"]: script for script in repo["scripts"]}
    result.listed = len(expected)
    for path in sorted(set(before) | set(expected)):
        outcome = "skip" if before.get(path) == after.get(path) else "patch-only"
        if outcome != "skip" and FLAG.encode() in after[path]:
            outcome = "flags+patch"
        result.changed += outcome != "skip"
        script = expected.get(path, {"expect": "skip", "also_ok": []})
        if outcome in (script["expect"], *script["also_ok"]):
            result.as_expected += path in expected
        else:
            result.problems.append(f"{path}: {outcome}, expected {script['expect']}")


def check_patched(copy: Path, path: str, data: bytes, result: Result) -> None:
    """A patched file compiles; a script with the flags shows them in its help, where its imports
    are installed."""
    try:
        compile(data, path, "exec")
    except SyntaxError as error:
        result.problems.append(f"{path}: does not compile: {error}")
        return
    if FLAG.encode() not in data:
        return
    environment = {**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"}
    name = path.removesuffix(".py").replace("/", ".")
    package = (copy / path).with_name("__init__.py").exists()
    target = ["-m", name] if package else [Path(path).name]
    folder = copy if package else (copy / path).parent
    command = [sys.executable, *target, "--help"]
    run = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment
    )
    if "ModuleNotFoundError" in run.stderr or "ImportError" in run.stderr:
        result.help_not_importable += 1
    elif run.returncode == 0 and FLAG in run.stdout:
        result.help_shown += 1
    elif run.returncode == 0 and not run.stdout:
        result.help_not_importable += 1  # its main() is called by an installed command alone
    else:
        result.problems.append(f"{path}: --help exited with {run.returncode}: {run.stderr[-300:]}")


def print_table(results: list[Result]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(
        "repo",
        "as expected",
        "changed",
        "--help shows the flags",
        "not importable here",
        "problems",
    )
    for result in results:
        table.add_row(
            result.name,
            f"{result.as_expected} of {result.listed}",
            str(result.changed),
            str(result.help_shown),
            str(result.help_not_importable),
            str(len(result.problems)),
        )
    console.print(table)
    for result in results:
        for problem in result.problems:
            console.print(f"{result.name}: {problem}", style="red", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
