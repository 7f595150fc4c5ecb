"""`--explain`: what the tool sees in a file, and why it does or does not change it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from flash_integrate.attention.reach import reached
from flash_integrate.notebook.program import SUFFIX
from flash_integrate.notes import Refusal
from flash_integrate.planning.codemod import asked, name_of, registry, rewriters
from flash_integrate.planning.installed import console_functions
from flash_integrate.planning.outcome import NO_MLX
from flash_integrate.planning.plan import Status, plan, stays_as_it_is
from flash_integrate.planning.run import Run
from flash_integrate.planning.starts import Starts
from flash_integrate.project.config import Config
from flash_integrate.project.discover import discover
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Splice
from flash_integrate.quoting import quoted


def explain_files(paths: list[Path], exclude: Iterable[str], config: Config) -> Iterator[str]:
    """Lines that say, of each file below `paths`, what is seen in it and why it is or is not
    changed."""
    run = Run(config)
    files = list(discover(paths, exclude))
    for found in files:
        run.scan(found, look_further=True)
    for found in files:
        outcome = run.outcome(found)
        if outcome.reason == NO_MLX or outcome.status is Status.FAILED:
            yield f"{quoted(found.name)}: {outcome.status.value}: {outcome.reason}"
        else:
            facts = run.workspaces[found.base].facts(found.name)
            yield from list(explain(facts, unproven=config.unproven))


def explain(facts: FileFacts, *, unproven: bool = False) -> Iterator[str]:
    """Lines of text on one file.

    Raises:
        UnreadableSource: the file can't be decoded or parsed.
    """
    decision = plan(facts)
    where = f" (line {decision.line})" if decision.line else ""
    change = (
        f"{decision.codemod} changes it"
        if decision.status is Status.CHANGED
        else decision.status.value
    )
    yield f"{quoted(facts.name)}: {change}: {decision.reason}{where}"
    yield f"  attention: {facts.get(reached) or 'none is reached'}"
    yield f"  started by: {', '.join(_entries(facts)) or 'nothing in it'}"
    for codemod in registry():
        yield from (f"  {line}" for line in asked(codemod, "explain", facts) or ())
    for codemod in registry():
        yield f"  {name_of(codemod)}: {_verdict(codemod.match(facts))}"
    yield from _rewrites(facts, unproven)
    for edit in decision.edits:
        yield f"  inserts {_place(facts, edit)}:"
        text = edit.text if isinstance(edit, Splice) else edit.code
        yield from (f"    | {line}" for line in text.strip("\n").splitlines())
    for note in decision.notes:
        yield f"  note: {note.reason}" + (f" (line {note.line})" if note.line else "")


def _rewrites(facts: FileFacts, unproven: bool) -> Iterator[str]:
    """What becomes of each attention that the file writes out by hand."""
    if stays_as_it_is(facts) is not None or facts.name.suffix == SUFFIX:
        return
    for rewriter in rewriters():
        rewrites, refusals = rewriter.rewrites_of(facts.source, unproven=unproven)
        for rewrite in rewrites:
            yield f"  {name_of(rewriter)}: line {rewrite.line}: {rewrite.described}"
        for refusal in refusals:
            yield f"  {name_of(rewriter)}: {_verdict(refusal)}"


def _entries(facts: FileFacts) -> Iterator[str]:
    starts = facts.get(Starts)
    if starts.guard is not None:
        yield f"__main__ guard, line {starts.guard.line}"
    if starts.first_work is not None:
        yield f"work at module level, line {starts.first_work.line}"
    yield from (f"installed command, line {item.line}" for item in facts.get(console_functions))


def _verdict(match: object) -> str:
    if isinstance(match, Refusal):
        return f"refuses: {match.reason}" + (f" (line {match.line})" if match.line else "")
    return "another style" if match is None else "fits"


def _place(facts: FileFacts, edit: Edit) -> str:
    if isinstance(edit, Splice):
        return f"in line {edit.at[0]}" if edit.at[1] else f"before line {edit.at[0]}"
    if edit.anchor is None:
        return "at the start"
    statement = next(item for item in facts.statements if item.place == edit.anchor)
    return (
        f"before line {statement.line}"
        if edit.before
        else f"after line {statement.node.end_lineno}"
    )
