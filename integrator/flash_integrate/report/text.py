"""What a person reads of a run on a terminal: the diff and the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flash_integrate.diff import Hunk, hunks, unified_diff
from flash_integrate.plan import Status
from flash_integrate.run import Outcome
from flash_integrate.source import split_lines

_STYLES = {
    Status.CHANGED: "green",
    Status.REVERTED: "green",
    Status.INTEGRATED: "cyan",
    Status.SKIPPED: "dim",
    Status.FAILED: "bold red",
}
_DIFF_COLOURS = ((b"diff ", 1), (b"--- ", 1), (b"+++ ", 1), (b"@@", 36), (b"+", 32), (b"-", 31))


def diff_of(outcome: Outcome) -> list[bytes]:
    """The unified diff of an outcome, line by line."""
    removes = outcome.status is Status.REVERTED
    return list(
        unified_diff(outcome.name.as_posix(), outcome.before, outcome.after, set(outcome.lines), removes=removes)
    )


def hunks_of(outcome: Outcome) -> list[Hunk]:
    """The hunks of that diff."""
    removes = outcome.status is Status.REVERTED
    return list(hunks(outcome.before, outcome.after, set(outcome.lines), removes=removes))


def coloured(line: bytes) -> bytes:
    """A diff's line in the colours of `git diff`; the line ending stays outside of them."""
    code = next((code for prefix, code in _DIFF_COLOURS if line.startswith(prefix)), None)
    if code is None:
        return line
    return b"".join(
        b"\x1b[%dm%s\x1b[0m%s" % (code, part.rstrip(b"\r\n"), part[len(part.rstrip(b"\r\n")) :])
        for part in split_lines(line)
    )


def print_summary(console: Console, outcomes: Sequence[Outcome], *, dry_run: bool, verbose: bool) -> None:
    """A table of the files that a person wants to know of (with `verbose` of all), then the counts."""
    shown = [outcome for outcome in outcomes if verbose or outcome.status is not Status.SKIPPED]
    if shown:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("file", overflow="fold")
        table.add_column("result", no_wrap=True)
        table.add_column("how", no_wrap=True)
        table.add_column("why", overflow="fold")
        for outcome in shown:
            table.add_row(_place(outcome), _result(outcome, dry_run), outcome.codemod or "", outcome.reason)
            for note in outcome.notes:
                line = f":{note.line}" if note.line else ""
                table.add_row(Text(f"  {outcome.name.name}{line}", "yellow"), Text("note", "yellow"), "", note.reason)
        console.print(table)
    console.print(Text(_counts(outcomes, dry_run)))


def _place(outcome: Outcome) -> str:
    return f"{outcome.name}:{outcome.line}" if outcome.line else str(outcome.name)


def _result(outcome: Outcome, dry_run: bool) -> Text:
    word = outcome.status.value
    if dry_run and outcome.changes:
        word = "would change" if outcome.status is Status.CHANGED else "would revert"
    return Text(word, _STYLES[outcome.status])


def _counts(outcomes: Sequence[Outcome], dry_run: bool) -> str:
    """`10 files would change, 3 skipped (2 no MLX, 1 a test)`."""
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
    why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
    return ", ".join(parts) + (f"\nskipped: {why}" if why else "")
