"""What a reviewer can accept or leave: the smallest changes that work without the others.

What a change inserts into a file holds together in groups. The flags of a parser stand or fall
with every place where its namespace is read: a call whose flags are not there would crash, and
flags that nothing reads would reach functions that don't take them, or do nothing. Where lines
belong to no parser, all of it holds together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from flash_integrate.attention.rewrites import Rewrite, applied
from flash_integrate.errors import UnreadableSource
from flash_integrate.inserted.removal import without_lines
from flash_integrate.planning.codemod import asked, registry
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.source import Source
from flash_integrate.python.syntax import Statement
from flash_integrate.report.diff import Hunk, hunks, replaced_hunks
from flash_integrate.report.text import heading_of, hunks_of, replacing_hunks

Lines = frozenset[int]


@dataclass(frozen=True)
class Part:
    """What a unit does to one file: these inserted lines of it, by their number in the longer of
    its two versions, or a rewrite; neither for all that is inserted."""

    outcome: Outcome
    lines: Lines = frozenset()
    rewrite: Rewrite | None = None

    @property
    def hunks(self) -> list[Hunk]:
        """The part as it is shown: as if it were the only change of its file."""
        outcome = self.outcome
        if self.rewrite is not None:
            return [_rewrite_hunk(outcome, self.rewrite)]
        if outcome.taken_back:
            return replacing_hunks(outcome)
        if self.lines == outcome.lines:
            return hunks_of(outcome)
        removes = outcome.status is Status.REVERTED
        longer = longer_of(outcome)
        if removes:
            after = without_lines(longer, set(self.lines))
            return list(hunks(outcome.before, after, set(self.lines), removes=True))
        after = without_lines(longer, set(outcome.lines - self.lines))
        lines = renumbered(self.lines, outcome.lines - self.lines)
        return list(hunks(outcome.before, after, set(lines)))


@dataclass(frozen=True)
class Unit:
    """A change that is accepted or left as a whole; `pieces` are the smaller ones that it can be
    split into, where there are several."""

    part: Part
    pieces: tuple[Unit, ...] = ()

    @property
    def is_rewrite(self) -> bool:
        return self.part.rewrite is not None


def units_of(outcome: Outcome) -> list[Unit]:
    """The units of a file: what is inserted, and then each rewrite of the model's own code."""
    inserted = _inserted_into(outcome)
    units = _split(Part(inserted, inserted.lines)) if inserted is not None else []
    return [*units, *(Unit(Part(outcome, rewrite=item)) for item in outcome.rewrites)]


def _inserted_into(outcome: Outcome) -> Outcome | None:
    """The outcome without its rewrites; None where nothing is left of it."""
    plain = dataclasses.replace(outcome, rewrites=())
    return plain if plain.after != plain.before else None


def _split(part: Part) -> list[Unit]:
    """The units of a file's inserted lines: as the diff's hunks show them, but those that need
    each other together."""
    outcome = part.outcome
    if outcome.taken_back or not outcome.lines:  # a part of a line, as in a notebook
        return [Unit(part)]
    found: list[list[Lines]] = [[group] for group in _groups(outcome)]
    for hunk in hunks_of(outcome):
        near = [groups for groups in found if any(group & hunk.changed for group in groups)]
        rest = [groups for groups in found if groups not in near]
        found = [*rest, [group for groups in near for group in groups]] if near else rest
    found.sort(key=lambda groups: min(map(min, groups)))
    return [_unit(outcome, groups) for groups in found]


def _unit(outcome: Outcome, groups: list[Lines]) -> Unit:
    pieces = [Unit(Part(outcome, group)) for group in sorted(groups, key=min)]
    whole = Part(outcome, frozenset[int]().union(*groups))
    return Unit(whole, tuple(pieces) if len(pieces) > 1 else ())


def _groups(outcome: Outcome) -> list[Lines]:
    """The inserted lines that belong together, as the codemods say: those of each parser. Where
    they say nothing of a line, or `ast` can't read the file, that is all of them."""
    source = longer_of(outcome)
    name = PurePosixPath(source.path.name)
    facts = Workspace.alone(name, source.data, source.path.parent).facts(name)
    found: list[list[Statement]] = []
    try:
        statements = [item for item in facts.statements if item.line in outcome.lines]
        for codemod in registry():
            found += asked(codemod, "together", facts, statements) or []
    except UnreadableSource:
        return [outcome.lines]
    groups = [frozenset(line for item in group for line in _lines(item)) for group in found]
    groups = _merged([group & outcome.lines for group in groups if group & outcome.lines])
    text = source.lines()
    for number in sorted(outcome.lines.difference(*groups), reverse=True):
        # A blank line goes with what it stands above, or below.
        beside = [group for group in groups if {number - 1, number + 1} & group]
        if text[number - 1].strip() or not beside:
            return [outcome.lines]
        groups[groups.index(beside[0])] |= {number}
    return groups


def _merged(groups: Iterable[Lines]) -> list[Lines]:
    """The groups, those that have lines in common as one."""
    found: list[Lines] = []
    for group in groups:
        near = [other for other in found if other & group]
        found = [other for other in found if other not in near] + [group.union(*near)]
    return found


def _lines(statement: Statement) -> range:
    return range(statement.line, (statement.node.end_lineno or statement.line) + 1)


def longer_of(outcome: Outcome) -> Source:
    """The version of a file that has the inserted lines."""
    removes = outcome.status is Status.REVERTED
    return Source(outcome.path, outcome.before if removes else outcome.after)


def renumbered(lines: Lines, gone: Lines) -> Lines:
    """The numbers of lines once those that are `gone` are out."""
    return frozenset(number - sum(other < number for other in gone) for number in lines)


def _rewrite_hunk(outcome: Outcome, rewrite: Rewrite) -> Hunk:
    """A rewrite as one hunk, whose heading says of what kind it is."""
    found = list(replaced_hunks(outcome.before, applied(outcome.before, [rewrite]), {}))
    lines = tuple(line for hunk in found for line in hunk.lines)
    return Hunk(lines, frozenset(), heading_of(rewrite))
