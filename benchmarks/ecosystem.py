"""What a change does to the diffs that flash-integrate makes in public repos.

    python benchmarks/ecosystem.py OLD NEW --repos CLONES

Runs the tool of two commits (`.` is the working tree) on every repo of fixtures/corpus.json, each
from its clone in the folder CLONES, and prints what changed: per repo the difference between the
two diffs, each difference once with all files that share it, and a summary. In it: files changed,
hunks and lines inserted, seconds, formatters that a changed file passed before and does not any
more, and problems: an error, a patched file that does not compile, a second run that changes
something, a `--revert` that does not give back every byte. Nothing of the repos is run, unless
`--run-help` asks for the `--help` of the patched scripts.

`--fetch` prints the git commands that make the clones. Exits with 1 if NEW has a problem or
breaks a formatter.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from corpus_repos import Repo, clone_of, how_to_fetch, listed_repos
from corpus_runs import FORMATTERS, ROOT, Seen, Tool, try_on
from rich.console import Console
from rich.progress import track

Pair = tuple[Seen, Seen]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="the commit before the change, or . for the working tree")
    parser.add_argument("new", help="the commit after the change, or . for the working tree")
    parser.add_argument("--repos", type=Path, required=True, help="the folder of clones")
    parser.add_argument("--only", action="append", help="repos whose name holds this; repeatable")
    parser.add_argument("--fetch", action="store_true", help="print how to make the clones")
    parser.add_argument("--run-help", action="store_true", help="run patched scripts' --help")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was seen")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="repos at a time")
    args = parser.parse_args()
    repos = listed_repos(args.only)
    if args.fetch:
        print(how_to_fetch(repos, args.repos))
        return 0
    missing = [repo for repo in repos if clone_of(repo, args.repos) is None]
    if missing:
        names = ", ".join(repo.name for repo in missing)
        parser.error(f"no clone in {args.repos}: {names}; --fetch prints how to make them")
    with tempfile.TemporaryDirectory() as scratch:
        tools = [
            tool_of(commit, Path(scratch) / name)
            for name, commit in (("old", args.old), ("new", args.new))
        ]
        pairs = {}
        for repo, pair in run_both(repos, tools, args):
            pairs[repo] = pair
            print_changes(repo, pair)
    print_summary(pairs, tools)
    if args.json:
        data = {}
        for name, (old, new) in pairs.items():
            data[name] = {"old": asdict(old), "new": asdict(new)}
        args.json.write_text(json.dumps(data, indent=1))
    return int(any(is_bad(new) for _, new in pairs.values()))


def is_bad(seen: Seen) -> bool:
    """Whether there is a problem, or a formatter that does not pass any more."""
    return bool(seen.problems) or any(seen.broken.values())


def tool_of(commit: str, folder: Path) -> Tool:
    """The tool as a commit has it, unpacked to a folder; the working tree as it stands."""
    if commit == ".":
        return Tool("working tree", ROOT)
    archive = subprocess.run(
        ["git", "archive", commit, "integrator", "codemods"], cwd=ROOT, capture_output=True
    )
    if archive.returncode:
        sys.exit(f"error: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return Tool(commit, folder)


def run_both(
    repos: list[Repo], tools: list[Tool], args: argparse.Namespace
) -> Iterator[tuple[str, Pair]]:
    """What both tools do to each repo, one repo after the other or several at a time."""

    def run(repo: Repo) -> Pair:
        git = clone_of(repo, args.repos)
        assert git is not None  # looked for above
        old, new = tools
        options = {"formatters": True, "run_help": args.run_help}
        return try_on(repo, git, old, **options), try_on(repo, git, new, **options)

    with ThreadPoolExecutor(args.jobs) as pool:
        console = Console(stderr=True)
        results = track(
            pool.map(run, repos), description="repos", total=len(repos), console=console
        )
        yield from zip((repo.name for repo in repos), results, strict=True)


def print_changes(repo: str, pair: Pair) -> None:
    """The files whose diffs differ, those with the same difference together."""
    old, new = pair
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sorted({*old.diffs, *new.diffs}):
        changes = diff_of_diffs(old.diffs.get(path, []), new.diffs.get(path, []))
        if changes:
            together[tuple(changes)].append(path)
    if not together:
        return
    print(f"\n=== {repo}")
    for shared, paths in together.items():
        for path in paths:
            was, now = (seen.outcomes.get(path, "unchanged") for seen in pair)
            print(f"--- {path}" + (f"   ({was} -> {now})" if was != now else ""))
        print(*(f"    {line}" for line in shared), sep="\n", flush=True)


def diff_of_diffs(old: list[str], new: list[str]) -> list[str]:
    """How one diff became the other, without the places of their hunks; without the repo's own
    lines too, where the inserted ones differ: what is the same in several files shows as such."""
    old, new = without_places(old), without_places(new)
    old_own, new_own = without_context(old), without_context(new)
    if old_own != new_own:
        old, new = old_own, new_own
    return list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]


def without_places(diff: list[str]) -> list[str]:
    """A diff with nothing of a hunk's head but that there is one."""
    return ["@@" if line.startswith("@@") else line for line in diff]


def without_context(diff: list[str]) -> list[str]:
    """A diff's lines that differ."""
    return [line for line in diff if not line.startswith(" ")]


def totals(repos: list[Seen]) -> dict[str, float]:
    """What one version of the tool did to all repos."""
    found: dict[str, float] = {
        "files changed": sum(len(seen.diffs) for seen in repos),
        "hunks": sum(seen.hunks for seen in repos),
        "lines inserted": sum(seen.added for seen in repos),
        "seconds": round(sum(seen.seconds for seen in repos), 1),
        "problems": sum(len(seen.problems) for seen in repos),
    }
    for name in FORMATTERS:
        found[f"{name}: passed before"] = sum(len(seen.passed[name]) for seen in repos)
        found[f"{name}: of those broken"] = sum(len(seen.broken[name]) for seen in repos)
    return found


def print_summary(pairs: dict[str, Pair], tools: list[Tool]) -> None:
    print(f"\n=== {len(pairs)} repos: {tools[0].label} -> {tools[1].label}")
    was = totals([old for old, _ in pairs.values()])
    now = totals([new for _, new in pairs.values()])
    for name in was:
        print(f"{name:34} {was[name]:>8} -> {now[name]:>8}")
    for repo, (_, seen) in pairs.items():
        for problem in seen.problems:
            print(f"problem: {repo}: {problem}")
        for name, paths in seen.broken.items():
            for path in paths:
                print(f"{name} broken: {repo}: {path}")


if __name__ == "__main__":
    sys.exit(main())
