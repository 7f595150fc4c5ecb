"""What a person reads of a run on a terminal: the diff and the summary."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from flash_integrate.attention.rewrites import Rewrite
from flash_integrate.planning.outcome import NOT_INTEGRATED, Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.quoting import printable, quoted, visible
from flash_integrate.report.diff import Hunk, diff_header, hunks, replaced_hunks, unified_diff

_STYLES = {
    Status.CHANGED: "green",
    Status.REVERTED: "green",
    Status.INTEGRATED: "cyan",
    Status.SKIPPED: "dim",
    Status.FAILED: "bold red",
}
_AS_IT_WAS = (Status.INTEGRATED, Status.SKIPPED)
_Row = tuple[str, str, str, str]
_HEADINGS: _Row = ("file", "result", "how", "why")
_GAP = "  "
_DIFF_COLOURS = (("diff ", 1), ("--- ", 1), ("+++ ", 1), ("@@", 36), ("+", 32), ("-", 31))


def diff_of(outcome: Outcome) -> list[bytes]:
    """The unified diff of an outcome, line by line."""
    if outcome.replaces:
        header = diff_header(outcome.name.as_posix())
        return [header, *(line for hunk in replacing_hunks(outcome) for line in hunk.text())]
    removes = outcome.status is Status.REVERTED
    return list(
        unified_diff(
            outcome.name.as_posix(),
            outcome.before,
            outcome.after,
            set(outcome.lines),
            removes=removes,
        )
    )


def hunks_of(outcome: Outcome) -> list[Hunk]:
    """The hunks of that diff."""
    removes = outcome.status is Status.REVERTED
    return list(hunks(outcome.before, outcome.after, set(outcome.lines), removes=removes))


def replacing_hunks(outcome: Outcome) -> list[Hunk]:
    """The hunks of an outcome that replaces lines of the file's own, what is inserted among
    them; those of rewrites say of what kind they are."""
    headings = {rewrite.first_line: heading_of(rewrite) for rewrite in outcome.rewrites}
    return list(replaced_hunks(outcome.before, outcome.result, headings))


def heading_of(rewrite: Rewrite) -> str:
    """What stands above a hunk that changes a model's code."""
    return f"{rewrite.function}, the model's code: {rewrite.verdict}"


def on_terminal(line: bytes, *, colours: bool, encoding: str = "utf-8") -> str:
    """A diff's line for a person's eyes, perhaps in the colours of `git diff`.

    A terminal obeys none of it: what is in a file may be meant to deceive whoever reads the diff.
    """
    text = visible(line.decode(encoding, "replace").replace("\r\n", "\n"))
    code = next((code for prefix, code in _DIFF_COLOURS if text.startswith(prefix)), None)
    if code is None or not colours:
        return text
    return re.sub("(?m)^.+$", lambda part: f"\x1b[{code}m{part[0]}\x1b[0m", text)


def print_summary(
    console: Console,
    outcomes: Sequence[Outcome],
    *,
    dry_run: bool,
    verbose: bool,
    also: bool = False,
) -> None:
    """A table of the files that a person wants to know of (with `verbose` of all) with their
    notes, then the counts; one line where nothing is to do. `also` says that files which are no
    scripts change."""
    shown = [outcome for outcome in outcomes if verbose or _is_of_interest(outcome)]
    rows = [_row(outcome, dry_run) for outcome in shown]
    widths = _widths([_HEADINGS, *rows], console.width)
    if rows and widths:
        console.print(_aligned(_HEADINGS, widths, "bold", "bold"), soft_wrap=True)
    for outcome, row in zip(shown, rows, strict=True):
        style = _STYLES[outcome.status]
        if widths:
            console.print(_aligned(row, widths, "", style), soft_wrap=True)
        else:
            console.print(Text.assemble(row[0], ": ", (row[1], style)), soft_wrap=True)
            say(console, ", ".join(filter(None, row[2:])), indent="  ")
        _print_details(console, outcome)
    counts = _counts(outcomes, dry_run)
    if not also and all(item.status in _AS_IT_WAS for item in outcomes):
        reverts = outcomes and all(item.reason == NOT_INTEGRATED for item in outcomes)
        counts = f"nothing to {'revert' if reverts else 'do'}: {counts}"
    say(console, counts)


