"""`--explain`: what the tool sees in a file, and why it does or does not change it."""

from __future__ import annotations

from collections.abc import Iterator

from flash_codemods.handwritten import handwritten_attention
from flash_codemods.handwritten.handwritten_attention import rewrites_of
from flash_integrate.planning.codemod import Edit, Refusal, Splice, name_of, registry
from flash_integrate.planning.plan import Status, plan, stays_as_it_is
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.quoting import quoted


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
    yield f"  attention: {facts.reached or 'none is reached'}"
    yield f"  started by: {', '.join(_entries(facts)) or 'nothing in it'}"
    for parser in facts.argparse.parsers_used:
        home = "" if parser.home == facts.name else f" of {quoted(parser.home)}"
        created, last = parser.created.line, parser.last_argument.line
        yield f"  parser: {parser.name}{home}, line {created}, last argument line {last}"
    for namespace in facts.argparse.namespaces:
        kind = "dict" if namespace.mapping else "namespace"
        use = (
            "passed on as a whole"
            if namespace.escapes or namespace.mapping
            else "used by its attributes alone"
        )
        yield f"  arguments: the {kind} {namespace.target}, line {namespace.statement.line}, {use}"
    for codemod in registry():
        yield f"  {name_of(codemod)}: {_verdict(codemod.match(facts))}"
    yield from _handwritten(facts, unproven)
    for edit in decision.edits:
        yield f"  inserts {_place(facts, edit)}:"
        text = edit.text if isinstance(edit, Splice) else edit.code
        yield from (f"    | {line}" for line in text.strip("\n").splitlines())
    for note in decision.notes:
        yield f"  note: {note.reason}" + (f" (line {note.line})" if note.line else "")


def _handwritten(facts: FileFacts, unproven: bool) -> Iterator[str]:
    """What becomes of each attention that the file writes out by hand."""
    if stays_as_it_is(facts) is not None:
        return
    rewrites, refusals = rewrites_of(facts.source, unproven=unproven)
    name = handwritten_attention.NAME
    for rewrite in rewrites:
        yield f"  {name}: line {rewrite.line}: {rewrite.described}"
    for refusal in refusals:
        yield f"  {name}: {_verdict(refusal)}"


def _entries(facts: FileFacts) -> Iterator[str]:
    if facts.guard is not None:
        yield f"__main__ guard, line {facts.guard.line}"
    if facts.first_work is not None:
        yield f"work at module level, line {facts.first_work.line}"
    yield from (f"installed command, line {item.line}" for item in facts.console_functions)


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
