"""Abbreviations of options (`--d` for `--data`) that the flags make ambiguous, which argparse then
refuses; and where the repo itself uses them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from flash_codemods.argparse.parsers import GROUPS, Parser, receiver
from flash_integrate.inserted.snippets import BLOCK_SIZE_FLAG, DISABLE_FLAG
from flash_integrate.notes import Note
from flash_integrate.project.texts import Texts
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, assignments, method, walk

_FLAGS = (DISABLE_FLAG, BLOCK_SIZE_FLAG)
_NAMED = 3
"""So many places are named in which an abbreviation is used; the others are counted."""


def abbreviation_notes(facts: FileFacts, parser: Parser) -> Iterator[Note]:
    """What a reviewer should know of abbreviations that a parser took before."""
    shorts = ambiguous(_options(facts, parser))
    if not shorts or _is_false(parser.keywords.get("allow_abbrev")):
        return
    pairs = ", ".join(f"{short} (of {name})" for short, name in sorted(shorts.items()))
    used = facts.workspace.get(Texts).using(facts.name, shorts)
    where = ", ".join(f"{name}:{line}" for name, line in used[:_NAMED])
    more = f" and {len(used) - _NAMED} more" if len(used) > _NAMED else ""
    said = f"; used in {where}{more}" if where else ""
    reason = f"abbreviations that argparse now refuses as ambiguous: {pairs}"
    yield Note(reason + said, parser.line)


def ambiguous(options: set[str]) -> dict[str, str]:
    """The abbreviations of options that are beginnings of a flag too, each with what it was short
    for."""
    found = {}
    for flag in _FLAGS:
        for length in range(3, len(flag)):
            short = flag[:length]
            owners = [name for name in options if name.startswith(short)]
            if len(owners) == 1 and short not in options:
                found[short] = owners[0]
    return found


def _is_false(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def _options(facts: FileFacts, parser: Parser) -> set[str]:
    """The long options of a parser: those that its file adds, but to a command, which looks for
    abbreviations among its own, and those that its class adds in the methods which the file
    calls."""
    calls = facts.module.of_kind(ast.Call)
    others = {"self", *_commands(facts)} - {parser.name}
    options = set(_added_by(call for call in calls if receiver(call) not in others))
    if parser.kind.home is not None:
        called = {method(call) or "" for call in calls if receiver(call) == parser.name}
        options |= _options_of_class(facts.workspace.facts(parser.kind.home), called)
    return options


def _commands(facts: FileFacts) -> set[str]:
    """The names of a file for the parsers of commands, and for groups of their options."""
    found: set[str] = set()
    for statement in facts.statements:
        for name, value in assignments(statement.node):
            made = method(value) if isinstance(value, ast.Call) else None
            of_command = isinstance(value, ast.Call) and receiver(value) in found
            if made == "add_parser" or (made in GROUPS and of_command):
                found.add(name)
    return found


def _options_of_class(facts: FileFacts, called: set[str]) -> set[str]:
    """The long options that a file's classes add in these methods, and in those that they call."""
    items = [item for node in facts.module.of_kind(ast.ClassDef) for item in node.body]
    methods = {item.name: item for item in items if isinstance(item, Function)}
    options, todo = set(), ["__init__", *called]
    while todo:
        function = methods.pop(todo.pop(), None)  # each is looked at once
        parts = walk(function) if function is not None else []
        calls = [part for part in parts if isinstance(part, ast.Call)]
        options |= set(_added_by(calls))
        todo += [method(call) or "" for call in calls if receiver(call) == "self"]
    return options


def _added_by(calls: Iterable[ast.Call]) -> Iterator[str]:
    for call in calls:
        for value in call.args if method(call) == "add_argument" else ():
            text = value.value if isinstance(value, ast.Constant) else None
            if isinstance(text, str) and re.match("--[^-]", text):
                yield text
