"""The statements of a function that make its masks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable

from flash_codemods.handwritten.values import Binding, Number, Step
from flash_codemods.handwritten.writing.causal import made_of
from flash_codemods.handwritten.writing.masks import masks_of


def makers(
    steps: tuple[Step, ...], operands: Collection[Binding], is_pure: Callable[[ast.expr], bool]
) -> list[ast.stmt]:
    """The statements that make masks, as far back as they are array expressions. `operands` are
    the bindings of queries, keys and values."""
    found: list[ast.stmt] = []
    todo = [binding for step in masks_of(steps) for binding in read(step.node, step.names)]
    for binding in todo:
        statement, made = binding.statement, made_of(binding)
        is_known = isinstance(binding.value, Number) or binding in operands
        if statement is None or statement in found or made is None or is_known:
            continue
        if is_pure(made[0]):
            found.append(statement)
            todo += read(*made)
    return found


def size_makers(numbers: Iterable[Binding], arrays: Collection[Binding]) -> list[ast.stmt]:
    """The statements that make numbers of nothing but other numbers, and the shapes of `arrays`."""
    found: list[ast.stmt] = []
    todo = [binding for binding in numbers if isinstance(binding.value, Number)]
    for binding in todo:
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or statement in found:
            continue
        sizes = [item for item in binding.seen.values() if item not in arrays]
        if all(isinstance(item.value, Number) for item in sizes):
            found.append(statement)
            todo += sizes
    return found


def read(node: ast.expr, names: dict[str, Binding]) -> list[Binding]:
    """What the names stand for of which an expression reads more than their type or shape."""
    return [names[name] for name in sorted(_names_in(node)) if name in names]


def _names_in(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Attribute) and node.attr in ("dtype", "shape", "ndim"):
        return set()
    if isinstance(node, ast.Name):
        return {node.id}
    return {name for child in ast.iter_child_nodes(node) for name in _names_in(child)}
