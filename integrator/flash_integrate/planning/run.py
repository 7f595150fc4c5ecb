"""The pipeline over a tree: discover, read, plan, rewrite, verify. Writes nothing; every file gets
an outcome."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from flash_codemods.handwritten import handwritten_attention
from flash_integrate.attention.record import RECORD, read_record
from flash_integrate.attention.rewrites import Kept, Rewrite, applied, taken_back
from flash_integrate.disk.reading import read
from flash_integrate.errors import FileError, own_errors
from flash_integrate.inserted.revert import revert_script
from flash_integrate.inserted.verify import verify, verify_rewrites
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.rewriting import (
    SUFFIX,
    Rewritten,
    plan_notebook,
    revert_notebook,
    rewrite_notebook,
    scan_notebook,
)
from flash_integrate.planning.codemod import Insertion, Refusal
from flash_integrate.planning.plan import Decision, Status, plan, stays_as_it_is
from flash_integrate.project.config import Config
from flash_integrate.project.discover import NAMED_SUFFIXES, Found, discover
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.project.imports import Project, Scan
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.source import Source
from flash_integrate.quoting import quoted
from flash_integrate.report.explain import explain

NO_MLX = "no MLX"
NOT_INTEGRATED = "not integrated by this tool"


@dataclass(frozen=True)
class Outcome:
    """How one file ends. `after` is what is to be written, `lines` the numbers of the lines that
    differ in it (`CHANGED`) or in `before` (`REVERTED`). `needs` are other files without whose
    change this one would not run."""

    base: Path
    name: PurePosixPath
    status: Status
    reason: str
    line: int | None = None
    codemod: str | None = None
    review: str = ""
    notes: tuple[Refusal, ...] = ()
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    lines: frozenset[int] = frozenset()
    needs: frozenset[PurePosixPath] = frozenset()
    rewrites: tuple[Rewrite, ...] = ()
    """Attention by hand that becomes a fused call, on top of what is inserted."""
    taken_back: tuple[Kept, ...] = ()
    """For a reverted file: the rewrites that `before` still has, and `after` has not."""
    left: tuple[Kept, ...] = ()
    """For a reverted file: the rewrites whose lines have changed since."""

    @property
    def result(self) -> bytes:
        """What is to be written: `after` with the rewrites made."""
        return applied(self.after, self.rewrites) if self.rewrites else self.after

    @property
    def replaces(self) -> bool:
        """Whether lines of the file's own are replaced, not only others inserted."""
        return bool(self.rewrites or self.taken_back)

    @property
    def path(self) -> Path:
        return self.base / self.name

    @property
    def changes(self) -> bool:
        return self.status in (Status.CHANGED, Status.REVERTED)


Progress = Callable[[Sequence[Found], str], Iterable[Found]]
"""Passes files on, and may show how far they are."""

EVERYTHING = Config()
# Tells a new Python not to look for modules in its current folder (from 3.11 on).
_SAFE_PATH = "PYTHONSAFEPATH"


def integrate(
    paths: list[Path],
    exclude: Iterable[str],
    progress: Progress,
    config: Config = EVERYTHING,
    jobs: int | None = None,
) -> list[Outcome]:
    """The outcome of each Python file and notebook below `paths`, as if they were written.

    `jobs` processes share the planning; None leaves their number to the number of files that
    concern MLX.
    """
    files = list(discover(paths, exclude))
    run = _Run(config)
    look_further = any(path.is_file() for path in paths)
    for found in progress(files, "reading"):
        run.scan(found, look_further)
    jobs = jobs or run.reasonable_jobs()
    planned = progress(files, "planning")
    if jobs == 1 or not _can_start_processes():
        return resolve([run.outcome(found) for found in planned])
    return resolve(_plan_in_processes(run, planned, files, jobs))


def _can_start_processes() -> bool:
    """Whether processes can be started that run nothing from the current folder, which may be that
    of the repo.

    A new Python looks for its modules there, unless it is told not to; one that is forked has them
    already.
    """
    from multiprocessing import get_start_method

    heeded = sys.version_info >= (3, 11) and not sys.flags.ignore_environment
    return heeded or bool(sys.flags.isolated) or get_start_method() == "fork"


