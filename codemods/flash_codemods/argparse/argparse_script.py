"""Scripts with an `argparse.ArgumentParser`: two flags on each parser that is parsed, the call
below each parse.

Inserts: the import, `--disable-flash-attention` and `--flash-block-size` after the parser's last
own argument, and the call right after the namespace has a name. Where the namespace is used as a
whole, the two names are taken out of it again.

Known are the shapes that public repos use: a parser, or one of a subclass, that has a name and
that no other file uses; parsed by `parse_args` or `parse_known_args`, where it is built or in
another function; arguments that get a name or are returned. Anything else is refused with its
reason, and gets the call alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from flash_codemods.argparse.abbreviations import abbreviation_notes
from flash_codemods.argparse.namespaces import Namespace, Namespaces, calls_in, may_parse
from flash_codemods.argparse.parsers import Parser, last_argument
from flash_codemods.argparse.sharing import Sharing
from flash_codemods.argparse.snippets import enable_from, flags, remove_names
from flash_integrate.inserted.snippets import BLOCK_SIZE_FLAG, DISABLE_FLAG, FLAG_NAMES
from flash_integrate.notes import Note, Refusal
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion
from flash_integrate.python.syntax import Function, Scope, Statement, dotted
from flash_integrate.quoting import quoted

ORDER = 10
SUMMARY = (
    "argparse scripts: two flags after the parser's last argument, "
    "the call after the arguments are parsed"
)
GIVES_FLAGS = True
REVIEW = "the flags stand on the parser that users call, and the call stands before the model runs"

_OWN_TABLES = {"_actions", "_action_groups", "_option_string_actions", "_group_actions"}


@dataclass(frozen=True)
class Match:
    """The parsers that get the flags, and the places where a parsed namespace gets a name."""

    parsers: list[Parser]
    namespaces: list[Namespace]


def match(facts: FileFacts) -> Match | Refusal | None:
    if not may_parse(facts):
        return None
    namespaces = facts.get(Namespaces).found
    if isinstance(namespaces, Refusal):
        return namespaces
    parsers = list(dict.fromkeys(one.parser for one in namespaces))
    refusals = [_refuse_steps(namespaces, parsers), _refuse_fixed(namespaces)]
    refusals += [_refuse_parser(facts, parser) for parser in parsers]
    refusal = next(filter(None, refusals), None)
    return refusal or (Match(parsers, namespaces) if namespaces else None)


def edit(facts: FileFacts, match: Match) -> list[Insertion]:
    insertions = [_flags(facts, parser) for parser in match.parsers]
    insertions += [_call(facts, namespace) for namespace in match.namespaces]
    return insertions


def notes(facts: FileFacts, match: Match) -> Iterator[Note]:
    for parser in match.parsers:
        yield from abbreviation_notes(facts, parser)
    for namespace in match.namespaces:
        if namespace.leaves_rest:
            reason = (
                "unknown arguments are left to others: "
                "--disable or --flash among them is now taken for a flag"
            )
            yield Note(reason, namespace.statement.line)


def explain(facts: FileFacts) -> Iterator[str]:
    """What is seen of argparse in a file, in lines."""
    found = match(facts)
    if not isinstance(found, Match):
        return
    for parser in found.parsers:
        last = last_argument(facts.module, parser)
        yield f"parser: {parser.name}, line {parser.line}, last argument line {last.line}"
    for one in found.namespaces:
        kind = "dict" if one.mapping else "namespace"
        whole = one.escapes or one.mapping
        use = "passed on as a whole" if whole else "used by its attributes alone"
        yield f"arguments: the {kind} {one.target}, line {one.statement.line}, {use}"


def together(facts: FileFacts, inserted: list[Statement]) -> list[list[Statement]]:
    """Which of the inserted statements belong together: those of each namespace, and the flags of
    its parser, with which it stands or falls."""
    found = facts.get(Namespaces).found
    groups = []
    for one in found if not isinstance(found, Refusal) else ():
        names = {(one.parser.created.scope, one.parser.name), (one.statement.scope, one.target)}
        groups.append([item for item in inserted if any(_mentions(item, *name) for name in names)])
    return groups


def _mentions(statement: Statement, scope: Scope, name: str) -> bool:
    parts = ast.walk(statement.node) if statement.scope is scope else ()
    return any(dotted(part) == name for part in parts)


def _flags(facts: FileFacts, parser: Parser) -> Insertion:
    last = last_argument(facts.module, parser)
    adds_commands = f"{parser.name}.add_subparsers"
    beside = facts.module.inside(parser.created.scope.node)
    has_commands = any(
        dotted(call.func) == adds_commands for item in beside for call in calls_in(item.node)
    )
    code = flags(parser.name, facts.style, last.node.col_offset, has_commands=has_commands)
    return Insertion(last.steps, code)


def _call(facts: FileFacts, namespace: Namespace) -> Insertion:
    target, style, mapping = namespace.target, facts.style, namespace.mapping
    point = _behind(facts, namespace.statement)
    if namespace.fixed:  # defaults beside what was read before: the choice is made there
        code = remove_names(target, style, point.column, mapping=mapping)
        return Insertion(point.anchor, code, before=point.before)
    remove = namespace.escapes or mapping
    if not remove:  # the names have to be gone before the namespace is passed on
        point = facts.get(Starts).below_mlx_import(point)
    code = enable_from(target, style, point.column, mapping=mapping, remove=remove)
    return Insertion(point.anchor, "\n" * point.is_apart + code, before=point.before)


def _behind(facts: FileFacts, parse: Statement) -> InsertionPoint:
    """The place behind a parse call. One that alone stands in a `try` is tried for argparse's own
    errors: where each handler raises, the place is behind the `try`."""
    *outer, (suite, _) = parse.steps
    holder = next((item for item in facts.statements if item.steps == tuple(outer)), None)
    node = holder.node if holder is not None and holder.ends_its_line else None
    is_tried = isinstance(node, ast.Try) and suite == "body" and parse.suite == [parse.node]
    if holder is not None and isinstance(node, ast.Try) and is_tried:
        raises = all(isinstance(handler.body[-1], ast.Raise) for handler in node.handlers)
        if raises and not node.orelse and not node.finalbody:
            return InsertionPoint.beside(holder, before=False)
    return InsertionPoint.beside(parse, before=False)


def _refuse_steps(namespaces: list[Namespace], parsers: list[Parser]) -> Refusal | None:
    """What one parser leaves of the command line is for another one, which has the flags too."""
    for one in namespaces if len(parsers) > 1 else ():
        if one.leaves_rest:
            reason = "parses its arguments in steps, with several parsers"
            return Refusal(reason, one.statement.line)
    return None


def _refuse_fixed(namespaces: list[Namespace]) -> Refusal | None:
    """Defaults, parsed from a literal list, are in order beside what the command line says, in a
    function whose caller may bring its own; else nothing would be the user's choice."""
    for one in namespaces:
        function = one.statement.scope.node
        takes_choice = isinstance(function, Function) and function.args.args
        if one.fixed and not (takes_choice and any(not other.fixed for other in namespaces)):
            return Refusal("parses a fixed list of arguments", one.statement.line)
    return None


