"""Runs the rewriting of attention by hand over checkouts of public MLX repos, and writes the page
that says what came of each function.

    git clone https://github.com/ml-explore/mlx-examples checkouts/mlx-examples
    python benchmarks/handwritten.py checkouts --page docs/handwritten.md --importer python3

Writes nothing into the checkouts. Each rewritten file compiles, and is imported by `--importer` in
a copy of its repo, where the original can be: not where packages are missing that it needs. Exits
with 1 if a file compiles or imports no longer.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from flash_codemods.handwritten.handwritten_attention import rewrites_of
from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.attention.rewrites import Rewrite, applied
from flash_integrate.errors import FileError
from flash_integrate.project.kinds import is_test
from flash_integrate.python.module import Module
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import dotted

MARKS = (
    "<!-- Table: made by `python benchmarks/handwritten.py`. -->",
    "<!-- End of the table. -->",
)
NOT_FOLLOWED = "a form that is not followed"


@dataclass(frozen=True)
class Row:
    """One attention by hand: `verdict` is proved, by form or refused."""

    repo: str
    file: PurePosixPath
    line: int
    function: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class Looked:
    """A file's rows, and the file as it would be written."""

    path: Path
    rows: tuple[Row, ...]
    after: bytes | None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, help="folder that holds the repos")
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    parser.add_argument("--importer", help="Python that imports what was rewritten")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    args = parser.parse_args()
    repos = sorted(folder for folder in args.checkouts.iterdir() if (folder / ".git").exists())
    files = [(repo, path) for repo in repos for path in candidates(repo)]
    console = Console(stderr=True)
    with ProcessPoolExecutor(args.jobs) as pool:
        results = pool.map(look, *zip(*files, strict=True))
        looked = list(track(results, description="files", total=len(files), console=console))
    importer = shutil.which(args.importer) if args.importer else None
    broken = check(repos, looked, importer and str(Path(importer).absolute()))
    rows = [row for item in looked for row in item.rows]
    table = "\n".join(page_of(repos, rows, broken))
    if args.page is None:
        print(table)
    else:
        text = args.page.read_text()
        start, end = text.index(MARKS[0]), text.index(MARKS[1])
        args.page.write_text(f"{text[:start]}{MARKS[0]}\n\n{table}\n{text[end:]}")
    for failure in broken.failures:
        console.print(failure, style="red")
    return 1 if broken.failures else 0


def candidates(repo: Path) -> Iterator[Path]:
    """The files of a repo that may hold MLX attention by hand; tests are left out."""
    for path in sorted(repo.rglob("*.py")):
        if path.is_symlink() or is_test(PurePosixPath(path.relative_to(repo).as_posix())):
            continue
        data = path.read_bytes()
        if b"softmax" in data and re.search(rb"^\s*(import|from)\s+mlx", data, re.MULTILINE):
            yield path


def look(repo: Path, path: Path) -> Looked:
    source = Source(path, path.read_bytes())
    file = PurePosixPath(path.relative_to(repo).as_posix())
    try:
        rewrites, refusals = rewrites_of(source)
        module = Module(source)
        by_hand = sorted(set(by_hand_lines(module)))
    except FileError:
        return Looked(path, (), None)
    rows = [row_of(repo.name, file, rewrite) for rewrite in rewrites]
    for refusal in refusals:
        rows.append(Row(repo.name, file, refusal.line or 0, "", "refused", refusal.reason))
    if len(rows) < len(by_hand) and not rows:
        rows.append(Row(repo.name, file, by_hand[0], "", "refused", NOT_FOLLOWED))
    proved = [rewrite for rewrite in rewrites if rewrite.proved]
    after = applied(source.data, proved) if proved else None
    return Looked(path, tuple(rows), after)


def by_hand_lines(module: Module) -> Iterator[int]:
    """The lines of attention by hand, but for that of another library beside MLX."""
    others = {
        item.bound.partition(".")[0]
        for item in module.imports
        if not item.dots and not item.module.startswith("mlx")
    }
    for softmax in handwritten_attention(module, module.tree):
        if (dotted(softmax.func) or "").partition(".")[0] not in others:
            yield softmax.lineno


