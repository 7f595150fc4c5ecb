"""How fast flash-integrate is, and how much memory it takes: each case a process of its own, the
median of several.

    python benchmarks/integrator_speed.py [CLONES] [--transformers FOLDER]

CLONES is the folder of `benchmarks/corpus.py`; without it the cases on mlx-examples and mlx-lm
are left out. FOLDER holds an unpacked wheel of transformers, a large tree with MLX in two of its
files: `pip download --no-deps transformers==5.24.0`, and `python -m zipfile -e` of what it
brings. The trees without MLX are the standard library's files, over and over. The peer is
LibCST's own `python -m libcst.tool codemod` on the files of the installed mlx_lm, one process
each: with its command that changes nothing, which is the price of reading and printing alone, and
with one that adds the import alone, as LibCST's documentation has it done.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from corpus_repos import clone_of, listed_repos, unpack
from store import Result

DRY_RUN = [sys.executable, "-m", "flash_integrate", "--dry-run"]
LIBCST = [sys.executable, "-m", "libcst.tool", "codemod"]
ADDS_IMPORT = """\
from libcst.codemod import VisitorBasedCodemodCommand
from libcst.codemod.visitors import AddImportsVisitor


class AddImport(VisitorBasedCodemodCommand):
    DESCRIPTION = "adds the import of the runtime"

    def leave_Module(self, original_node, updated_node):
        names = ("mlx_flash_runtime", "enable_flash_attention")
        AddImportsVisitor.add_needed_import(self.context, *names)
        return updated_node
