"""Scripts with an `argparse.ArgumentParser`: two flags on each parser that is parsed, the call
below each parse.

Inserts: the import, `--disable-flash-attention` and `--flash-block-size` after the parser's last
own argument, and the call right after the namespace has a name. Where the namespace is passed on
as a whole, the two names are taken out of it again. A parser that another file builds gets its
flags there, once, if every script that uses it is integrated. An abbreviation that would become
ambiguous (`--d` for `--data`) is kept; where it can't be told what it stands for, the flags have
no abbreviations. Where one parser leaves the rest of the command line to another, the flags are
the other's.

Refuses: parsers that can't take the flags (an option of that name, a class that parses in its own
way), and parse calls whose namespace gets no name that is this program's alone.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from flash_codemods.argparse.namespaces import Namespace
from flash_codemods.argparse.parsers import Parser
from flash_codemods.runtime_import import import_runtime
from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    BLOCK_SIZE_TYPE,
    DISABLE_FLAG,
    FLAG_NAMES,
    enable_call_from,
    flags,
    keep_abbreviation,
    remove_names,
    without_abbreviations,
)
from flash_integrate.planning.codemod import Insertion, Refusal
from flash_integrate.planning.plan import left_alone
from flash_integrate.project.file_facts import FileFacts
from flash_integrate.python.syntax import Function, Place
from flash_integrate.quoting import quoted

ORDER = 10
SUMMARY = (
    "argparse scripts: two flags after the parser's last argument, "
    "the call after the arguments are parsed"
)
REVIEW = "the flags stand on the parser that users call, and the call stands before the model runs"


@dataclass(frozen=True)
class Match:
    """The parsers of this file that get the flags, and the places where a parsed namespace gets a
    name."""

    parsers: list[Parser]
    namespaces: list[Namespace]


def match(facts: FileFacts) -> Match | Refusal | None:
    shared = [parser for parser in facts.shared_parsers if _refuse_parser(facts, parser) is None]
    refusal = _refuse_script(facts)
    namespaces = [
        namespace for namespace in facts.argparse.namespaces if not _hands_over(facts, namespace)
    ]
    if refusal is None and (namespaces or shared):
        used = dict.fromkeys(namespace.parser for namespace in namespaces)
        own = [parser for parser in used if parser.home == facts.name]
        return Match([*own, *(parser for parser in shared if parser not in own)], namespaces)
    return Match(shared, []) if shared else refusal


def edit(facts: FileFacts, match: Match) -> list[Insertion]:
    insertions = [import_runtime(facts, call=bool(match.namespaces), flags=bool(match.parsers))]
    insertions += [_flags(facts, parser) for parser in match.parsers]
    insertions += [_call(facts, namespace) for namespace in match.namespaces]
    return insertions


def _flags(facts: FileFacts, parser: Parser) -> Insertion:
    own_default = any(keyword.arg == "argument_default" for keyword in parser.call.keywords)
    indent = parser.last_argument.node.col_offset
    code = flags(parser.name, facts.style, indent, own_default=own_default)
    code += _abbreviations(facts, parser)
    return Insertion(parser.last_argument.place, code)


def _call(facts: FileFacts, namespace: Namespace) -> Insertion:
    if namespace.fixed and _holds_no_choice(facts, namespace):
        code = remove_names(namespace.target, facts.style, mapping=namespace.mapping)
    else:
        remove = namespace.escapes or namespace.mapping
        code = enable_call_from(
            namespace.target, facts.style, mapping=namespace.mapping, remove=remove
        )
    home = namespace.parser.home
    needs = home if home != facts.name else None
    return Insertion(
        namespace.statement.place, code, before=namespace.entry is not None, needs=needs
    )


def _hands_over(facts: FileFacts, namespace: Namespace) -> bool:
    """Whether its parser leaves the rest of the command line to another one, which comes next in
    the same suite: then the flags are the other's."""
    place = namespace.statement.place
    return any(len(next_place) == len(place) for next_place in _parsed_next(facts, namespace))


def _parsed_next(facts: FileFacts, namespace: Namespace) -> list[Place]:
    """Where other parsers parse what this one may leave: below it, in its suite or in a statement
    of that."""
    if namespace.entry is not None or not namespace.leaves_rest:
        return []
    *suite, (field, index) = namespace.statement.place
    others = [
        item.place for item, parser in facts.argparse.parsed if parser is not namespace.parser
    ]
    in_suite = [
        place for place in others if list(place[: len(suite)]) == suite and len(place) > len(suite)
    ]
    return [
        place
        for place in in_suite
        if place[len(suite)][0] == field and place[len(suite)][1] > index
    ]


def _holds_no_choice(facts: FileFacts, namespace: Namespace) -> bool:
    """Whether defaults say nothing on attention: where the same parser reads the user's command
    line too, and not in another branch of the program, or a caller passes in what it has read."""
    function = namespace.statement.scope.node
    if isinstance(function, Function) and function.args.args:
        return True
    others = (
        other
        for other in facts.argparse.namespaces
        if other.parser is namespace.parser and not other.fixed
    )
    return any(
        not _are_branches(namespace.statement.place, other.statement.place) for other in others
    )


def _are_branches(one: Place, two: Place) -> bool:
    """Whether two places are in different suites of one statement, which do not both run to their
    end."""
    pairs = zip(one, two, strict=False)
    fields = next(((step[0], other[0]) for step, other in pairs if step != other), ("", ""))
    return fields[0] != fields[1] and "finalbody" not in fields


