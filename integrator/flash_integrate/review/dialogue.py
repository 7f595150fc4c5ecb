"""The review before anything is written: a person says of each hunk whether it is wanted, as in
`git add -p`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from rich.console import Console
from rich.text import Text

from flash_integrate.attention.rewrites import Rewrite, applied
from flash_integrate.errors import UnsafeRewrite
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.python.source import Source
from flash_integrate.quoting import printable, quoted
from flash_integrate.report.diff import Hunk, diff_header, replaced_hunks
from flash_integrate.report.text import heading_of, hunks_of, on_terminal, replacing_hunks
from flash_integrate.review.selection import select

DECLINED = "declined in the review"
NOT_REVIEWED = "the review ended before it"

_Key = tuple[Path, PurePosixPath]

_HELP = """\
y - {verb} this hunk
n - leave this hunk
a - {verb} this hunk and all that follow in the file
d - leave this hunk and all that follow in the file
q - leave this hunk and everything that follows, in this file and in all others
? - this help"""


def review(outcomes: Iterable[Outcome], console: Console, answers: TextIO) -> list[Outcome]:
    """The outcomes with what was accepted of them: a file of which nothing is accepted is a
    skipped one.

    Shows each change's hunks on `console` and reads a line of `answers` for each; the end of
    `answers` is `q`. Hunks that do not work without others that were left are asked again. A
    change that another one needs, or that needs another, is left alone unless both are accepted as
    a whole.
    """
    before = list(outcomes)
    reviewer = _Reviewer(console, answers)
    return _resolve(console, before, [reviewer.review(outcome) for outcome in before])


@dataclass
class _Reviewer:
    console: Console
    answers: TextIO
    has_quit: bool = False

    def review(self, outcome: Outcome) -> Outcome:
        if not outcome.changes:
            return outcome
        if self.has_quit:
            return _left(outcome, NOT_REVIEWED)
        self._show_file(outcome)
        if outcome.rewrites:
            return self._review_rewrites(outcome)
        return self._review_hunks(outcome)

    def _review_rewrites(self, outcome: Outcome) -> Outcome:
        """What is inserted, and then each rewrite of the model's own code."""
        plain = dataclasses.replace(outcome, rewrites=())
        inserted = plain if plain.after == plain.before else self._review_hunks(plain)
        kept = inserted if inserted.changes else plain
        after = inserted.after if inserted.changes else outcome.before
        hunks = [_hunk_of(after, rewrite) for rewrite in outcome.rewrites]
        accepted = [] if self.has_quit else self._ask_file(outcome, hunks, "make")
        rewrites = tuple(
            rewrite
            for rewrite, hunk in zip(outcome.rewrites, hunks, strict=True)
            if any(hunk is one for one in accepted)
        )
        if not rewrites:
            unchanged = plain.after == plain.before
            return _left(outcome, DECLINED) if unchanged else inserted
        lines = inserted.lines if inserted.changes else frozenset[int]()
        return dataclasses.replace(kept, after=after, lines=lines, rewrites=rewrites)

    def _review_hunks(self, outcome: Outcome) -> Outcome:
        hunks = replacing_hunks(outcome) if outcome.taken_back else hunks_of(outcome)
        while True:
            accepted = self._ask_file(outcome, hunks)
            if not accepted:
                return _left(outcome, DECLINED)
            try:
                return outcome if accepted == hunks else select(outcome, accepted)
            except UnsafeRewrite as error:
                if self.has_quit:
                    self._say(f"{quoted(outcome.name)} is left as it is: {error}", "yellow")
                    return _left(outcome, f"{DECLINED}: {error}")
                self._say(
                    f"Not accepted: {error}. "
                    "Once more, from the first hunk; d leaves the file as it is.",
                    "yellow",
                )

    def _ask_file(self, outcome: Outcome, hunks: list[Hunk], verb: str = "") -> list[Hunk]:
        """The hunks that are accepted."""
        accepted: list[Hunk] = []
        for number, hunk in enumerate(hunks, start=1):
            self._show_hunk(outcome, hunk)
            answer = self._ask(
                f"({number}/{len(hunks)}) {verb or _verb(outcome)} this hunk [y,n,a,d,q,?]? ",
                outcome,
            )
            self.has_quit = answer == "q"
            if answer == "a":
                accepted += hunks[number - 1 :]
            if answer == "y":
                accepted.append(hunk)
            if answer in ("a", "d", "q"):
                break
        return accepted

    def _ask(self, question: str, outcome: Outcome) -> str:
        while True:
            self.console.print(Text(question, "bold blue"), end="")
            self.console.file.flush()
            line = self.answers.readline()
            if not self.answers.isatty():  # a terminal has shown it
                self._say(line.strip(), "")
            answer = line.strip().lower() if line else "q"
            if answer in ("y", "n", "a", "d", "q"):
                return answer
            for line in _HELP.format(verb=_verb(outcome)).splitlines():
                self._say(line, "blue")

    def _show_file(self, outcome: Outcome) -> None:
        self._write(diff_header(outcome.name.as_posix()), "utf-8")
        if outcome.review:
            self._say(f"{outcome.codemod}, {outcome.reason}. To review: {outcome.review}", "dim")
        for note in outcome.notes:
            self._say(
                f"note{f' on line {note.line}' if note.line else ''}: {note.reason}", "yellow"
            )

    def _show_hunk(self, outcome: Outcome, hunk: Hunk) -> None:
        encoding = Source(outcome.path, outcome.before).encoding
        for line in hunk.text():
            self._write(line, encoding)

    def _write(self, line: bytes, encoding: str) -> None:
        colours = self.console.is_terminal and not self.console.no_color
        self.console.file.write(on_terminal(line, colours=colours, encoding=encoding))

    def _say(self, text: str, style: str) -> None:
        self.console.print(Text(printable(text), style), soft_wrap=True)


