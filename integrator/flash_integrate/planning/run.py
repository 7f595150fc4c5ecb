"""The pipeline over a tree: discover, read, plan, rewrite, verify. Writes nothing; every file gets
an outcome."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from flash_integrate.disk.reading import read
from flash_integrate.errors import FileError, own_errors
from flash_integrate.inserted.verify import verify
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.program import SUFFIX, Program, scanned
from flash_integrate.notebook.rewriting import rewrite_notebook
from flash_integrate.notes import Note, Uncovered
from flash_integrate.planning.by_hand import WrittenOut, begin_proofs, written_out
from flash_integrate.planning.children import uncovered_in_shell_script
from flash_integrate.planning.outcome import NO_MLX, Outcome
from flash_integrate.planning.plan import NO_ATTENTION, Decision, Status, may_matter, plan
from flash_integrate.planning.pool import in_processes
from flash_integrate.planning.rewriting import with_rewrites
from flash_integrate.project.config import Config
from flash_integrate.project.discover import (
    NAMED_SUFFIXES,
    SHELL_SUFFIX,
    SUFFIXES,
    Found,
    discover,
)
from flash_integrate.project.imports import Project
from flash_integrate.project.kinds import skip_by_name
from flash_integrate.project.processes import Processes
from flash_integrate.project.scan import Scan
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.edits import Insertion, Rewritten
from flash_integrate.python.processes import OwnProcesses
from flash_integrate.python.source import Source

Progress = Callable[[Sequence[Found], str], Iterable[Found]]
"""Passes files on, and may show how far they are."""

EVERYTHING = Config()
COPIED = "in a folder for copies of other projects: name it to have it changed"


def integrate(
    paths: list[Path],
    exclude: Iterable[str],
    progress: Progress,
    config: Config = EVERYTHING,
    jobs: int | None = None,
) -> list[Outcome]:
    """The outcome of each Python file and notebook below `paths`, as if they were written, and of
    each shell script that runs a model.

    `jobs` processes share the planning, and as many the proofs, which begin as soon as a file is
    read; None leaves the number for the planning to the number of files that concern MLX.
    """
    files: list[Found] = []
    shell_scripts: list[Found] = []
    named = {path.resolve() for path in paths}
    for found in discover(paths, exclude, SUFFIXES | {SHELL_SUFFIX}):
        is_shell_script = found.path.suffix == SHELL_SUFFIX and found.path not in named
        (shell_scripts if is_shell_script else files).append(found)
    run = Run(config)
    look_further = any(path.is_file() for path in paths)
    with closing(OwnProcesses(jobs or os.cpu_count() or 1)) as processes:
        for found in progress(files, "reading"):
            run.scan(found, look_further)
            run.begin_proofs(found, processes)
        # Before the planning, which asks for them in every script that comes to such attention.
        for found in progress(list(run.proofs), "proving"):
            run.end_proofs(found)
    jobs = jobs or run.reasonable_jobs()
    outcomes = in_processes(run.outcome, progress(files, "planning"), files, jobs)
    return outcomes + [
        outcome for found in shell_scripts if (outcome := run.of_shell_script(found)).uncovered
    ]


class Run:
    """The workspaces of one run, a base folder each, and the files that failed. `given`
    are files whose bytes are at hand, and are not read from disk."""

    def __init__(self, config: Config, given: Mapping[Path, bytes] | None = None) -> None:
        self.config = config
        self.given = given or {}
        self.workspaces: dict[Path, Workspace] = {}
        self.failed: dict[Path, Outcome] = {}
        self.proofs: dict[Found, Callable[[], list[WrittenOut]]] = {}

    def scan(self, found: Found, look_further: bool) -> None:
        """Takes a file into its workspace."""
        workspace = self._workspace(found.base, look_further)
        try:
            with own_errors():
                data = self.given.get(found.path)
                if data is not None:
                    workspace.given[found.name] = source_of(found.path, data)
                else:
                    data = read_found(found)
                workspace.project.scans[found.name] = _scan(found.path, data)
        except FileError as error:
            self.failed[found.path] = failed(found.base, found.name, error)
        else:
            if self.left_out(found) is None:
                workspace.editable.add(found.name)
                if found.path.suffix != SUFFIX:
                    workspace.rewritable.add(found.name)

    def _workspace(self, base: Path, look_further: bool = False) -> Workspace:
        if base not in self.workspaces:
            project = Project(base, {}, look_further)
            self.workspaces[base] = Workspace(project, self.config.wants, source_of)
            self.workspaces[base].unproven = self.config.unproven
        return self.workspaces[base]

    def left_out(self, found: Found) -> str | None:
        """Why a file is left as it is whatever it holds: other files may still lead through it."""
        reason = self.config.leaves_out(found.path)
        if reason is None and found.is_copied and not self.config.names(found.path):
            return COPIED
        return reason

    def may_rewrite(self, found: Found) -> bool:
        """Whether a file may have attention by hand that is to become a fused call."""
        if found.path in self.failed or self.left_out(found):
            return False
        workspace = self.workspaces[found.base]
        scan = workspace.project.scans[found.name]
        return (
            scan.names_mlx
            and scan.has_softmax
            and found.name in workspace.rewritable
            and skip_by_name(found.name) is None
        )

    def begin_proofs(self, found: Found, processes: OwnProcesses) -> None:
        """Has the proofs of a file made that is scanned, if it may have any."""
        if self.may_rewrite(found):
            try:
                with own_errors():
                    facts = self.workspaces[found.base].facts(found.name)
                    self.proofs[found] = begin_proofs(facts, processes)
            except FileError:  # reported when the file's own turn comes
                pass
        processes.go_on()

    def end_proofs(self, found: Found) -> None:
        """Waits for the proofs of a file, for its planning to find them."""
        known = self.workspaces[found.base].known
        known[found.name, written_out] = self.proofs.pop(found)()

    def reasonable_jobs(self) -> int:
        """One process for every forty files that name MLX, at most one for each processor."""
        scans = (
            scan
            for workspace in self.workspaces.values()
            for scan in workspace.project.scans.values()
        )
        files = sum(scan.names_mlx for scan in scans)
        return min(os.cpu_count() or 1, 1 + files // 40)

    def outcome(self, found: Found) -> Outcome:
        if found.path in self.failed:
            return self.failed[found.path]
        workspace = self.workspaces[found.base]
        if reason := self.left_out(found):
            if reason == COPIED and not workspace.project.concerns(found.name):
                reason = NO_MLX
            return Outcome(found.base, found.name, Status.SKIPPED, reason)
        outcome = outcome_of(found.name, workspace)
        scan = workspace.project.scans[found.name]
        if scan.names_mlx and scan.may_attend and found.name in workspace.rewritable:
            outcome = self._rewritten(outcome)
        if outcome.status is Status.FAILED:
            self.failed[found.path] = outcome
        workspace.forget(found.name)
        return outcome

    def of_shell_script(self, found: Found) -> Outcome:
        """The outcome of a shell script, which stays as it is: the models that it runs."""
        uncovered: tuple[Uncovered, ...] = ()
        if self.left_out(found) is None:
            try:
                data = read(found.path, found.base)
            except FileError:  # it is not for this tool to change
                data = b""
            workspace = self._workspace(found.base)
            uncovered = tuple(uncovered_in_shell_script(workspace, found.name, data))
        return Outcome(
            found.base, found.name, Status.SKIPPED, "a shell script", uncovered=uncovered
        )

    def _rewritten(self, outcome: Outcome) -> Outcome:
        try:
            with own_errors():
                facts = self.workspaces[outcome.base].facts(outcome.name)
                return with_rewrites(outcome, facts)
        except FileError as error:
            return failed(outcome.base, outcome.name, error)


def outcome_of(name: PurePosixPath, workspace: Workspace) -> Outcome:
    """The outcome of one file of a workspace, script or notebook, wherever its bytes are from."""
    base = workspace.project.base
    try:
        with own_errors():
            if not workspace.project.concerns(name):
                return Outcome(base, name, Status.SKIPPED, NO_MLX)
            if not may_matter(workspace, name):
                reason = skip_by_name(name) or NO_ATTENTION
                return Outcome(base, name, Status.SKIPPED, reason)
            facts = workspace.facts(name)
            return _as_decided(base, facts, plan(facts))
    except FileError as error:
        return failed(base, name, error)


def _as_decided(base: Path, facts: FileFacts, decision: Decision) -> Outcome:
    line = facts.source.shown_line(decision.line)
    uncovered = tuple(
        dataclasses.replace(item, line=facts.source.shown_line(item.line))
        for item in decision.uncovered
    )
    outcome = Outcome(
        base,
        facts.name,
        decision.status,
        decision.reason,
        line,
        notes=tuple(
            Note(note.reason, facts.source.shown_line(note.line)) for note in decision.notes
        ),
        evidence=decision.evidence,
        uncovered=uncovered,
        starts=facts.workspace.get(Processes).started_elsewhere(facts.name),
    )
    if decision.status is not Status.CHANGED:
        return outcome
    rewritten = _rewritten(facts, decision)
    return dataclasses.replace(
        outcome,
        codemod=decision.codemod,
        review=decision.review,
        before=rewritten.before,
        after=rewritten.after,
        lines=rewritten.lines,
    )


def _rewritten(facts: FileFacts, decision: Decision) -> Rewritten:
    if isinstance(facts.source, Program):
        by_steps = {statement.steps: statement for statement in facts.module.top}
        insertions = [item for item in decision.edits if isinstance(item, Insertion)]
        edits = [(by_steps[item.anchor], item) for item in insertions if item.anchor]
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


def _scan(path: Path, data: bytes) -> Scan:
    return Scan.of(scanned(Notebook(path, data)) if path.suffix == SUFFIX else data)


def read_found(found: Found) -> bytes:
    """The bytes of a file that was discovered.

    Raises:
        FileError: it can't be read, or is no file for this tool.
    """
    if found.problem:
        raise FileError(found.problem)
    if found.path.suffix not in NAMED_SUFFIXES:
        raise FileError("not a Python file or a notebook")
    return read(found.path, found.base)


def failed(base: Path, name: PurePosixPath, error: FileError) -> Outcome:
    """The outcome of a file that met an error."""
    return Outcome(base, name, Status.FAILED, str(error), error.line)