def _plan_in_processes(
    run: _Run, planned: Iterable[Found], files: list[Found], jobs: int
) -> list[Outcome]:
    """The outcomes of `files`; `planned` are the same files, and shows how far it is."""
    from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
    from multiprocessing import active_children

    # Ctrl-C at a terminal goes to every process: the others start with it blocked, and leave it to
    # this one.
    own = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    safe_path = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"  # see `_can_start_processes`
    pool = ProcessPoolExecutor(jobs, initializer=_adopt, initargs=(run,))
    try:
        # Not `pool.map`, which when interrupted cancels what the pool's own thread is about to
        # report as broken.
        size = max(1, len(files) // (jobs * 8))
        parts = [
            pool.submit(_outcomes, files[start : start + size])
            for start in range(0, len(files), size)
        ]
        signal.pthread_sigmask(signal.SIG_SETMASK, own)
        outcomes = (outcome for part in parts for outcome in part.result())
        return [outcome for _, outcome in zip(planned, outcomes, strict=True)]
    except BrokenExecutor as error:
        raise FileError(
            "a planning process was killed; nothing was written; -j 1 does without"
        ) from error
    except KeyboardInterrupt:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown()
        if safe_path is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = safe_path


def explain_files(paths: list[Path], exclude: Iterable[str], config: Config) -> Iterator[str]:
    """Lines that say, of each Python file below `paths`, what is seen in it and why it is or is
    not changed."""
    run = _Run(config)
    files = [found for found in discover(paths, exclude) if found.path.suffix != SUFFIX]
    for found in files:
        run.scan(found, look_further=True)
    for found in files:
        outcome = run.outcome(found)
        try:
            if outcome.reason != NO_MLX and outcome.status is not Status.FAILED:
                with own_errors():
                    facts = run.workspaces[found.base].facts(found.name)
                    yield "\n".join(explain(facts, unproven=config.unproven))
                continue
        except FileError as error:
            outcome = _failed(found, error)
        yield f"{quoted(found.name)}: {outcome.status.value}: {outcome.reason}"


class _Run:
    """The workspaces of one run, a base folder each, and the files that could not be read."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.workspaces: dict[Path, Workspace] = {}
        self.failed: dict[Path, Outcome] = {}

    def scan(self, found: Found, look_further: bool) -> None:
        """Takes a file into its workspace."""
        if found.base not in self.workspaces:
            self.workspaces[found.base] = Workspace(
                Project(found.base, {}, look_further), self.config.wants
            )
        workspace = self.workspaces[found.base]
        try:
            with own_errors():
                workspace.project.scans[found.name] = _scan(found)
        except FileError as error:
            self.failed[found.path] = _failed(found, error)
        else:
            if self.config.leaves_out(found.path) is None:
                workspace.editable.add(found.name)

    def reasonable_jobs(self) -> int:
        """One process for every forty files that name MLX, at most one for each processor."""
        scans = (
            scan
            for workspace in self.workspaces.values()
            for scan in workspace.project.scans.values()
        )
        return min(os.cpu_count() or 1, 1 + sum(scan.names_mlx for scan in scans) // 40)

    def outcome(self, found: Found) -> Outcome:
        if found.path in self.failed:
            return self.failed[found.path]
        if reason := self.config.leaves_out(found.path):
            return Outcome(found.base, found.name, Status.SKIPPED, reason)
        outcome = _integrate_file(found, self.workspaces[found.base], self.config)
        self.workspaces[found.base].forget(found.name)
        return outcome


_adopted: _Run


def _adopt(run: _Run) -> None:
    """Gives a worker process the run that it works for."""
    global _adopted
    _adopted = run


def _outcomes(part: Sequence[Found]) -> list[Outcome]:
    return [_adopted.outcome(found) for found in part]


def resolve(outcomes: list[Outcome]) -> list[Outcome]:
    """Takes back the changes that need another file's change which did not come about."""
    status = {(outcome.base, outcome.name): outcome.status for outcome in outcomes}
    resolved = []
    for outcome in outcomes:
        unmet = [
            name
            for name in outcome.needs
            if status[outcome.base, name] in (Status.FAILED, Status.SKIPPED)
        ]
        if outcome.changes and unmet:
            reason = f"its parser is built in {quoted(unmet[0])}, which could not be changed"
            outcome = dataclasses.replace(outcome, status=Status.FAILED, reason=reason)
        resolved.append(outcome)
    return resolved


def revert(paths: list[Path], exclude: Iterable[str], progress: Progress) -> list[Outcome]:
    """The outcome of each Python file below `paths`, its insertions taken out."""
    outcomes = []
    files = list(discover(paths, exclude))
    records = {base: read_record(base)[1] for base in {found.base for found in files}}
    for found in progress(files, "reading"):
        try:
            with own_errors():
                outcomes.append(_revert_file(found, records[found.base].get(found.name, [])))
        except FileError as error:
            outcomes.append(_failed(found, error))
    return outcomes


def _integrate_file(found: Found, workspace: Workspace, config: Config) -> Outcome:
    try:
        with own_errors():
            if not workspace.project.concerns(found.name):
                return Outcome(found.base, found.name, Status.SKIPPED, NO_MLX)
            outcome = _planned(found, workspace)
            if found.path.suffix == SUFFIX or not config.wants(handwritten_attention.NAME):
                return outcome
            return _with_rewrites(outcome, workspace.facts(found.name), config.unproven)
    except FileError as error:
        return _failed(found, error)


def _planned(found: Found, workspace: Workspace) -> Outcome:
    if found.path.suffix == SUFFIX:
        notebook = Notebook(found.path, _read(found))
        decision = plan_notebook(notebook, found.name, workspace)
        rewrite = partial(rewrite_notebook, notebook, found.name, workspace)
    else:
        facts = workspace.facts(found.name)
        decision = plan(facts)
        rewrite = partial(_rewrite_script, facts, decision)
    if decision.status is not Status.CHANGED:
        return Outcome(found.base, found.name, decision.status, decision.reason, decision.line)
    return _changed(found, decision, rewrite())


def _with_rewrites(outcome: Outcome, facts: FileFacts, unproven: bool) -> Outcome:
    """An outcome with the attention by hand that becomes a fused call."""
    if outcome.status is Status.FAILED or stays_as_it_is(facts) is not None:
        return outcome
    rewrites, _ = handwritten_attention.rewrites_of(facts.source, unproven=unproven)
    if not rewrites:
        return outcome
    changed = {rewrite.line for rewrite in rewrites}
    notes = tuple(note for note in outcome.notes if note.line not in changed)
    if not outcome.changes:
        outcome = dataclasses.replace(
            outcome,
            status=Status.CHANGED,
            reason="its attention by hand can be a fused call",
            line=None,
            codemod=handwritten_attention.NAME,
            review=handwritten_attention.REVIEW,
            before=facts.source.data,
            after=facts.source.data,
        )
    outcome = dataclasses.replace(outcome, notes=notes, rewrites=tuple(rewrites))
    verify_rewrites(facts.source, outcome.after, outcome.result, rewrites)
    return outcome


def _rewrite_script(facts: FileFacts, decision: Decision) -> Rewritten:
    # LibCST takes half a second to import: a run that rewrites nothing does without.
    from flash_integrate.python.rewrite import rewrite

    after = rewrite(facts.source, decision.edits)
    lines = verify(facts, after)
    return Rewritten(facts.source.data, after, frozenset(lines))


def _changed(found: Found, decision: Decision, rewritten: Rewritten) -> Outcome:
    return Outcome(
        found.base,
        found.name,
        Status.CHANGED,
        decision.reason,
        codemod=decision.codemod,
        review=decision.review,
        notes=decision.notes,
        before=rewritten.before,
        after=rewritten.after,
        lines=rewritten.lines,
        needs=frozenset(
            item.needs for item in decision.edits if isinstance(item, Insertion) and item.needs
        ),
    )


def _edited_since(kept: Kept) -> str:
    return (
        f"the attention of {kept.function} was edited since it was rewritten: it stays; "
        f"what stood there is in {RECORD}"
    )


def _take_back(found: Found, data: bytes, kept: list[Kept]) -> Outcome:
    """A file with its own lines in the place of the rewrites, and without what was inserted."""
    own, left = taken_back(data, kept)
    inserted = revert_script(Source(found.path, own))
    after = own if inserted is None else inserted.after
    notes = () if inserted is None else inserted.notes
    notes += tuple(Refusal(_edited_since(item)) for item in left)
    gone = tuple(item for item in kept if item not in left)
    if after == data:
        return Outcome(found.base, found.name, Status.FAILED, notes[0].reason)
    count = len(gone)
    reason = f"{count} rewrite{'s' if count != 1 else ''} taken back"
    return Outcome(
        found.base,
        found.name,
        Status.REVERTED,
        reason,
        notes=notes,
        before=data,
        after=after,
        taken_back=gone,
        left=tuple(left),
    )


def _revert_file(found: Found, kept: list[Kept]) -> Outcome:
    data = _read(found)
    if found.path.suffix == SUFFIX:
        result = revert_notebook(Notebook(found.path, data))
    elif kept:
        return _take_back(found, data, kept)
    else:
        result = revert_script(Source(found.path, data))
    if result is None:
        return Outcome(found.base, found.name, Status.SKIPPED, NOT_INTEGRATED)
    return Outcome(
        found.base,
        found.name,
        Status.REVERTED,
        f"{len(result.lines)} lines taken out" if result.lines else "taken out",
        notes=result.notes,
        before=data,
        after=result.after,
        lines=result.lines,
    )


def _scan(found: Found) -> Scan:
    data = _read(found)
    return (
        scan_notebook(Notebook(found.path, data)) if found.path.suffix == SUFFIX else Scan.of(data)
    )


def _read(found: Found) -> bytes:
    if found.problem:
        raise FileError(found.problem)
    if found.path.suffix not in NAMED_SUFFIXES:
        raise FileError("not a Python file or a notebook")
    return read(found.path, found.base)


def _failed(found: Found, error: FileError) -> Outcome:
    return Outcome(found.base, found.name, Status.FAILED, str(error), error.line)
