"""The pipeline over a tree: discover, read, plan, rewrite, verify. Writes nothing; every file gets
an outcome."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from flash_integrate.attention.record import read_record
from flash_integrate.attention.rewrites import Kept
from flash_integrate.disk.reading import read
from flash_integrate.errors import FileError, own_errors
from flash_integrate.inserted.revert import revert_script
from flash_integrate.inserted.verify import verify
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.program import SUFFIX, Program, scanned
from flash_integrate.notebook.rewriting import revert_notebook, rewrite_notebook
from flash_integrate.notes import Note
from flash_integrate.planning.codemod import shared_words
from flash_integrate.planning.outcome import NO_MLX, NOT_INTEGRATED, Outcome
from flash_integrate.planning.plan import Decision, Status, plan
from flash_integrate.planning.rewriting import take_back, with_rewrites
from flash_integrate.project.config import Config
from flash_integrate.project.discover import NAMED_SUFFIXES, Found, discover
from flash_integrate.project.imports import Project, Scan
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.edits import Insertion, Rewritten
from flash_integrate.python.source import Source
from flash_integrate.quoting import quoted

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
    run = Run(config)
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
    run: Run, planned: Iterable[Found], files: list[Found], jobs: int
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


class Run:
    """The workspaces of one run, a base folder each, and the files that could not be read."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.workspaces: dict[Path, Workspace] = {}
        self.failed: dict[Path, Outcome] = {}

    def scan(self, found: Found, look_further: bool) -> None:
        """Takes a file into its workspace."""
        if found.base not in self.workspaces:
            self.workspaces[found.base] = Workspace(
                Project(found.base, {}, look_further, shared_words()), self.config.wants, source_of
            )
        workspace = self.workspaces[found.base]
        try:
            with own_errors():
                workspace.project.scans[found.name] = _scan(found, workspace.project.words)
        except FileError as error:
            self.failed[found.path] = _failed(found.base, found.name, error)
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
        outcome = outcome_of(found.name, self.workspaces[found.base])
        if outcome.reason != NO_MLX and found.path.suffix != SUFFIX:
            outcome = self._rewritten(outcome)
        self.workspaces[found.base].forget(found.name)
        return outcome

    def _rewritten(self, outcome: Outcome) -> Outcome:
        try:
            with own_errors():
                facts = self.workspaces[outcome.base].facts(outcome.name)
                return with_rewrites(outcome, facts, self.config)
        except FileError as error:
            return _failed(outcome.base, outcome.name, error)


_adopted: Run


def _adopt(run: Run) -> None:
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
            outcomes.append(_failed(found.base, found.name, error))
    return outcomes


def outcome_of(name: PurePosixPath, workspace: Workspace) -> Outcome:
    """The outcome of one file of a workspace, script or notebook, wherever its bytes are from."""
    base = workspace.project.base
    try:
        with own_errors():
            if not workspace.project.concerns(name):
                return Outcome(base, name, Status.SKIPPED, NO_MLX)
            facts = workspace.facts(name)
            return _as_decided(base, facts, plan(facts))
    except FileError as error:
        return _failed(base, name, error)


def _as_decided(base: Path, facts: FileFacts, decision: Decision) -> Outcome:
    line = facts.source.shown_line(decision.line)
    outcome = Outcome(base, facts.name, decision.status, decision.reason, line)
    if decision.status is not Status.CHANGED:
        return outcome
    rewritten = _rewritten(facts, decision)
    insertions = [item for item in decision.edits if isinstance(item, Insertion)]
    return dataclasses.replace(
        outcome,
        codemod=decision.codemod,
        review=decision.review,
        notes=tuple(
            Note(note.reason, facts.source.shown_line(note.line)) for note in decision.notes
        ),
        before=rewritten.before,
        after=rewritten.after,
        lines=rewritten.lines,
        needs=frozenset(item.needs for item in insertions if item.needs),
    )


def _rewritten(facts: FileFacts, decision: Decision) -> Rewritten:
    if isinstance(facts.source, Program):
        by_place = {statement.place: statement for statement in facts.module.top}
        insertions = [item for item in decision.edits if isinstance(item, Insertion)]
        edits = [(by_place[item.anchor], item) for item in insertions if item.anchor]
        return rewrite_notebook(facts.source, edits)
    # LibCST takes half a second to import: a run that rewrites nothing does without.
    from flash_integrate.python.rewrite import rewrite

    after = rewrite(facts.source, decision.edits)
    return Rewritten(facts.source.data, after, frozenset(verify(facts.source, after)))


def source_of(path: Path, data: bytes) -> Source:
    """A script, or the program of a notebook.

    Raises:
        UnreadableSource: as `Program.of`.
    """
    return Program.of(Notebook(path, data)) if path.suffix == SUFFIX else Source(path, data)


def reverted(path: Path, data: bytes) -> Rewritten | None:
    """A script or notebook without what the tool put into it; None if there is nothing of it.

    Raises:
        FileError: it can't be read, or without the insertions it would not be valid.
    """
    if path.suffix == SUFFIX:
        return revert_notebook(Notebook(path, data))
    return revert_script(Source(path, data))


def _revert_file(found: Found, kept: list[Kept]) -> Outcome:
    data = _read(found)
    if kept and found.path.suffix != SUFFIX:
        outcome = Outcome(found.base, found.name, Status.REVERTED, "", before=data)
        return take_back(outcome, found.path, kept)
    result = reverted(found.path, data)
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


def _scan(found: Found, words: tuple[bytes, ...]) -> Scan:
    data = _read(found)
    return Scan.of(
        scanned(Notebook(found.path, data)) if found.path.suffix == SUFFIX else data, words
    )


def _read(found: Found) -> bytes:
    if found.problem:
        raise FileError(found.problem)
    if found.path.suffix not in NAMED_SUFFIXES:
        raise FileError("not a Python file or a notebook")
    return read(found.path, found.base)


def _failed(base: Path, name: PurePosixPath, error: FileError) -> Outcome:
    return Outcome(base, name, Status.FAILED, str(error), error.line)
