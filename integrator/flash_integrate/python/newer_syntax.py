"""Python that is newer than the one this tool runs on: LibCST reads what `ast` refuses. Imported
when needed only."""

from __future__ import annotations

import ast

import libcst as cst

from flash_integrate.python.processes import in_its_own_process

# A program of ten thousand lines takes three seconds; some that are no Python would take LibCST's
# parser for ever.
_SECONDS = 20


def in_older_syntax(text: str) -> str | None:
    """The same statements on the same lines, with what Python 3.10 can't parse put in older words.

    f-strings become plain strings, type parameters are left out, a type alias is an assignment.
    None where the text is no Python either, or more than LibCST's parser can take: that may
    overflow its stack, and so is not done here.
    """
    return in_its_own_process(_SECONDS, _in_older_syntax, text)


def _in_older_syntax(text: str) -> str | None:
    try:
        older = cst.parse_module(text).visit(_Older()).code
        ast.parse(older)
    except (cst.ParserSyntaxError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return older


class _Older(cst.CSTTransformer):
    def leave_FormattedString(
        self, original_node: cst.FormattedString, updated_node: cst.FormattedString
    ) -> cst.BaseExpression:
        lines = cst.Module([]).code_for_node(original_node).count("\n")
        return cst.SimpleString('""' if lines == 0 else '"""' + "\n" * lines + '"""')

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        return updated_node.with_changes(type_parameters=None)

    def leave_ClassDef(
        self, original_node: cst.ClassDef, updated_node: cst.ClassDef
    ) -> cst.ClassDef:
        return updated_node.with_changes(type_parameters=None)

    def leave_TypeAlias(
        self, original_node: cst.TypeAlias, updated_node: cst.TypeAlias
    ) -> cst.BaseSmallStatement:
        return cst.Assign([cst.AssignTarget(updated_node.name)], updated_node.value)