def _hunk_of(data: bytes, rewrite: Rewrite) -> Hunk:
    """A rewrite as one hunk, whose heading says of what kind it is."""
    found = list(replaced_hunks(data, applied(data, [rewrite]), {}))
    lines = tuple(line for hunk in found for line in hunk.lines)
    return Hunk(lines, frozenset(), heading_of(rewrite))


def _verb(outcome: Outcome) -> str:
    return "take out" if outcome.status is Status.REVERTED else "insert"


def _left(outcome: Outcome, reason: str) -> Outcome:
    return Outcome(outcome.base, outcome.name, Status.SKIPPED, reason)


def _resolve(
    console: Console, before: Sequence[Outcome], after: Sequence[Outcome]
) -> list[Outcome]:
    """Takes back what was accepted of a change that belongs to another one which was not accepted
    as a whole."""
    result = {(outcome.base, outcome.name): outcome for outcome in after}
    planned = {(outcome.base, outcome.name): outcome for outcome in before if outcome.changes}
    pairs = [
        (key, (outcome.base, name)) for key, outcome in planned.items() for name in outcome.needs
    ]
    pairs = [
        pair for one, other in pairs if other in planned for pair in ((one, other), (other, one))
    ]
    while (
        pair := next((pair for pair in pairs if _unmet(*pair, result, planned)), None)
    ) is not None:
        one, other = pair
        reason = (
            f"{DECLINED}: {quoted(other[1])}, to which its change belongs, "
            "was not accepted as a whole"
        )
        console.print(
            Text(printable(f"{quoted(one[1])} is left as it is: {reason}"), "yellow"),
            soft_wrap=True,
        )
        result[one] = _left(result[one], reason)
    return list(result.values())


def _unmet(
    one: _Key, other: _Key, result: dict[_Key, Outcome], planned: dict[_Key, Outcome]
) -> bool:
    return result[one].changes and result[other].lines != planned[other].lines
