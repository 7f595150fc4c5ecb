"""The run as a pull request's body: what changed, what to review, what was left out, and the ways
back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from flash_integrate import __version__
from flash_integrate.inserted.snippets import BLOCK_SIZE_FLAG, DISABLE_FLAG, RUNTIME
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.quoting import printable, quoted
from flash_integrate.report.lines import line_on_disk

NAMED_PER_REASON = 20
"""Of the files that were skipped for one reason, so many are named: a body has at most 65,536
characters on GitHub."""

_WAYS_BACK = f"""\
### Switching it off

- A script that got the flags: `{DISABLE_FLAG}` runs it on MLX's own attention, \
`{BLOCK_SIZE_FLAG} N` sets the
  block size.
- Any script: `MLX_FLASH_DISABLE=1` and `MLX_FLASH_BLOCK_SIZE=N` in the environment.
- On a machine without `{RUNTIME}` the scripts run on MLX's own attention.

### Undo

`flash-integrate --revert .` takes the inserted lines out again; \
files that were not edited since are then as before,
byte for byte.
"""


def as_markdown(outcomes: Sequence[Outcome], *, dry_run: bool) -> str:
    """The run as Markdown in GitHub's flavour."""
    sections = [
        _head(outcomes, dry_run),
        _changes(outcomes),
        _rewrites(outcomes),
        _notes(outcomes, dry_run),
        _uncovered(outcomes, dry_run),
        _failures(outcomes),
        _skipped(outcomes),
        _WAYS_BACK if _with(outcomes, Status.CHANGED) else "",
    ]
    return "\n".join(section for section in sections if section)


def _with(outcomes: Iterable[Outcome], *statuses: Status) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.status in statuses]


def _head(outcomes: Sequence[Outcome], dry_run: bool) -> str:
    changed, reverted = _with(outcomes, Status.CHANGED), _with(outcomes, Status.REVERTED)
    if changed:
        verb = "Would put" if dry_run else "Puts"
        inserted = [outcome for outcome in changed if outcome.after != outcome.before]
        rewritten = [outcome for outcome in changed if outcome.rewrites]
        what = ""
        if inserted:
            what = (
                f"{verb} the Flash Attention runtime into {_files(inserted)}. "
                "Insertions only: what was there stays."
            )
        if rewritten:
            verb = "Would turn" if dry_run else "Turns"
            count = sum(len(outcome.rewrites) for outcome in rewritten)
            what += f" {verb} attention written by hand into a fused call: {count} in "
            what = f"{what.strip()} {_files(rewritten)}, a change of the model's own code."
    elif reverted:
        verb = "Would take" if dry_run else "Takes"
        what = f"{verb} the Flash Attention runtime out of {_files(reverted)}."
    else:
        what = "Nothing to change."
    return f"{what} Made by flash-integrate {__version__}.\n"


def _files(outcomes: Sequence[Outcome]) -> str:
    return f"{len(outcomes)} file{'s' if len(outcomes) != 1 else ''}"


def _changes(outcomes: Iterable[Outcome]) -> str:
    rows = [
        f"| {_code(quoted(outcome.name))} | {_how(outcome)} | {_text(outcome.review)} |"
        for outcome in _with(outcomes, Status.CHANGED, Status.REVERTED)
    ]
    return _section(
        "What changed", ["| file | how | what to review |", "|---|---|---|", *rows] if rows else []
    )


def _rewrites(outcomes: Iterable[Outcome]) -> str:
    """Each rewrite of a model's own code, with how it was checked."""
    rows = [
        f"| {_place(outcome, rewrite.line)} | {_code(rewrite.function)} | {_text(rewrite.verdict)} "
        f"| {_text(rewrite.unseen)} |"
        for outcome in _with(outcomes, Status.CHANGED)
        for rewrite in outcome.rewrites
    ]
    head = ["| where | function | checked | rows without a key |", "|---|---|---|---|"]
    title = "Attention by hand, now a fused call"
    return _section(title, [*head, *rows] if rows else [])


def _how(outcome: Outcome) -> str:
    if outcome.status is Status.REVERTED:
        return _text(outcome.reason)
    if outcome.after == outcome.before:
        return f"{_text(outcome.codemod or '')}: {_text(outcome.reason)}"
    size = f"{len(outcome.lines)} lines" if outcome.lines else "a part of a line"
    why = _code(printable(outcome.reason)) if outcome.evidence else _text(outcome.reason)
    return f"{_text(outcome.codemod or '')}: {size}; {why}"


def _notes(outcomes: Iterable[Outcome], dry_run: bool) -> str:
    return _section("For the reviewer", list(_note_lines(outcomes, dry_run)))


def _note_lines(outcomes: Iterable[Outcome], dry_run: bool) -> Iterator[str]:
    for outcome in outcomes:
        for note in outcome.notes:
            line = line_on_disk(outcome, note.line, dry_run=dry_run) if note.line else None
            yield f"- {_place(outcome, line)}: {_text(note.reason)}"


def _uncovered(outcomes: Iterable[Outcome], dry_run: bool) -> str:
    """The ways to start attention that pass by every call."""
    lines = []
    for outcome in outcomes:
        for item in outcome.uncovered:
            line = line_on_disk(outcome, item.line, dry_run=dry_run) if item.line else None
            lines.append(f"- {_place(outcome, line)}: {_text(item.entry)}: {_text(item.reason)}")
    return _section("Not covered", lines)


def _failures(outcomes: Iterable[Outcome]) -> str:
    failed = _with(outcomes, Status.FAILED)
    lines = [f"- {_place(outcome, outcome.line)}: {_text(outcome.reason)}" for outcome in failed]
    return _section("Failed, and left as they are", lines)


def _skipped(outcomes: Iterable[Outcome]) -> str:
    """The files that stay as they are by reason, the reason with the most files first; folded
    up."""
    by_reason: dict[str, list[Outcome]] = {}
    for outcome in _with(outcomes, Status.SKIPPED, Status.INTEGRATED):
        reason = "already integrated" if outcome.status is Status.INTEGRATED else outcome.reason
        by_reason.setdefault(reason, []).append(outcome)
    if not by_reason:
        return ""
    rows = [
        f"| {_text(reason)} | {len(files)} | {_names(files)} |"
        for reason, files in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    summary = f"<summary>Left as they are: {sum(map(len, by_reason.values()))}</summary>"
    table = ["| why | files | which |", "|---|---|---|", *rows]
    return "\n".join(["<details>", summary, "", *table, "", "</details>", ""])


def _names(outcomes: Sequence[Outcome]) -> str:
    names = [_code(quoted(outcome.name)) for outcome in outcomes[:NAMED_PER_REASON]]
    more = len(outcomes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"### {title}", "", *lines, ""]) if lines else ""


def _place(outcome: Outcome, line: int | None) -> str:
    name = quoted(outcome.name)
    return _code(f"{name}:{line}" if line else name)


def _code(text: str) -> str:
    """A code span, in fences that the text does not hold; `|` would end a table's cell even in
    there."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def _text(text: str) -> str:
    """Words as they are: `__init__` is no bold `init`, and `<module>` no HTML. Within a word `_`
    means nothing."""
    return re.sub(r"([\\`*\[\]<>|~#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", printable(text))
