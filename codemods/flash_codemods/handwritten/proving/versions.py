"""The two versions of a function's attention: the statements in which they differ, and the result
that they come to."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flash_codemods.handwritten.operations import Names, functions_of, is_as_written, statements_of
from flash_codemods.handwritten.proving.evaluator import Evaluator
from flash_codemods.handwritten.proving.question import Question
from flash_integrate.python.syntax import holds


@dataclass(frozen=True)
class Version:
    """The statements of one version that the other has not, and the expression whose value is
    asked for."""

    suite: list[ast.stmt]
    target: ast.expr
    names: Names
    functions: dict[str, ast.FunctionDef]

    def run(
        self, mx: Any, inputs: dict[str, Any], types: dict[str, str] | None = None
    ) -> tuple[Any, set[int]]:
        """The result, and the lines that were run; `inputs` and `types` as `Evaluator` takes
        them.

        Raises:
            Missing, NotEvaluable: as `Evaluator.run`.
        """
        evaluator = Evaluator(mx, self.names, inputs, types)
        evaluator.functions = dict(self.functions)
        return evaluator.run(self.suite, self.target), evaluator.ran


def versions(question: Question) -> tuple[Version, Version]:
    """The attention by hand, and the fused call."""
    old_tree, new_tree = ast.parse(question.old), ast.parse(question.new)
    old = _function(old_tree, question.function, question.index)
    new = _function(new_tree, question.function, question.index)
    product = next(
        node
        for node in ast.walk(old)
        if isinstance(node, ast.expr)
        and (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) == question.product
    )
    call = ast.parse(question.call, mode="eval").body
    text = ast.unparse(call)
    made = next(
        node
        for node in ast.walk(new)
        if isinstance(node, ast.expr) and type(node) is type(call) and ast.unparse(node) == text
    )
    names = Names(old_tree)
    functions = functions_of(old_tree, names)
    for node in _statements(old.body):
        if isinstance(node, ast.FunctionDef) and is_as_written(node, names):
            functions[node.name] = node
    own = {*question.makers, *question.sizes}
    makers = {ast.dump(node) for node in _statements(old.body) if node.lineno in own}
    unchanged = _unchanged(old, new) - makers
    old_suite = _differing(old, product, unchanged)
    new_suite = _differing(new, made, unchanged)
    return (
        Version(old_suite, product, names, functions),
        Version(new_suite, made, Names(new_tree), functions),
    )


def touched(old: Version, new: Version) -> set[int]:
    """The lines of the old version's statements that are no longer in the new one, but for those
    that raise an error: no result comes of them."""
    kept = _dumped(new.suite)
    return {
        node.lineno
        for node in _statements(old.suite)
        if ast.dump(node) not in kept and not isinstance(node, ast.Raise)
    }


def _unchanged(old: ast.FunctionDef, new: ast.FunctionDef) -> set[str]:
    """The statements of which both versions have as many: of the same line in two branches one may
    be gone."""
    before, after = (
        Counter(ast.dump(node) for node in _statements(function.body)) for function in (old, new)
    )
    return {text for text, count in before.items() if after[text] == count}


def _dumped(body: list[ast.stmt]) -> set[str]:
    return {ast.dump(node) for node in _statements(body)}


def _statements(body: Iterable[ast.stmt]) -> list[ast.stmt]:
    return [node for item in body for node in statements_of(item) if isinstance(node, ast.stmt)]


def _differing(function: ast.FunctionDef, target: ast.expr, unchanged: set[str]) -> list[ast.stmt]:
    """The statements that are not in the other version, of the suites that lead to the target, and
    those that change what they make."""
    own = [node for node in _statements(function.body) if ast.dump(node) not in unchanged]
    made = {name.id for node in own for name in _stored(node) if isinstance(name, ast.Name)}
    found: list[ast.stmt] = []
    suite = function.body
    while True:
        index = next(i for i, item in enumerate(suite) if holds(item, target))
        found += [
            item
            for item in suite[:index]
            if ast.dump(item) not in unchanged or _names_a_type(item) or made & _changed(item)
        ]
        inner = [
            part
            for name in ("body", "orelse", "finalbody")
            for part in [getattr(suite[index], name, None)]
            if isinstance(part, list) and any(holds(item, target) for item in part)
        ]
        if not inner:
            return [*found, suite[index]]
        suite = inner[0]


def _stored(statement: ast.stmt) -> list[ast.expr]:
    """What a statement binds, and of what it changes a part."""
    return [
        part
        for part in ast.walk(statement)
        if isinstance(part, ast.Name | ast.Subscript) and isinstance(part.ctx, ast.Store)
    ]


def _changed(statement: ast.stmt) -> set[str]:
    """The names of what a statement changes in place: `mask` of `mask[:, 0] = True`."""
    parts = [part.value for part in _stored(statement) if isinstance(part, ast.Subscript)]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def _names_a_type(statement: ast.stmt) -> bool:
    """`dtype = queries.dtype`: no input stands for a type, so both versions make it."""
    made = statement.value if isinstance(statement, ast.Assign) else None
    return isinstance(made, ast.Attribute) and made.attr == "dtype"


def _function(tree: ast.Module, way: tuple[str, ...], index: int) -> ast.FunctionDef:
    """The function at the end of a way of names."""
    nodes: list[ast.AST] = [tree]
    for name in way:
        nodes = [
            child
            for node in nodes
            for child in statements_of(node)
            if child is not node
            and isinstance(child, ast.ClassDef | ast.FunctionDef)
            and child.name == name
        ]
    found = sorted(
        (node for node in nodes if isinstance(node, ast.FunctionDef)),
        key=lambda node: node.lineno,
    )
    return found[index]
