"""The four properties of every rewrite, over real code in many shapes: the files of mlx_lm and of
the standard library.

Each file gets a use of mlx_lm, so that it counts as one that runs attention, and one way in which
files differ in the wild: CRLF, tabs, a BOM, no final newline, mixed newlines.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import shutil
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from conftest import Run, commit_all, git

from flash_integrate.errors import FileError
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.edits import Insertion
from flash_integrate.python.rewrite import rewrite
from flash_integrate.python.source import split_lines

STDLIB = Path(sysconfig.get_paths()["stdlib"])
MLX_LM = Path(importlib.util.find_spec("mlx_lm").origin).parent  # type: ignore[union-attr,arg-type]
LARGEST = 60_000


def unchanged(data: bytes) -> bytes:
    return data


def crlf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def tabs(data: bytes) -> bytes:
    def indent(line: bytes) -> bytes:
        body = line.lstrip(b" ")
        return b"\t" * ((len(line) - len(body)) // 4) + body

    return b"".join(map(indent, split_lines(data)))


def bom(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def no_final_newline(data: bytes) -> bytes:
    return data.rstrip(b"\n")


def mixed_newlines(data: bytes) -> bytes:
    lines = data.split(b"\n")
    return (
        b"".join(
            line + (b"\r\n" if number % 3 else b"\n") for number, line in enumerate(lines[:-1])
        )
        + lines[-1]
    )


MUTATIONS: list[Callable[[bytes], bytes]] = [
    unchanged,
    crlf,
    tabs,
    bom,
    no_final_newline,
    mixed_newlines,
]


def parses(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(data)
        except (SyntaxError, ValueError):
            return False
    return True


def real_files() -> list[Path]:
    own = sorted(MLX_LM.glob("*.py")) + sorted(MLX_LM.glob("*/*.py"))[::3]
    standard = sorted(STDLIB.glob("*.py"))[::2] + sorted(STDLIB.glob("*/*.py"))[::8]
    skipped = {"site-packages", "lib2to3", "test", "tests"}
    files = own + [path for path in standard if not skipped & set(path.relative_to(STDLIB).parts)]
    return [path for path in files if 0 < path.stat().st_size < LARGEST]


@pytest.fixture(scope="module", params=[mutation.__name__ for mutation in MUTATIONS])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every sixth file, mutated in one way: together the six folders hold all of
    them."""
    names = [mutation.__name__ for mutation in MUTATIONS]
    position = names.index(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    for number, path in enumerate(real_files()[position :: len(MUTATIONS)]):
        data = MUTATIONS[position](path.read_bytes() + b"\nimport mlx_lm\nmlx_lm.load\n")
        if parses(data):
            (folder / f"file_{number}_{path.name}").write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def test_rewrites_parse_are_idempotent_reversible_and_what_the_dry_run_showed(
    corpus: Path, started: Run, tmp_path: Path
) -> None:
    before = contents(corpus)
    applied = tmp_path / "applied"
    shutil.copytree(corpus, applied)

    dry_run = started(applied, "--dry-run")
    assert dry_run.returncode == 0, dry_run.stderr.decode()
    (tmp_path / "flash.diff").write_bytes(dry_run.stdout)
    assert started(applied).returncode == 0
    after = contents(applied)
    changed = [name for name in before if after[name] != before[name]]
    assert len(changed) >= 8  # else the corpus shows nothing
    assert all(parses(after[name]) for name in changed)

    commit_all(corpus)
    git(corpus, "apply", "--whitespace=nowarn", str(tmp_path / "flash.diff"))
    assert contents(corpus) == after

    assert started(applied).returncode == 0
    assert contents(applied) == after
    assert started(applied, "--revert").returncode == 0
    assert contents(applied) == before


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_line_can_be_spliced_in_after_any_statement(mutation: Callable[[bytes], bytes]) -> None:
    """The place of a statement means the same to `ast` and to LibCST, however deep, beside
    whatever it stands."""
    chosen = random.Random(mutation.__name__)
    for path in real_files()[:: 2 * len(MUTATIONS)]:
        data = mutation(path.read_bytes())
        if not parses(data):
            continue
        facts = Workspace.alone(PurePosixPath(path.name), data, path.parent).facts(
            PurePosixPath(path.name)
        )
        candidates = [statement for statement in facts.statements if statement.ends_its_line]
        for statement in chosen.sample(candidates, min(3, len(candidates))):
            try:
                after = rewrite(facts.source, [Insertion(statement.steps, "spliced_in\n")])
            except FileError:
                continue
            lines = split_lines(after)
            [number] = [
                number
                for number, line in enumerate(lines, start=1)
                if line.strip() == b"spliced_in"
            ]
            # Only blank lines, which keep it apart from a definition, may stand between.
            end = statement.node.end_lineno or 0
            assert not b"".join(lines[end : number - 1]).strip(), (path, statement)
            below = split_lines(data)[end:]
            above = split_lines(data)[:end]
            assert [line.rstrip(b"\r\n") for line in lines[:end]] == [
                line.rstrip(b"\r\n") for line in above
            ]
            rest = lines[number:]
            assert b"".join(rest).strip() == b"".join(below).strip()
            assert number - 1 - end in (0, 1, 2)