def row_of(repo: str, file: PurePosixPath, rewrite: Rewrite) -> Row:
    verdict = "proved" if rewrite.proved else "refused" if rewrite.differs else "by form"
    detail = f"{rewrite.verdict}; {rewrite.unseen}" if rewrite.unseen else rewrite.verdict
    return Row(repo, file, rewrite.line, rewrite.function, verdict, detail)


@dataclass
class Checked:
    compiled: int = 0
    imported: int = 0
    not_importable: int = 0
    failures: tuple[str, ...] = ()


def check(repos: list[Path], looked: list[Looked], importer: str | None) -> Checked:
    """Compiles what was rewritten, and imports it where the original can be."""
    result = Checked()
    failures: list[str] = []
    for repo in repos:
        changed = [item for item in looked if item.after and repo in item.path.parents]
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / repo.name
            if importer is not None and changed:
                shutil.copytree(repo, copy, ignore=shutil.ignore_patterns(".git"), symlinks=True)
            for item in changed:
                assert item.after is not None
                compile(item.after, str(item.path), "exec")
                result.compiled += 1
                if importer is None:
                    continue
                target = copy / item.path.relative_to(repo)
                if not imports(importer, target):
                    result.not_importable += 1
                    continue
                target.write_bytes(item.after)
                if imports(importer, target):
                    result.imported += 1
                else:
                    failures.append(f"{item.path}: does not import any more")
    result.failures = tuple(failures)
    return result


def imports(python: str, path: Path) -> bool:
    """Whether a module can be imported, by its package's name where it belongs to one."""
    folder, parts = path.parent, [path.stem]
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    # A package without __init__.py is one too: `from .layers import ...` needs its name.
    if len(parts) == 1 and re.search(rb"^from \.", path.read_bytes(), re.MULTILINE):
        parts.insert(0, folder.name)
        folder = folder.parent
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import {'.'.join(parts)}"
    command = [python, "-c", program]
    try:
        run = subprocess.run(command, capture_output=True, cwd=folder, timeout=120)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def page_of(repos: list[Path], rows: list[Row], checked: Checked) -> Iterator[str]:
    count = Counter(row.verdict for row in rows)
    yield (
        f"{len(rows)} functions in {len({(row.repo, row.file) for row in rows})} files of "
        f"{len({row.repo for row in rows})} of {len(repos)} repos: {count['proved']} proved, "
        f"{count['by form']} matched by form alone, {count['refused']} refused. "
        f"{checked.compiled} files are rewritten, and compile; {checked.imported} were imported, "
        f"{checked.not_importable} need packages that were not installed."
    )
    yield ""
    reasons = Counter(kind_of(row.detail) for row in rows if row.verdict == "refused")
    yield "| refused because | functions |"
    yield "|---|--:|"
    for reason, number in reasons.most_common():
        yield f"| {reason} | {number} |"
    for repo in repos:
        own = [row for row in rows if row.repo == repo.name]
        if not own:
            continue
        yield ""
        yield f"### {name_of(repo)}"
        yield ""
        yield "| where | function | verdict | |"
        yield "|---|---|---|---|"
        for row in sorted(own, key=lambda row: (row.file, row.line)):
            function = f"`{row.function}`" if row.function else ""
            detail = row.detail.replace("|", "\\|")
            yield f"| {row.file}:{row.line} | {function} | {row.verdict} | {detail} |"
    others = [name_of(repo) for repo in repos if all(row.repo != repo.name for row in rows)]
    yield ""
    yield f"None in: {', '.join(others)}."
    yield ""


def kind_of(reason: str) -> str:
    """A reason without the names of one function."""
    return re.sub(r"`[^`]*`", "`…`", reason)


def name_of(repo: Path) -> str:
    """owner/name and commit, as the checkout has them."""
    url = _git(repo, "remote", "get-url", "origin")
    commit = _git(repo, "rev-parse", "--short", "HEAD")
    parts = re.split(r"[/+]", url.removesuffix("/repo").removesuffix(".git"))
    return f"{'/'.join(parts[-2:])} at {commit}"


def _git(repo: Path, *words: str) -> str:
    """What git prints of a checkout."""
    command = ["git", "-C", str(repo), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
