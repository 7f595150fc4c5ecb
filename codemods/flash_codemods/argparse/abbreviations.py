"""Abbreviations of options (`--d` for `--data`) that the flags make ambiguous, which argparse then
refuses; and where the repo itself uses them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from flash_codemods.argparse.parsers import Parser, Parsers, receiver
from flash_codemods.argparse.sharing import Sharing
from flash_integrate.inserted.snippets import BLOCK_SIZE_FLAG, DISABLE_FLAG
from flash_integrate.notes import Note
from flash_integrate.project.texts import Texts
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, method, walk

_FLAGS = (DISABLE_FLAG, BLOCK_SIZE_FLAG)
_NAMED = 3
"""So many places are named in which an abbreviation is used."""


def ambiguous(facts: FileFacts, parser: Parser) -> dict[str, str]:
    """The abbreviations of a parser's options that are beginnings of a flag too, each with what it
    was short for."""
    allowed = parser.keyword("allow_abbrev")
    if isinstance(allowed, ast.Constant) and allowed.value is False:
        return {}
    workspace = facts.workspace
    homes = {parser.home, *(user.name for user in workspace.get(Sharing).users(parser))}
    names = {name for home in homes for name in _options(workspace.facts(home), parser)}
    called = {"__init__", *_methods_called(workspace.facts(parser.home), parser)}
    for home in parser.kind.homes:
        names |= set(_options_of_class(workspace.facts(home), called))
    found = {}
    for flag in _FLAGS:
        for length in range(3, len(flag)):
            short = flag[:length]
            owners = [name for name in names if name.startswith(short)]
            if len(owners) == 1 and short not in names:
                found[short] = owners[0]
    return found


def abbreviation_notes(facts: FileFacts, parsers: Iterable[Parser]) -> Iterator[Note]:
    for parser in parsers:
        shorts = ambiguous(facts, parser)
        if shorts:
            pairs = ", ".join(f"{short} (of {name})" for short, name in sorted(shorts.items()))
            used = facts.workspace.get(Texts).using(facts.name, shorts)
            where = ", ".join(f"{name}:{line}" for name, line in used[:_NAMED])
            said = f"; used in {where}" if where else ""
            reason = f"abbreviations that argparse now refuses as ambiguous: {pairs}"
            yield Note(reason + said, parser.created.line)


def _options(facts: FileFacts, parser: Parser) -> Iterator[str]:
    """The long options that a file adds to the parser, or to something that may be it."""
    others = {item.name for item in facts.get(Parsers).made if item != parser} - {parser.name}
    for call in facts.module.of_kind(ast.Call):
        if receiver(call) not in {*others, "self"}:
            yield from _added_by(call)


def _methods_called(facts: FileFacts, parser: Parser) -> set[str]:
    calls = facts.module.of_kind(ast.Call)
    return {method(call) or "" for call in calls if receiver(call) == parser.name}


def _options_of_class(facts: FileFacts, called: set[str]) -> Iterator[str]:
    """The long options that a file's classes add in the methods that are called, and in those that
    they call."""
    classes = facts.module.of_kind(ast.ClassDef)
    items = [item for node in classes for item in node.body]
    methods = {item.name: item for item in items if isinstance(item, Function)}
    todo, seen = sorted(called), set(called)
    while todo:
        for part in walk(methods[name]) if (name := todo.pop()) in methods else ():
            if isinstance(part, ast.Call):
                yield from _added_by(part)
                inner = method(part) or ""
                if receiver(part) == "self" and inner not in seen:
                    seen.add(inner)
                    todo.append(inner)


def _added_by(call: ast.Call) -> Iterator[str]:
    for value in call.args if method(call) == "add_argument" else ():
        text = value.value if isinstance(value, ast.Constant) else None
        if isinstance(text, str) and re.match("--[^-]", text):
            yield text