def _refuse_parser(facts: FileFacts, parser: Parser) -> Refusal | None:
    """Why a parser can't get the flags: for what it is, or for who else uses it."""
    if parser.home != facts.name:
        return Refusal(f"its parser is built in {quoted(parser.home)}")
    files = [facts]
    if parser.kind.home is not None:
        files.append(facts.workspace.facts(parser.kind.home))
    for word in (DISABLE_FLAG, BLOCK_SIZE_FLAG, *FLAG_NAMES):
        if any(word.encode() in file.source.data for file in files):
            return Refusal(f"the file of the parser has a {word} of its own", parser.line)
    for keyword in ("argument_default", "prefix_chars", "parents"):
        if keyword in parser.keywords:
            return Refusal(f"the parser is made with {keyword}", parser.line)
    if not parser.kind.is_plain:
        return Refusal(
            "the class of the parser adds or parses arguments in its own way", parser.line
        )
    if any(node.attr in _OWN_TABLES for node in facts.module.of_kind(ast.Attribute)):
        return Refusal("the file of the parser looks into argparse's own tables", parser.line)
    if not last_argument(facts.module, parser).ends_its_line:
        return Refusal(
            "the last argument of the parser shares its line with another statement", parser.line
        )
    user = facts.workspace.get(Sharing).user(facts.name)
    if user is not None:
        return Refusal(f"{quoted(user)} parses its arguments with the same parser", parser.line)
    return None
