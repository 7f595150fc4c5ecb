"""The run for programs: JSON as `report.schema.json`, beside this file, describes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from flash_integrate import __version__
from flash_integrate.attention.evidence import Evidence
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status

SCHEMA_VERSION = 2
"""Goes up when a reader of the last version could misread this one; a new key is no such change."""


_WORDS = {Status.INTEGRATED: "already-integrated"}
_WOULD = {Status.CHANGED: "would-change", Status.REVERTED: "would-revert"}
STATUSES = (
    "changed",
    "would-change",
    "reverted",
    "would-revert",
    "already-integrated",
    "skipped",
    "failed",
)
"""The words for how a file ends: those with would- are of a run that wrote nothing."""


def as_json(outcomes: Iterable[Outcome], mode: str, *, dry_run: bool) -> str:
    """The run as JSON: `files` in the order of the scan, `summary` the number of files by status.

    Pure ASCII, so that a file name which is no valid UTF-8 can be written, and read again, like
    any other.
    """
    files = [_file_as_dict(outcome, dry_run) for outcome in outcomes]
    summary = Counter(entry["status"] for entry in files)
    document = {
        "tool": "flash-integrate",
        "version": __version__,
        "schema_version": SCHEMA_VERSION,
        "mode": mode,
        "summary": {status: summary[status] for status in STATUSES},
        "files": files,
    }
    return json.dumps(document, indent=2) + "\n"


def _word(status: Status, dry_run: bool) -> str:
    would = _WOULD.get(status) if dry_run else None
    return would or _WORDS.get(status, status.value)


def _evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    links = [{"path": link.path.as_posix(), "line": link.line} for link in evidence.links]
    return {"kind": evidence.kind.value, "links": links, "ends": list(evidence.ends)}


def _file_as_dict(outcome: Outcome, dry_run: bool) -> dict[str, Any]:
    return {
        "path": outcome.name.as_posix(),
        "status": _word(outcome.status, dry_run),
        "reason": outcome.reason,
        "line": outcome.line,
        "evidence": _evidence_as_dict(outcome.evidence) if outcome.evidence else None,
        "codemod": outcome.codemod,
        "rewrites": [
            {
                "function": rewrite.function,
                "line": rewrite.line,
                "proved": rewrite.proved,
                "verdict": rewrite.verdict,
                "unseen_row": rewrite.unseen or None,
            }
            for rewrite in outcome.rewrites
        ],
        "review": outcome.review or None,
        # A change that could not be written failed: its lines are in no file.
        "changed_lines": sorted(outcome.lines) if outcome.changes else [],
        "notes": [{"line": note.line, "text": note.reason} for note in outcome.notes],
        "uncovered": [
            {"line": item.line, "entry": item.entry, "why": item.reason}
            for item in outcome.uncovered
        ],
    }
