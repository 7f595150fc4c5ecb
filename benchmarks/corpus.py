"""Runs flash-integrate over public MLX repos and holds the result against what is expected of each
script.

    python benchmarks/corpus.py CLONES

CLONES is a folder of clones as `benchmarks/ecosystem.py --fetch` makes them, of every repo of
fixtures/corpus.json at the commit that it names. Works on copies. Per repo: scripts that end as
expected, files that changed, those of them that gained nothing but a fused call in the place of
attention written by hand, formatters that changed files passed before and still pass, and, with
`--run-help`, patched scripts whose `--help` shows the flags (of those whose imports are installed
here). Every patched file must compile, a second run change nothing, and `--revert` give back every
byte. Exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from corpus_repos import Repo, clone_of, listed_repos
from corpus_runs import FORMATTERS, REWRITTEN, ROOT, Seen, Tool, try_on
from rich.console import Console
from rich.progress import track

HEAD = """\
| repo | scripts as expected | files changed | attention rewritten | formatter kept \
| `--help` shows the flags | imports not installed here |
|---|---|---|---|---|---|---|"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clones", type=Path, help="the folder of clones")
    parser.add_argument("--only", action="append", help="repos whose name holds this; repeatable")
    parser.add_argument("--run-help", action="store_true", help="run patched scripts' --help")
    args = parser.parse_args()
    clones = [(repo, clone_of(repo, args.clones)) for repo in listed_repos(args.only)]
    if missing := [repo.name for repo, git in clones if git is None]:
        parser.error(f"no clone in {args.clones}: {', '.join(missing)}")
    tool = Tool("working tree", ROOT)
    print(HEAD)
    total = [0] * 8
    problems = []
    for repo, git in track(clones, description="repos", console=Console(stderr=True)):
        assert git is not None  # looked for above
        seen = try_on(repo, git, tool, formatters=True, run_help=args.run_help)
        row = numbers(repo, seen)
        print(row_of(repo.name, row), flush=True)
        total = [sum(pair) for pair in zip(total, row, strict=True)]
        own = [*seen.problems, *unexpected(repo, seen), *no_longer_passed(seen)]
        problems += [f"{repo.name}: {problem}" for problem in own]
    print(row_of(f"**{len(clones)} repos**", total))
    print(*problems, sep="\n", file=sys.stderr)
    return int(bool(problems))


def unexpected(repo: Repo, seen: Seen) -> list[str]:
    """The files that did not end as expected; one that is not listed is to be left alone, but for
    attention written by hand."""
    expected = {script["path"]: script for script in repo.scripts}
    found = []
    for path in sorted({*expected, *seen.outcomes}):
        outcome = seen.outcomes.get(path, "skip")
        if outcome == REWRITTEN:
            outcome = "skip"
        script = expected.get(path, {"expect": "skip", "also_ok": []})
        if outcome not in (script["expect"], *script["also_ok"]):
            found.append(f"{path}: {outcome}, expected {script['expect']}")
    return found


def no_longer_passed(seen: Seen) -> list[str]:
    """The files that a formatter passed before."""
    found = []
    for name in FORMATTERS:
        found += [f"{path}: {name} passed it before" for path in seen.broken[name]]
    return found


def numbers(repo: Repo, seen: Seen) -> list[int]:
    """The numbers of a row: scripts as expected, of how many; files changed; those of which
    attention by hand alone was rewritten; those that each formatter which passed them still passes,
    of how many; help that shows the flags; imports that are not installed."""
    wrong = {problem.partition(":")[0] for problem in unexpected(repo, seen)}
    as_expected = sum(script["path"] not in wrong for script in repo.scripts)
    passed = set().union(*seen.passed.values())
    broken = set().union(*seen.broken.values())
    formatted = [len(passed - broken), len(passed)]
    helps = [len(seen.help_shown), len(seen.help_not_importable)]
    changed = [len(seen.diffs), list(seen.outcomes.values()).count(REWRITTEN)]
    return [as_expected, len(repo.scripts), *changed, *formatted, *helps]


def row_of(name: str, row: list[int]) -> str:
    right, listed, changed, rewritten, kept, passed, shown, missing = row
    cells = [
        name,
        f"{right} of {listed}",
        changed,
        rewritten,
        f"{kept} of {passed}",
        shown,
        missing,
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
