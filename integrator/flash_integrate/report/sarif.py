"""The run for code scanning: SARIF 2.1.0 with what is still to be done in the tree once the run is
over.

A script that lacks the integration is a warning, with the insertions as its fix; a note for the
reviewer is a note; a file that failed is an error. What has been written, was skipped or is
integrated already is no result, so that a code scanning service closes its alerts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any
from urllib.parse import quote

from flash_integrate import __version__
from flash_integrate.attention.rewrites import Rewrite
from flash_integrate.planning.codemod import name_of, registry, rewriters
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.python.source import Source, split_lines
from flash_integrate.quoting import printable
from flash_integrate.report.diff import Line
from flash_integrate.report.lines import line_on_disk
from flash_integrate.report.text import hunks_of

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
NOTE_RULE = "review-note"
FAILURE_RULE = "failure"


def as_sarif(outcomes: Iterable[Outcome], *, dry_run: bool) -> str:
    """The run as a SARIF log; paths are relative to `%SRCROOT%`, the top of the checkout.

    Raises:
        UnreadableSource: the text of a change can't be decoded; the rewrite has decoded it before.
    """
    outcomes = list(outcomes)
    rules = list(_rules())
    positions = {rule["id"]: index for index, rule in enumerate(rules)}
    results = [result for outcome in outcomes for result in _results(outcome, dry_run)]
    driver = {
        "name": "flash-integrate",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": rules,
    }
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The top of the checkout."}}},
        "columnKind": "unicodeCodePoints",
        "results": [{**result, "ruleIndex": positions[result["ruleId"]]} for result in results],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rules() -> Iterator[dict[str, Any]]:
    codemods = (*registry(), *rewriters())
    editors = {name_of(codemod): (codemod.SUMMARY, codemod.REVIEW) for codemod in codemods}
    for name, (summary, review) in editors.items():
        help_text = (
            f"`flash-integrate` inserts the integration. What to look at in its diff: {review}."
        )
        yield _rule(name, "warning", summary, help_text)
    note = "Something that the tool does not change, and that a person should know of."
    yield _rule(NOTE_RULE, "note", "A note for the reviewer", note)
    failure = "The file was left as it is. The message says why; the other files are not affected."
    yield _rule(
        FAILURE_RULE,
        "error",
        "A file that could not be read, rewritten safely, or written",
        failure,
    )


def _rule(name: str, level: str, summary: str, help_text: str) -> dict[str, Any]:
    return {
        "id": name,
        "shortDescription": {"text": summary},
        "fullDescription": {"text": summary},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": level},
    }


def _results(outcome: Outcome, dry_run: bool) -> Iterator[dict[str, Any]]:
    if outcome.status is Status.FAILED:
        yield _result(outcome, FAILURE_RULE, "error", outcome.reason, outcome.line)
    elif outcome.status is Status.CHANGED and dry_run:
        yield from (_rewrite_result(outcome, rewrite) for rewrite in outcome.rewrites)
    if outcome.status is Status.CHANGED and dry_run and outcome.after != outcome.before:
        replacements = [_replacement(outcome, lines) for lines in _edits(outcome)]
        message = (
            f"Lacks the Flash Attention runtime: {outcome.reason}. To review: {outcome.review}."
        )
        result = _result(outcome, str(outcome.codemod), "warning", message, _first_line(outcome))
        change = {"artifactLocation": _location(outcome), "replacements": replacements}
        yield {
            **result,
            "fixes": [
                {"description": {"text": "Insert the integration."}, "artifactChanges": [change]}
            ],
        }
    for note in outcome.notes:
        line = line_on_disk(outcome, note.line or 1, dry_run=dry_run)
        yield _result(outcome, NOTE_RULE, "note", note.reason, line)
    for item in outcome.uncovered:
        line = line_on_disk(outcome, item.line or 1, dry_run=dry_run)
        message = f"Not covered: {item.entry}: {item.reason}"
        yield _result(outcome, NOTE_RULE, "note", message, line)


def _rewrite_result(outcome: Outcome, rewrite: Rewrite) -> dict[str, Any]:
    """Attention by hand, with the fused call as its fix."""
    rewriter = rewriters()[0]
    message = f"By hand: {rewrite.described}. To review: {rewriter.REVIEW}."
    result = _result(outcome, name_of(rewriter), "warning", message, rewrite.line)
    encoding = Source(outcome.path, outcome.before).encoding.removesuffix("-sig")
    lines = split_lines(rewrite.before)
    end = {"endLine": rewrite.first_line + len(lines), "endColumn": 1}
    if not lines[-1].endswith((b"\n", b"\r")):
        last = lines[-1].decode(encoding)
        end = {"endLine": rewrite.first_line + len(lines) - 1, "endColumn": len(last) + 1}
    replacement = {
        "deletedRegion": {"startLine": rewrite.first_line, "startColumn": 1, **end},
        "insertedContent": {"text": rewrite.after.decode(encoding)},
    }
    change = {"artifactLocation": _location(outcome), "replacements": [replacement]}
    fix = {"description": {"text": "Make it a fused call."}, "artifactChanges": [change]}
    return {**result, "fixes": [fix]}


def _result(
    outcome: Outcome, rule: str, level: str, message: str, line: int | None
) -> dict[str, Any]:
    place = {"artifactLocation": _location(outcome), "region": {"startLine": line or 1}}
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": printable(message)},
        "locations": [{"physicalLocation": place}],
    }


def _location(outcome: Outcome) -> dict[str, str]:
    return {"uri": quote(os.fsencode(outcome.name)), "uriBaseId": "%SRCROOT%"}


def _first_line(outcome: Outcome) -> int:
    """The line below which the first insertion goes, or of which it changes a part."""
    first = _edits(outcome)[0][0]
    return max(1, first.old + (first.mark == "-"))


def _edits(outcome: Outcome) -> list[list[Line]]:
    """The runs of changed lines."""
    lines = [line for hunk in hunks_of(outcome) for line in hunk.lines]
    return [
        list(group)
        for unchanged, group in groupby(lines, key=lambda line: line.mark == " ")
        if not unchanged
    ]


def _replacement(outcome: Outcome, lines: list[Line]) -> dict[str, Any]:
    """A run of changed lines as a replacement: an empty region is a place to insert at.

    A line is replaced only where a part of it changes: the last line of a file gains a newline, a
    notebook a comma.
    """
    encoding = Source(outcome.path, outcome.after).encoding
    old, new = (
        [line.data.decode(encoding) for line in lines if line.mark == mark] for mark in "-+"
    )
    start = lines[0].old + 1
    if old and not old[-1].endswith(("\r", "\n")):
        end = {"endLine": start + len(old) - 1, "endColumn": len(old[-1]) + 1}
    else:
        end = {"endLine": start + len(old), "endColumn": 1}
    return {
        "deletedRegion": {"startLine": start, "startColumn": 1, **end},
        "insertedContent": {"text": "".join(new)},
    }