def _refuse_script(facts: FileFacts) -> Refusal | None:
    """Why the places at which a script parses its arguments can't be edited; None also where it
    parses none."""
    found = facts.argparse
    if found.unbound:
        return Refusal(found.unbound[0].reason, found.unbound[0].statement.line)
    for namespace in found.namespaces:
        if not namespace.can_be_followed:
            return Refusal(
                "its parse call shares its line with another statement", namespace.statement.line
            )
        if namespace.entry is not None and facts.workspace.project.is_imported_by_name(
            facts.name, namespace.entry
        ):
            return Refusal(
                f"other files import {namespace.entry}, to which it passes its arguments"
            )
    prompted = {parser: statement for statement, parser in found.prompted}
    used = [namespace.parser for namespace in found.namespaces]
    if shared := next(
        (statement for parser, statement in prompted.items() if parser in used or not used), None
    ):
        return Refusal("parses text that is not its command line", shared.line)
    if found.namespaces and all(namespace.fixed for namespace in found.namespaces):
        return Refusal("parses a fixed list of arguments", found.namespaces[0].statement.line)
    namespaces = [namespace for namespace in found.namespaces if not _hands_over(facts, namespace)]
    for namespace in namespaces:
        if _parsed_next(facts, namespace):
            return Refusal(
                "parses its arguments in steps, with several parsers", namespace.statement.line
            )
    parsers = dict.fromkeys(namespace.parser for namespace in namespaces)
    if child := next(
        (parser for parser in parsers if not parsers.keys().isdisjoint(parser.parents)), None
    ):
        return Refusal("parses with a parser and with one that is built on it", child.created.line)
    refusals = (_refuse_parser(facts, parser) for parser in parsers)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _refuse_parser(facts: FileFacts, parser: Parser) -> Refusal | None:
    """Why a parser can't get the flags: for what it is, or for who else uses it."""
    home = facts.workspace.facts(parser.home)
    if home.integrated_at is not None and {DISABLE_FLAG, BLOCK_SIZE_FLAG} <= parser.options.names:
        return None  # a parser of another file, which an earlier run has given the flags
    where = f" of {quoted(parser.home)}" if home is not facts else ""
    line = parser.created.line if home is facts else None
    if home is not facts and (
        parser.home not in facts.workspace.editable or left_alone(home) is not None
    ):
        return Refusal(f"its parser is built in {quoted(parser.home)}, which is not edited")
    if any(keyword.arg == "prefix_chars" for keyword in parser.call.keywords):
        return Refusal(
            f"the parser{where} sets prefix_chars: flags that start with -- may not fit it", line
        )
    if clash := parser.options.dests & set(FLAG_NAMES):
        return Refusal(f"the parser{where} has an argument {min(clash)} already", line)
    if BLOCK_SIZE_TYPE.encode() in home.source.data:
        return Refusal(f"the file of the parser{where} has a {BLOCK_SIZE_TYPE} of its own", line)
    if not parser.constructor.is_plain:
        return Refusal(
            f"the class of the parser{where} adds or parses arguments in its own way", line
        )
    if home.argparse.inspects_parsers:
        return Refusal(f"the file of the parser{where} looks into argparse's own tables", line)
    if not parser.last_argument.ends_its_line:
        return Refusal(
            f"the last argument of the parser{where} shares its line with another statement", line
        )
    if longer := [
        name for name in parser.options.names if name.startswith((DISABLE_FLAG, BLOCK_SIZE_FLAG))
    ]:
        return Refusal(
            f"the parser{where} has an option {min(longer)}, of which a flag is the beginning", line
        )
    return _refuse_sharing(facts, parser)


def _refuse_sharing(facts: FileFacts, parser: Parser) -> Refusal | None:
    """A user of the parser that is not integrated would be handed two names that it does not
    know."""
    for user in facts.workspace.users(parser):
        own = [use for use in user.argparse.namespaces if use.parser is parser]
        fits = own and all(use.can_be_followed for use in own) and not user.argparse.unbound
        if not fits or left_alone(user) is not None or user.reached is None:
            shared = f"its parser is built in {quoted(parser.home)}"
            return Refusal(f"{shared}, which {quoted(user.name)} uses without the integration")
    return None


def _abbreviations(facts: FileFacts, parser: Parser) -> str:
    """What keeps the meaning of all abbreviations that are beginnings of the flags: of another
    option, or of what is left for other parsers."""
    if any(
        keyword.arg == "allow_abbrev" and _is_false(keyword.value)
        for keyword in parser.call.keywords
    ):
        return ""
    known = [facts.argparse, *(user.argparse for user in facts.workspace.users(parser))]
    options = [
        parser.options,
        *(use.extensions[parser] for use in known if parser in use.extensions),
    ]
    names = {name for found in options for name in found.names}
    shorts = (
        flag[:length] for flag in (DISABLE_FLAG, BLOCK_SIZE_FLAG) for length in range(3, len(flag))
    )
    owners = {
        short: [name for name in names if name.startswith(short)]
        for short in shorts
        if short not in names
    }
    kept = {short: of_short[0] for short, of_short in owners.items() if len(of_short) == 1}
    leaves_rest = any(
        use.parser is parser and use.leaves_rest for item in known for use in item.namespaces
    )
    if (
        leaves_rest
        or any(found.has_unknown for found in options)
        or not parser.options.plain.issuperset(kept.values())
    ):
        return without_abbreviations(parser.name, facts.style)
    return "".join(keep_abbreviation(parser.name, *pair, facts.style) for pair in kept.items())


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
