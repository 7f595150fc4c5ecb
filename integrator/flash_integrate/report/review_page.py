"""The run as one HTML page to review it on: every hunk with its reason and how it was checked, and
what was left out and why. It needs nothing else: no network, no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from flash_integrate import __version__
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.quoting import quoted, visible
from flash_integrate.report.diff import Hunk
from flash_integrate.report.lines import line_on_disk
from flash_integrate.report.text import hunks_of, replacing_hunks

# In this order, with whether they are shown at first.
_KINDS = {
    Status.CHANGED: ("changed", True),
    Status.REVERTED: ("reverted", True),
    Status.FAILED: ("failed", True),
    Status.INTEGRATED: ("integrated already", False),
    Status.SKIPPED: ("left as they are", False),
}
_MARKS = {"+": "add", "-": "del", "@": "at"}


def as_html(outcomes: Sequence[Outcome], *, dry_run: bool) -> str:
    """The page."""
    order = list(_KINDS)
    sorted_ones = sorted(outcomes, key=lambda outcome: order.index(outcome.status))
    parts = {
        "TITLE": f"flash-integrate {__version__}: {'a dry run' if dry_run else 'what was done'}",
        "KINDS": "\n".join(_choices(outcomes)),
        "FILES": "\n".join(_article(outcome, dry_run) for outcome in sorted_ones),
    }
    template = (files("flash_integrate.report") / "review_page.html").read_text(encoding="utf-8")
    # In one pass: a user's file may have these words in it.
    return re.sub("@(TITLE|KINDS|FILES)@", lambda found: parts[found[1]], template)


def _choices(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A box to tick for each kind of outcome that there is."""
    has_changes = any(outcome.status is not Status.SKIPPED for outcome in outcomes)
    for status, (words, is_shown) in _KINDS.items():
        count = sum(outcome.status is status for outcome in outcomes)
        if count:
            checked = " checked" if is_shown or not has_changes else ""
            box = f'<input type="checkbox" style="width:auto" value="{status.value}"{checked}>'
            yield f"<label>{box} {words}: {count}</label>"


def _article(outcome: Outcome, dry_run: bool) -> str:
    """One file."""
    status = outcome.status
    place = quoted(outcome.name) + (f":{outcome.line}" if outcome.line else "")
    parts = [
        f'<article tabindex="0" data-kind="{status.value}" class="{status.value}">',
        f"<h2>{_text(place)}</h2>",
        f'<p class="how">{_text(_how(outcome))}</p>',
    ]
    if outcome.evidence:
        parts.append(f"<p>Attention: {_text(str(outcome.evidence))}</p>")
    if outcome.review and outcome.changes:
        parts.append(f"<p>To review: {_text(outcome.review)}</p>")
    for rewrite in outcome.rewrites if status is Status.CHANGED else ():
        checked = "proved" if rewrite.proved else "not proved"
        parts.append(f"<p>Line {rewrite.line}, {checked}: {_text(rewrite.described)}</p>")
    if outcome.notes:
        parts.append("<ul>")
        for note in outcome.notes:
            line = line_on_disk(outcome, note.line, dry_run=dry_run) if note.line else None
            where = f"line {line}: " if line else ""
            parts.append(f"<li>{where}{_text(note.reason)}</li>")
        parts.append("</ul>")
    if outcome.uncovered:
        parts.append("<p>Not covered:</p><ul>")
        for item in outcome.uncovered:
            parts.append(f"<li>line {item.line}, {_text(item.entry)}: {_text(item.reason)}</li>")
        parts.append("</ul>")
    if outcome.changes:
        hunks = replacing_hunks(outcome) if outcome.replaces else hunks_of(outcome)
        parts += [_pre(hunk) for hunk in hunks]
    return "\n".join([*parts, "</article>"])


def _how(outcome: Outcome) -> str:
    if outcome.status is Status.INTEGRATED:
        return "already integrated"
    if outcome.codemod and outcome.status is Status.CHANGED:
        # With evidence the reason is its chain, which has a line of its own.
        return outcome.codemod if outcome.evidence else f"{outcome.codemod}: {outcome.reason}"
    return outcome.reason


def _pre(hunk: Hunk) -> str:
    spans = []
    for data in hunk.text():
        line = data.decode(errors="replace").rstrip("\r\n")
        kind = _MARKS.get(line[:1])
        start = f'<span class="{kind}">' if kind else "<span>"
        spans.append(f"{start}{_text(line) or ' '}</span>")
    return f"<pre>{''.join(spans)}</pre>"


def _text(text: str) -> str:
    """Text as HTML shows it, what can't be printed escaped."""
    return escape(visible(text))
