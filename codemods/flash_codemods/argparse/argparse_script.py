"""Scripts with an `argparse.ArgumentParser`: two flags on each parser that is parsed, the call
below each parse.

Inserts: the import, `--disable-flash-attention` and `--flash-block-size` after the parser's last
own argument, and the call right after the namespace has a name. Where the namespace is used as a
whole, the two names are taken out of it again. A parser that another file builds gets its flags
there, once, if every script that uses it is integrated.

Known are the shapes that public repos use: a parser, or one of a subclass, that has a name; parsed
by `parse_args` or `parse_known_args`, where it is built or in another function or file; arguments
that get a name or are returned. Anything else is refused with its reason, and gets the call alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from flash_codemods.argparse.abbreviations import abbreviation_notes
from flash_codemods.argparse.namespaces import Namespace, Namespaces, calls_in, may_parse
from flash_codemods.argparse.parsers import Parser, Parsers
from flash_codemods.argparse.sharing import Sharing, shared_parsers
from flash_codemods.argparse.snippets import enable_from, flags, remove_names
from flash_integrate.inserted.presence import integrated_at
from flash_integrate.inserted.snippets import BLOCK_SIZE_FLAG, DISABLE_FLAG, FLAG_NAMES
from flash_integrate.notes import Note, Refusal
from flash_integrate.planning.plan import is_integrated, left_alone
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts, InsertionPoint
from flash_integrate.python.edits import Insertion
from flash_integrate.python.syntax import Function, Statement, Steps, dotted
from flash_integrate.quoting import quoted

ORDER = 10
SUMMARY = (
    "argparse scripts: two flags after the parser's last argument, "
    "the call after the arguments are parsed"
)
GIVES_FLAGS = True
REVIEW = "the flags stand on the parser that users call, and the call stands before the model runs"
SHARED_BY = (b"argparse", b".add_argument(")
"""A file with one of these words may build the parser of another file."""

_OWN_TABLES = {"_actions", "_action_groups", "_option_string_actions", "_group_actions"}


@dataclass(frozen=True)
class Match:
    """The parsers of this file that get the flags, and the places where a parsed namespace gets a
    name."""

    parsers: list[Parser]
    namespaces: list[Namespace]


def match(facts: FileFacts) -> Match | Refusal | None:
    if not may_parse(facts):
        return None
    shared = [parser for parser in shared_parsers(facts) if _refuse_parser(facts, parser) is None]
    namespaces = facts.get(Namespaces).found
    refusal = _refuse_script(facts)
    if refusal is not None or not (namespaces or shared):
        return Match(shared, []) if shared else refusal
    used = dict.fromkeys(namespace.parser for namespace in namespaces)
    own = [parser for parser in used if parser.home == facts.name]
    return Match([*own, *(parser for parser in shared if parser not in own)], namespaces)


def edit(facts: FileFacts, match: Match) -> list[Insertion]:
    insertions = [_flags(facts, parser) for parser in match.parsers]
    insertions += [_call(facts, namespace) for namespace in match.namespaces]
    return insertions


def notes(facts: FileFacts, match: Match) -> Iterator[Note]:
    yield from abbreviation_notes(facts, match.parsers)
    for namespace in match.namespaces:
        if namespace.leaves_rest and _binds_rest(namespace.statement.node):
            reason = (
                "unknown arguments are left to others: "
                "--disable or --flash among them is now taken for a flag"
            )
            yield Note(reason, namespace.statement.line)


def serves(facts: FileFacts, match: Match) -> str | None:
    """What a file is changed for whose own way to attention does not matter."""
    shared = shared_parsers(facts)
    if not shared:
        return None
    user = facts.workspace.get(Sharing).users(shared[0])[0]
    return f"builds the parser of {quoted(user.name)}"


def explain(facts: FileFacts) -> Iterator[str]:
    """What is seen of argparse in a file, in lines."""
    if not may_parse(facts):
        return
    for parser in facts.get(Namespaces).used:
        home = "" if parser.home == facts.name else f" of {quoted(parser.home)}"
        created, last = parser.created.line, parser.last_argument.line
        yield f"parser: {parser.name}{home}, line {created}, last argument line {last}"
    for one in facts.get(Namespaces).found:
        kind = "dict" if one.mapping else "namespace"
        whole = one.escapes or one.mapping
        use = "passed on as a whole" if whole else "used by its attributes alone"
        yield f"arguments: the {kind} {one.target}, line {one.statement.line}, {use}"


def together(facts: FileFacts, found: list[Statement]) -> list[list[Statement]]:
    """Which of the inserted statements `found` belong together: those of each parser, which stand
    or fall with whatever reads its namespaces."""
    groups = []
    for parser in facts.get(Parsers).made:
        own = [item for item in facts.get(Namespaces).found if item.parser == parser]
        names = {(parser.created.scope, parser.name)}
        names |= {(item.statement.scope, item.target) for item in own}
        mine = [item for item in found if any(_mentions(item, *name) for name in names)]
        if mine:
            groups.append(mine)
    return groups


def _mentions(statement: Statement, scope: object, name: str) -> bool:
    return statement.scope is scope and any(
        dotted(part) == name for part in ast.walk(statement.node)
    )


def _flags(facts: FileFacts, parser: Parser) -> Insertion:
    indent = parser.last_argument.node.col_offset
    has_commands = _has_commands(facts, parser)
    code = flags(parser.name, facts.style, indent, has_commands=has_commands)
    return Insertion(parser.last_argument.steps, code)


def _has_commands(facts: FileFacts, parser: Parser) -> bool:
    adds = f"{parser.name}.add_subparsers"
    beside = facts.module.inside(parser.created.scope.node)
    return any(dotted(call.func) == adds for item in beside for call in calls_in(item.node))


def _call(facts: FileFacts, namespace: Namespace) -> Insertion:
    statement, target = namespace.statement, namespace.target
    is_apart = len(statement.steps) == 1 and _stands_apart(statement)
    point = InsertionPoint.beside(statement, before=False, is_apart=is_apart)
    style, mapping = facts.style, namespace.mapping
    function = statement.scope.node
    if namespace.fixed and isinstance(function, Function) and function.args.args:
        # Defaults beside what the function's caller has read: the choice is the caller's.
        code = remove_names(target, style, point.column, mapping=mapping)
    else:
        remove = namespace.escapes or mapping
        if not remove:  # the names have to be gone before the namespace is passed on
            point = facts.get(Starts).below_mlx_import(point)
        code = enable_from(target, style, point.column, mapping=mapping, remove=remove)
        code = "\n" * point.is_apart + code
    home = namespace.parser.home
    needs = home if home != facts.name else None
    return Insertion(point.anchor, code, before=point.before, needs=needs)


def _stands_apart(statement: Statement) -> bool:
    """Whether a blank line or a comment parts a statement from what follows in its suite."""
    following = statement.suite[statement.index + 1 : statement.index + 2]
    end = statement.node.end_lineno or statement.line
    return not following or following[0].lineno > end + 1


def _binds_rest(node: ast.stmt) -> bool:
    """Whether `args, rest = ...` keeps what is left over."""
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    names = [dotted(item) or "" for item in target.elts] if isinstance(target, ast.Tuple) else []
    return len(names) == 2 and not names[1].startswith("_")


def _refuse_script(facts: FileFacts) -> Refusal | None:
    """Why the places at which a script parses its arguments can't be edited; None also where it
    parses none."""
    found = facts.get(Namespaces)
    if (steps := _in_steps(found)) is not None:
        return Refusal("parses its arguments in steps, with several parsers", steps)
    if found.unsuited:
        return Refusal(found.unsuited[0].reason, found.unsuited[0].line)
    for one in found.found:
        if not one.can_be_followed:
            return Refusal(
                "its parse call shares its line with another statement", one.statement.line
            )
    if (fixed := _fixed(found)) is not None:
        return Refusal("parses a fixed list of arguments", fixed.statement.line)
    refusals = (_refuse_parser(facts, one.parser) for one in found.found)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _in_steps(found: Namespaces) -> int | None:
    """The line on which one parser leaves the rest of the command line to another one."""
    leaving = [one.statement.line for one in found.found if one.leaves_rest]
    return leaving[0] if leaving and len(found.used) > 1 else None


def _fixed(found: Namespaces) -> Namespace | None:
    """A namespace of a literal list beside which nothing is the user's choice, or which comes after
    that and would take its place."""
    users = [one for one in found.found if not one.fixed]
    for one in found.found:
        same = [user for user in users if user.parser == one.parser]
        together = [user for user in same if not _are_branches(one, user)]
        if one.fixed and (together or not users):
            return one
    return None


def _are_branches(one: Namespace, other: Namespace) -> bool:
    """Whether two namespaces are of different suites of one statement, which do not both run to
    their end."""
    fields = _parting(one.statement.steps, other.statement.steps)
    return fields[0] != fields[1] and "finalbody" not in fields


def _parting(one: Steps, two: Steps) -> tuple[str, str]:
    """The fields at which the ways to two statements part."""
    for step, other in zip(one, two, strict=False):
        if step != other:
            return step[0], other[0]
    return "", ""


def _refuse_parser(facts: FileFacts, parser: Parser) -> Refusal | None:
    """Why a parser can't get the flags: for what it is, or for who else uses it."""
    home = facts.workspace.facts(parser.home)
    data = home.source.data
    if integrated_at(home.module) is not None and DISABLE_FLAG.encode() in data:
        return None  # a parser of another file, which an earlier run has given the flags
    is_own = home.name == facts.name
    where = "" if is_own else f" of {quoted(parser.home)}"
    line = parser.created.line if is_own else None
    editable = parser.home in facts.workspace.editable and left_alone(home) is None
    if not is_own and not editable:
        return Refusal(f"its parser is built in {quoted(parser.home)}, which is not edited")
    files = [home, *(facts.workspace.facts(name) for name in parser.kind.homes)]
    for word in (DISABLE_FLAG, BLOCK_SIZE_FLAG, *FLAG_NAMES):
        if any(word.encode() in file.source.data for file in files):
            return Refusal(f"the file of the parser{where} has a {word} of its own", line)
    for keyword in ("argument_default", "prefix_chars", "parents"):
        if parser.keyword(keyword) is not None:
            return Refusal(f"the parser{where} is made with {keyword}", line)
    if not parser.kind.is_plain:
        return Refusal(
            f"the class of the parser{where} adds or parses arguments in its own way", line
        )
    if any(node.attr in _OWN_TABLES for node in home.module.of_kind(ast.Attribute)):
        return Refusal(f"the file of the parser{where} looks into argparse's own tables", line)
    if not parser.last_argument.ends_its_line:
        return Refusal(
            f"the last argument of the parser{where} shares its line with another statement", line
        )
    return _refuse_sharing(facts, parser)


def _refuse_sharing(facts: FileFacts, parser: Parser) -> Refusal | None:
    """A user of the parser that is not integrated would be handed two names that it does not
    know."""
    for user in facts.workspace.get(Sharing).users(parser):
        found = user.get(Namespaces)
        own = [use for use in found.found if use.parser == parser]
        fits = own and all(use.can_be_followed for use in own) and not found.unsuited
        if not fits or not is_integrated(user):
            shared = f"its parser is built in {quoted(parser.home)}"
            reason = f"{shared}, and {quoted(user.name)} would have flags that it does not know"
            return Refusal(reason)
    return None
