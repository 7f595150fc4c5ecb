"""A script that comes through standard input and goes out through standard output."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from flash_integrate.facts.workspace import Workspace
from flash_integrate.plan import Decision, Status, plan
from flash_integrate.verify import verify


def rewrite_stdin(data: bytes, name: str = "<stdin>") -> tuple[bytes, Decision]:
    """The whole source as it is to be printed, and the decision; a file that is skipped comes back as it is.

    The file stands alone: it reaches attention only by what it imports or does itself, and nothing imports it.
    `name` is the path that it is said to have, by which tests and build scripts are left alone.

    Raises:
        FileError: the source can't be decoded, parsed or rewritten safely.
    """
    path = PurePosixPath(name)
    workspace = Workspace.alone(path, data, Path())
    if not workspace.project.concerns(path):
        return data, Decision(Status.SKIPPED, "no MLX")
    facts = workspace.facts(path)
    decision = plan(facts)
    if decision.status is not Status.CHANGED:
        return data, decision
    # LibCST takes half a second to import: a file that is not rewritten does without.
    from flash_integrate.rewrite import rewrite

    rewritten = rewrite(facts.source, decision.edits)
    verify(facts, rewritten)
    return rewritten, decision
