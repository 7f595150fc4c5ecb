"""`--explain`: what the tool sees in a file, and why it does or does not change it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flash_integrate.attention.signs import reached
from flash_integrate.notes import Refusal
from flash_integrate.planning.by_hand import written_out
from flash_integrate.planning.codemod import asked, name_of, registry
from flash_integrate.planning.installed import console_functions
from flash_integrate.planning.outcome import NO_MLX, Outcome
from flash_integrate.planning.plan import Decision, Status, plan, stays_as_it_is
from flash_integrate.planning.run import Run
from flash_integrate.planning.starts import Starts
from flash_integrate.project.discover import Found
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Splice
from flash_integrate.quoting import quoted


def explain_files(run: Run, files: Iterable[Found]) -> Iterator[str]:
    """Lines that say, of each file that the run has scanned, what is seen in it and why it is or
    is not changed."""
    for found in files:
        outcome = run.outcome(found)
        stays = outcome.reason == NO_MLX or run.left_out(found) is not None
        if stays or outcome.status is Status.FAILED:
            line = f":{outcome.line}" if outcome.line else ""
            yield f"{quoted(found.name)}{line}: {outcome.status.value}: {outcome.reason}"
        else:
            facts = run.workspaces[found.base].facts(found.name)
            yield from list(_explain(facts, outcome))


def _explain(facts: FileFacts, outcome: Outcome) -> Iterator[str]:
    """Lines of text on one file that can be read."""
    decision = plan(facts)
    changes = outcome.status is Status.CHANGED
    change = f"{outcome.codemod} changes it" if changes else outcome.status.value
    where = f" (line {outcome.line})" if outcome.line else ""
    yield f"{quoted(facts.name)}: {change}: {outcome.reason}{where}"
    yield from (f"  attention: {chain}" for chain in _chains(facts))
    yield f"  started by: {', '.join(_entries(facts)) or 'nothing in it'}"
    if decision.status is not Status.INTEGRATED and stays_as_it_is(facts) is None:
        yield from _codemods(facts, decision)
        yield from _rewrites(facts)
    for edit in decision.edits:
        yield f"  inserts {_place(facts, edit)}:"
        text = edit.text if isinstance(edit, Splice) else edit.code
        yield from (f"    | {line}" for line in text.strip("\n").splitlines())
    for item in decision.uncovered:
        where = f" (line {item.line})" if item.line else ""
        yield f"  not covered: {item.entry}: {item.reason}{where}"
    for note in decision.notes:
        yield f"  note: {note.reason}{_line(facts, note.line)}"


def _codemods(facts: FileFacts, decision: Decision) -> Iterator[str]:
    """What those codemods say that are meant for a file like this one."""
    for codemod in registry():
        name = name_of(codemod)
        if not facts.workspace.wants(name):
            continue
        yield from (f"  {line}" for line in asked(codemod, "explain", facts) or ())
        match = codemod.match(facts)
        if isinstance(match, Refusal):
            yield f"  {name}: does not change it: {match.reason}{_line(facts, match.line)}"
        elif match is not None and name != decision.codemod:
            yield f"  {name}: fits, {'and is asked later' if decision.codemod else 'in form'}"


def _chains(facts: FileFacts) -> list[str]:
    """How the file comes to attention: the shortest way, or each way to attention by hand."""
    found = facts.get(reached)
    chains = [found.routed] if found.routed else found.by_hand
    return [str(chain) for chain in chains] or ["none is reached"]


def _rewrites(facts: FileFacts) -> Iterator[str]:
    """What becomes of each attention that the file writes out by hand."""
    for found in facts.get(written_out):
        name = name_of(found.rewriter)
        for rewrite in found.rewrites:
            yield f"  {name}: line {rewrite.line}: {rewrite.described}"
        for refusal in found.refusals:
            yield f"  {name}: stays by hand: {refusal.reason}{_line(facts, refusal.line)}"


def _entries(facts: FileFacts) -> Iterator[str]:
    starts = facts.get(Starts)
    if starts.guard is not None:
        yield f"__main__ guard{_line(facts, starts.guard.line)}"
    if starts.first_work is not None:
        yield f"work at module level{_line(facts, starts.first_work.line)}"
    for item in facts.get(console_functions):
        yield f"installed command{_line(facts, item.line)}"


def _line(facts: FileFacts, line: int | None) -> str:
    """A line as the file has it, which a notebook's program has not."""
    shown = facts.source.shown_line(line)
    return f" (line {shown})" if shown else ""


def _place(facts: FileFacts, edit: Edit) -> str:
    if isinstance(edit, Splice):
        return f"in line {edit.at[0]}" if edit.at[1] else f"before line {edit.at[0]}"
    if edit.anchor is None:
        return "at the start"
    statement = next(item for item in facts.statements if item.steps == edit.anchor)
    line = statement.line if edit.before else statement.node.end_lineno
    return f"{'before' if edit.before else 'after'} line {facts.source.shown_line(line)}"