def print_outcome(console: Console, outcome: Outcome, *, dry_run: bool) -> None:
    """One file's outcome, in a line and one for each note."""
    place, result, *why = _row(outcome, dry_run)
    say(console, f"{place}: {result}: {', '.join(filter(None, why))}")
    _print_details(console, outcome)


def _is_of_interest(outcome: Outcome) -> bool:
    return outcome.status not in _AS_IT_WAS or bool(outcome.notes or outcome.uncovered)


def _print_details(console: Console, outcome: Outcome) -> None:
    """How a file comes to attention, the rewrites of its own code, and the notes on it."""
    name = quoted(outcome.name)
    if _is_chain(outcome):
        say(console, outcome.reason, indent="  ")
    for rewrite in outcome.rewrites:
        say(console, f"{name}:{rewrite.line}: {rewrite.described}", "cyan", indent="  ")
    for note in outcome.notes:
        line = f":{note.line}" if note.line else ""
        say(console, f"{name}{line}: note: {note.reason}", "yellow", indent="  ")
    for item in outcome.uncovered:
        line = f":{item.line}" if item.line else ""
        text = f"{name}{line}: not covered: {item.entry}: {item.reason}"
        say(console, text, "yellow", indent="  ")


def say(console: Console, text: str, style: str = "", indent: str = "") -> None:
    """Prints a text as wide as the console, broken between words alone: a path stays in one
    piece."""
    lines = textwrap.wrap(
        printable(text),
        console.width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(Text(line, style), soft_wrap=True)


def _widths(rows: Sequence[_Row], available: int) -> list[int]:
    """The widths of a table's columns, 0 for one that is left out; none at all where even so it
    would be too wide."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for without in (None, _HEADINGS.index("how")):
        shown = [0 if column == without else width for column, width in enumerate(widths)]
        if sum(shown) + len(_GAP) * (sum(map(bool, shown)) - 1) <= available:
            return shown
    return []


def _aligned(row: _Row, widths: Sequence[int], style: str, result_style: str) -> Text:
    line = Text()
    for cell, width, heading in zip(row, widths, _HEADINGS, strict=True):
        if width:
            line.append(cell, result_style if heading == "result" else style)
            line.append(" " * (width - cell_len(cell)) + _GAP)
    line.rstrip()
    return line


def _row(outcome: Outcome, dry_run: bool) -> _Row:
    return (
        _place(outcome),
        _result(outcome, dry_run),
        outcome.codemod or "",
        "" if _is_chain(outcome) else printable(outcome.reason),
    )


def _is_chain(outcome: Outcome) -> bool:
    """Whether the reason is how a file comes to attention: that has lines of its own."""
    return outcome.evidence is not None and outcome.reason == str(outcome.evidence)


def _place(outcome: Outcome) -> str:
    name = quoted(outcome.name)
    return f"{name}:{outcome.line}" if outcome.line else name


def _result(outcome: Outcome, dry_run: bool) -> str:
    if dry_run and outcome.changes:
        return "would change" if outcome.status is Status.CHANGED else "would revert"
    return outcome.status.value


def _counts(outcomes: Sequence[Outcome], dry_run: bool) -> str:
    """`10 would change, 3 skipped: no MLX (2), a test (1)`."""
    count = Counter(outcome.status for outcome in outcomes)
    parts = []
    for status in Status:
        if not count[status]:
            continue
        word = status.value
        if dry_run and status in (Status.CHANGED, Status.REVERTED):
            word = "would change" if status is Status.CHANGED else "would be reverted"
        parts.append(f"{count[status]} {word}")
    if not parts:
        return "no Python files found"
    reasons = Counter(outcome.reason for outcome in outcomes if outcome.status is Status.SKIPPED)
    why = ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common())
    parts.sort(key=lambda part: part.endswith(Status.SKIPPED.value))  # last, with their reasons
    return ", ".join(parts) + (f": {why}" if why else "")
