"""A script that comes through standard input and goes out through standard output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from flash_integrate.errors import own_errors
from flash_integrate.inserted.revert import revert_script
from flash_integrate.inserted.verify import verify
from flash_integrate.planning.plan import Decision, Status, plan
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.source import Source

NAME = "<stdin>"


def rewrite_stdin(
    data: bytes, name: str = NAME, wants: Callable[[str], bool] = lambda codemod: True
) -> tuple[bytes, Decision]:
    """The whole source as it is to be printed, and the decision; a file that is skipped comes back
    as it is.

    The file stands alone: it reaches attention only by what it imports or does itself, and nothing
    imports it. `name` is the path that it is said to have, by which tests and build scripts are
    left alone; `wants` says of a codemod's name whether it is asked.

    Raises:
        FileError: the source can't be decoded, parsed or rewritten safely.
    """
    with own_errors():
        return _rewrite(data, PurePosixPath(name), wants)


def revert_stdin(data: bytes) -> bytes:
    """The source without what the tool put into it.

    Raises:
        FileError: the source can't be decoded or parsed, or an insertion can't be taken out.
    """
    with own_errors():
        reverted = revert_script(Source(Path(NAME), data))
    return data if reverted is None else reverted.after


def _rewrite(
    data: bytes, name: PurePosixPath, wants: Callable[[str], bool]
) -> tuple[bytes, Decision]:
    workspace = Workspace.alone(name, data, Path.cwd(), wants)
    if not workspace.project.concerns(name):
        return data, Decision(Status.SKIPPED, "no MLX")
    facts = workspace.facts(name)
    decision = plan(facts)
    if decision.status is not Status.CHANGED:
        return data, decision
    # LibCST takes half a second to import: a file that is not rewritten does without.
    from flash_integrate.python.rewrite import rewrite

    rewritten = rewrite(facts.source, decision.edits)
    verify(facts, rewritten)
    return rewritten, decision
