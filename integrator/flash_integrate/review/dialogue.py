"""The review before anything is written: a person says of each change whether it is wanted, as in
`git add -p`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.text import Text

from flash_integrate.errors import UnsafeRewrite
from flash_integrate.inserted.snippets import INHERITED
from flash_integrate.notes import Uncovered
from flash_integrate.planning.by_hand import stays_by_hand
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.rewriting import with_rewrites_alone
from flash_integrate.python.source import Source
from flash_integrate.quoting import printable, quoted
from flash_integrate.report.diff import diff_header
from flash_integrate.report.text import on_terminal
from flash_integrate.review.selection import Edited, can_be_edited, edited, select, with_edits
from flash_integrate.review.units import Part, Unit, units_of

DECLINED = "declined in the review"
NOT_REVIEWED = "the review ended before it"

_HELP = {
    "y": "{verb} this hunk",
    "n": "leave this hunk",
    "q": "leave this hunk and everything that follows, in this file and in all others",
    "a": "{verb} this hunk and all that follow in the file",
    "d": "leave this hunk and all that follow in the file",
    "j": "decide on this hunk later, see the next one that is undecided",
    "k": "decide on this hunk later, see the one before that is undecided",
    "s": "split this hunk into those that can be had without each other",
    "e": "edit the lines of this hunk",
    "?": "this help",
}
_EDITING = b"""\
# Lines with + are inserted: edit them, add to them, take them out. Lines with a blank in front are
# the file's own and stay. An empty + block inserts nothing here.
"""


def review(outcomes: Iterable[Outcome], console: Console, answers: TextIO) -> list[Outcome]:
    """The outcomes with what was accepted of them: a file of which nothing is accepted is a
    skipped one.

    Shows each change on `console` and reads a line of `answers` for it; the end of `answers` is
    `q`. Hunks that do not work without each other are one question.
    """
    reviewer = _Reviewer(console, answers)
    planned = list(outcomes)
    accepted = [reviewer.review(item) if item.changes else item for item in planned]
    calls_before, calls_after = _with_inherited(planned), _with_inherited(accepted)
    return [_naming_children(item, calls_before - calls_after) for item in accepted]


@dataclass
class _Choice:
    """A unit, whether it is wanted (None: not decided yet), and what it was edited to."""

    unit: Unit
    wanted: bool | None = None
    edit: Edited | None = None


@dataclass
class _Reviewer:
    console: Console
    answers: TextIO
    has_quit: bool = False
    shown: Path | None = None
    """The file whose header was shown last."""

    def review(self, outcome: Outcome) -> Outcome:
        """A file with what is accepted of it."""
        if self.has_quit:
            return _noting(_left(outcome, NOT_REVIEWED), outcome)
        self._show_notes(outcome)
        choices = [_Choice(unit) for unit in units_of(outcome)]
        at = 0
        while any(choice.wanted is None for choice in choices):
            unit = choices[at].unit
            self._show(unit)
            question = f"({at + 1}/{len(choices)}) {_question(unit)}"
            answer = self._ask(question, _keys(choices, at), _verb(unit))
            at = self._heed(answer, choices, at)
        return _noting(self._accepted(outcome, choices), outcome)

    def _heed(self, answer: str, choices: list[_Choice], at: int) -> int:
        """Does what is answered to the choice that was shown; the one to be shown next."""
        choice = choices[at]
        if answer == "s":
            choices[at : at + 1] = [_Choice(piece) for piece in choice.unit.pieces]
            return at
        if answer == "k":
            return _undecided(choices, before=at)[-1]
        if answer == "e":
            choice.wanted = self._edit(choice) or None
        if answer in ("y", "n"):
            choice.wanted = answer == "y"
        if answer in ("a", "d", "q"):
            self.has_quit = answer == "q"
            for other in choices if answer == "q" else choices[at:]:
                other.wanted = answer == "a" if other.wanted is None else other.wanted
        return next(iter(_undecided(choices, after=at) or _undecided(choices)), at)

    def _accepted(self, outcome: Outcome, choices: Sequence[_Choice]) -> Outcome:
        """What of a file is wanted."""
        wanted = [(choice.unit.part, choice.edit) for choice in choices if choice.wanted]
        rewrites = tuple(part.rewrite for part, _ in wanted if part.rewrite is not None)
        if wanted and not rewrites and _rests_on_a_rewrite(outcome):
            reason = "without the fused call, attention is written by hand alone"
            self._say(f"{quoted(outcome.name)} is left as it is: {reason}", "yellow")
            return _left(outcome, f"{DECLINED}: {reason}")
        try:
            result = _with_inserted(outcome, [item for item in wanted if not item[0].rewrite])
        except UnsafeRewrite as error:
            self._say(f"{quoted(outcome.name)} is left as it is: {error}", "yellow")
            return _left(outcome, f"{DECLINED}: {error}")
        if result is not None:
            return dataclasses.replace(result, rewrites=rewrites)
        return with_rewrites_alone(outcome, rewrites) if rewrites else _left(outcome, DECLINED)

    def _edit(self, choice: _Choice) -> bool:
        """Has the lines edited; whether that can be used."""
        part = choice.unit.part
        encoding = Source(part.outcome.path, part.outcome.before).encoding.removesuffix("-sig")
        text = b"".join(line for hunk in part.hunks for line in hunk.text())
        changed = click.edit((_EDITING + text).decode(encoding), extension=".diff")
        if changed is None:
            return False
        try:
            edit = edited(part.hunks, changed.encode(encoding))
            with_edits(part.outcome, frozenset(), [edit])
        except (UnsafeRewrite, UnicodeError) as error:
            self._say(f"Not taken: {error}.", "yellow")
            return False
        choice.edit = edit
        return True

    def _ask(self, question: str, keys: Sequence[str], verb: str) -> str:
        while True:
            asked = Text(f"{question} [{','.join(keys)}]? ", "bold blue")
            self.console.print(asked, end="", soft_wrap=True)
            self.console.file.flush()
            line = self.answers.readline()
            if not self.answers.isatty():  # a terminal has shown it
                self._say(line.strip(), "")
            answer = line.strip().lower() if line else "q"
            if answer in keys and answer != "?":
                return answer
            for key in keys:
                self._say(f"{key} - {_HELP[key].format(verb=verb)}", "blue")

    def _show_notes(self, outcome: Outcome) -> None:
        if outcome.review:
            text = f"{quoted(outcome.name)}: {outcome.codemod}, {outcome.reason}."
            self._say(f"{text} To review: {outcome.review}", "dim")
        for note in outcome.notes:
            line = f":{note.line}" if note.line else ""
            self._say(f"{quoted(outcome.name)}{line}: note: {note.reason}", "yellow")

    def _show(self, unit: Unit) -> None:
        outcome = unit.part.outcome
        if outcome.path != self.shown:
            self._write(diff_header(outcome.name.as_posix()), "utf-8")
            self.shown = outcome.path
        encoding = Source(outcome.path, outcome.before).encoding
        for line in (line for hunk in unit.part.hunks for line in hunk.text()):
            self._write(line, encoding)

    def _write(self, line: bytes, encoding: str) -> None:
        colours = self.console.is_terminal and not self.console.no_color
        self.console.file.write(on_terminal(line, colours=colours, encoding=encoding))

    def _say(self, text: str, style: str) -> None:
        self.console.print(Text(printable(text), style), soft_wrap=True)


def _rests_on_a_rewrite(outcome: Outcome) -> bool:
    """Whether the attention that a file gets a call for is what a rewrite of this file makes."""
    links = outcome.evidence.links if outcome.evidence is not None else ()
    lines = [link.line for link in links[-1:] if link.path == outcome.name]
    return any(rewrite.line in lines for rewrite in outcome.rewrites)


def _with_inserted(
    outcome: Outcome, wanted: Sequence[tuple[Part, Edited | None]]
) -> Outcome | None:
    """The outcome with the wanted parts alone inserted, or taken out; None for none of them.

    Raises:
        UnsafeRewrite: the file would not be valid.
    """
    if not wanted:
        return None
    plain = dataclasses.replace(outcome, rewrites=())
    edits = [edit for _, edit in wanted if edit is not None]
    chosen = frozenset[int]().union(*(part.lines for part, edit in wanted if edit is None))
    if edits:
        result = with_edits(plain, chosen, edits)
        return result if result.after != plain.before else None
    return plain if chosen == plain.lines else select(plain, chosen)


def _undecided(
    choices: Sequence[_Choice], *, before: int | None = None, after: int = -1
) -> list[int]:
    return [
        index
        for index, choice in enumerate(choices[:before])
        if index > after and choice.wanted is None
    ]


def _keys(choices: Sequence[_Choice], at: int) -> list[str]:
    """The answers that mean something here."""
    unit = choices[at].unit
    keys = ["y", "n", "q", "a", "d"]
    keys += ["j"] if _undecided(choices, after=at) else []
    keys += ["k"] if _undecided(choices, before=at) else []
    keys += ["s"] if unit.pieces else []
    keys += ["e"] if can_be_edited(unit) else []
    return [*keys, "?"]


def _question(unit: Unit) -> str:
    number = len(unit.part.hunks)
    if number > 1:
        return f"{_verb(unit)} these {number} hunks, which need each other"
    return f"{_verb(unit)} this hunk"


def _verb(unit: Unit) -> str:
    if unit.is_rewrite:
        return "apply"
    return "take out" if unit.part.outcome.status is Status.REVERTED else "insert"


def _left(outcome: Outcome, reason: str) -> Outcome:
    return Outcome(outcome.base, outcome.name, Status.SKIPPED, reason)


def _noting(accepted: Outcome, planned: Outcome) -> Outcome:
    """What is accepted, with a note on each rewrite that is not: its attention stays by hand."""
    left = [rewrite for rewrite in planned.rewrites if rewrite not in accepted.rewrites]
    notes = tuple(stays_by_hand(rewrite.line) for rewrite in left)
    return dataclasses.replace(accepted, notes=(*accepted.notes, *notes)) if notes else accepted


def _with_inherited(outcomes: Iterable[Outcome]) -> set[Path]:
    """The files that get a call for what runs in a process of its own."""
    return {item.path for item in outcomes if INHERITED.encode() in item.after}


def _naming_children(outcome: Outcome, left: set[Path]) -> Outcome:
    """A file that turns the runtime on, with the processes that it starts and that run without the
    call, as files are `left` without theirs."""
    if outcome.status not in (Status.CHANGED, Status.INTEGRATED):
        return outcome
    found = tuple(
        Uncovered(
            f"its call in {quoted(item.home)} was declined", item.line, "the process started here"
        )
        for item in outcome.starts
        if item.home is not None and outcome.base / item.home in left
    )
    return dataclasses.replace(outcome, uncovered=outcome.uncovered + found) if found else outcome