"""
RUNS_AND_MEASURES = """\
import resource, subprocess, sys, time
start = time.perf_counter()
run = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(run.returncode, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
IMPORTS_LIBCST = """\
import sys
from flash_integrate.cli import main
try:
    main(sys.argv[1:])
finally:
    print("libcst" in sys.modules)
"""


@dataclass(frozen=True)
class Row:
    """A case: seconds on the clock and of processor time, the peak of resident memory in MB, and
    the aim if it has one, in the unit of what is aimed at."""

    case: str
    files: int
    repeats: int
    seconds: float
    processor_seconds: float
    peak_mb: float
    aim: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description="how fast flash-integrate is")
    parser.add_argument(
        "clones", type=Path, nargs="?", help="folder with clones of mlx-examples and mlx-lm"
    )
    parser.add_argument("--transformers", type=Path, help="folder with the wheel's files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows go")
    parser.add_argument("--no-write", action="store_true", help="print the rows alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder), args))
    for row in rows:
        print(
            f"{row.case:45} {row.files:6} files {row.seconds:8.2f} s {row.processor_seconds:8.2f} "
            f"s of processor {row.peak_mb:6.0f} MB  {row.aim}"
        )
    if not args.no_write:
        versions = [
            f"{name} {importlib.metadata.version(name)}" for name in ("flash-integrate", "libcst")
        ]
        how = f"Each case a process of its own, the median of its repeats; {', '.join(versions)}."
        path = args.json.absolute() if args.json else "integrator_speed.json"
        command = "python benchmarks/integrator_speed.py CLONES --transformers FOLDER"
        title = "How fast flash-integrate is"
        result = Result(path, title=title, command=command, definitions=[how])
        for row in rows:
            result.add(asdict(row))


def measure(folder: Path, args: argparse.Namespace) -> Iterator[Row]:
    clones, repeats = args.clones, args.repeats
    (folder / "empty").mkdir()
    # With bytecode, as pip installs it; this first run writes it where it is not there yet.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    check = [sys.executable, "-c", IMPORTS_LIBCST, str(folder / "empty")]
    assert subprocess.run(check, capture_output=True, text=True).stdout.strip().endswith("False"), (
        "imports LibCST"
    )
    yield timed("start-up without work", [*DRY_RUN, str(folder / "empty")], [], repeats, "0.25 s")
    plain = tree(folder / "plain", standard_library(), 5000)
    yield timed("5,000 files without MLX", [*DRY_RUN, str(folder / "plain")], plain, repeats, "2 s")
    if clones is not None:
        repos = []
        for repo in listed_repos(["ml-explore/mlx-examples", "ml-explore/mlx-lm"]):
            git = clone_of(repo, clones)
            assert git is not None, f"{repo.name} is not in {clones}"
            repos.append(folder / repo.name.rpartition("/")[2])
            unpack(repo, git, repos[-1])
        files = [path for repo in repos for path in repo.rglob("*.py")]
        for jobs in range(1, min(os.cpu_count() or 1, 4) + 1):
            command = [*DRY_RUN, "-j", str(jobs), *map(str, repos)]
            case = f"mlx-examples and mlx-lm, -j {jobs}"
            yield timed(case, command, files, repeats, "5 s" if jobs == 1 else "")
            unproved = [*command, "--skip", "handwritten-attention"]
            yield timed(f"{case}, without proofs", unproved, files, repeats)
    if args.transformers is not None:
        files = [*args.transformers.rglob("*.py")]
        command = [*DRY_RUN, "-j", "1", str(args.transformers)]
        yield timed("transformers, MLX in two files, -j 1", command, files, repeats)
    package = Path(importlib.import_module("mlx_lm").__file__ or "").parent
    own = tree(folder / "mlx_lm", sorted(package.rglob("*.py")), base=package)
    ours = timed("mlx_lm, -j 1", [*DRY_RUN, "-j", "1", str(folder / "mlx_lm")], own, repeats)
    yield ours
    (folder / "adds_import.py").write_text(ADDS_IMPORT)
    os.environ["PYTHONPATH"] = str(folder)
    for name, command in {
        "nothing": ["noop.NOOPCommand"],
        "an import": ["-x", "adds_import.AddImport"],
    }.items():
        options = [str(folder / "mlx_lm"), "--no-format", "--hide-progress", "-j", "1"]
        peer = timed(
            f"mlx_lm, LibCST's codemod that adds {name}, -j 1",
            [*LIBCST, *command, *options],
            own,
            1,
        )
        times = peer.processor_seconds / ours.processor_seconds
        aim = f"ours takes 1/{times:.0f} of the processor time"
        yield replace(peer, aim=aim)
    many = tree(folder / "many", [*own[:200], *standard_library()], 10_000)
    yield timed("10,000 files", [*DRY_RUN, "-j", "1", str(folder / "many")], many, 1, "300 MB")


def timed(
    case: str, command: Sequence[str], files: Sequence[Path], repeats: int, aim: str = ""
) -> Row:
    """Runs a command again and again; the medians, and the highest memory."""
    runs = [run(command) for _ in range(repeats)]
    seconds, processor, peak = (list(values) for values in zip(*runs, strict=True))
    return Row(
        case,
        len(files),
        repeats,
        round(statistics.median(seconds), 3),
        round(statistics.median(processor), 3),
        round(max(peak), 1),
        aim,
    )


def run(command: Sequence[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory of a process and of those that it starts."""
    output = subprocess.run(
        [sys.executable, "-c", RUNS_AND_MEASURES, *command],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    returncode, seconds, processor, peak = map(float, output.split())
    if returncode:
        raise SystemExit(f"{' '.join(command)} exited with {returncode:.0f}")
    return seconds, processor, peak / (1024 if sys.platform != "darwin" else 1024**2)


def standard_library() -> list[Path]:
    """The standard library's own files that do not name MLX and that every Python parses."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (
        path
        for path in sorted(root.rglob("*.py"))
        if "site-packages" not in path.parts and "test" not in str(path)
    )
    return [path for path in files if b"mlx" not in path.read_bytes()]


def tree(
    folder: Path, sources: Sequence[Path], count: int | None = None, *, base: Path | None = None
) -> list[Path]:
    """A folder with copies of `sources`: as they lie below `base`, or numbered, over and over,
    `count` of them."""
    made = []
    for number, source in enumerate(sources if count is None else islice(cycle(sources), count)):
        name = (
            source.relative_to(base)
            if base
            else Path(f"package_{number // 100}") / f"{source.stem}_{number}.py"
        )
        made.append(folder / name)
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, made[-1])
    return made


if __name__ == "__main__":
    main()
