"""A file that comes through standard input and goes out through standard output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from flash_integrate.errors import FileError, own_errors
from flash_integrate.notebook.cells import Notebook
from flash_integrate.notebook.program import SUFFIX, scanned
from flash_integrate.planning.codemod import shared_words
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import reverted
from flash_integrate.planning.run import outcome_of, source_of
from flash_integrate.project.imports import Project, Scan
from flash_integrate.project.workspace import Workspace

NAME = "<stdin>"


def rewrite_stdin(
    data: bytes, name: str | None = None, wants: Callable[[str], bool] = lambda codemod: True
) -> tuple[bytes, Outcome]:
    """The whole file as it is to be printed, and its outcome; one that is skipped comes back as it
    is.

    The file stands alone: it reaches attention only by what it imports or does itself, and nothing
    imports it. `name` is the path that it is said to have, by which tests and build scripts are
    left alone; `wants` says of a codemod's name whether it is asked.

    Raises:
        FileError: the file can't be decoded, parsed or rewritten safely.
    """
    path = PurePosixPath(name or _name_of(data))
    with own_errors():
        text = scanned(Notebook(Path(path), data)) if path.suffix == SUFFIX else data
        project = Project(Path.cwd(), {path: Scan.of(text, shared_words())})
        workspace = Workspace(project, wants)
        workspace.editable.add(path)
        workspace.given[path] = source_of(Path(path), data)
    outcome = outcome_of(path, workspace)
    if outcome.status is Status.FAILED:
        raise FileError(outcome.reason, outcome.line)
    return (outcome.after if outcome.changes else data), outcome


def revert_stdin(data: bytes) -> bytes:
    """The file without what the tool put into it.

    Raises:
        FileError: it can't be decoded or parsed, or an insertion can't be taken out.
    """
    with own_errors():
        result = reverted(Path(_name_of(data)), data)
    return data if result is None else result.after


def _name_of(data: bytes) -> str:
    """What to call it: a notebook is told by its text, which no script looks like."""
    is_notebook = data.lstrip().startswith(b"{") and b'"nbformat"' in data
    return NAME + SUFFIX if is_notebook else NAME
