"""The functions of a module that hold attention, and what they were read to hold."""

from __future__ import annotations

import ast
import dataclasses

from flash_codemods.handwritten.operations import Names, functions_of
from flash_codemods.handwritten.reading.classes import ClassFacts
from flash_codemods.handwritten.reading.reader import Reader
from flash_codemods.handwritten.values import (
    Found,
    Refused,
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a function was read to hold."""

    function: ast.FunctionDef
    owner: ClassFacts
    reader: Reader

    @property
    def found(self) -> list[Found]:
        return self.reader.found

    @property
    def refused(self) -> list[Refused]:
        return self.reader.refused


def read_functions(tree: ast.Module, text: str) -> list[Reading]:
    """Every function of a module that holds attention, or something near it; `text` is the
    module's."""
    names = Names(tree)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    functions = functions_of(tree, names)
    marks = [number for number, line in enumerate(text.split("\n"), 1) if "softmax" in line]
    readings = []
    for function, owner in _functions(tree):
        last = function.end_lineno or function.lineno
        if not any(function.lineno <= number <= last for number in marks):
            continue
        facts = ClassFacts(owner, names)
        reader = Reader(names, facts, constants, functions)
        reader.read(function)
        if reader.found or reader.refused:
            readings.append(Reading(function, facts, reader))
    return readings


def _functions(tree: ast.Module) -> list[tuple[ast.FunctionDef, ast.ClassDef | None]]:
    """Every function with the class of which it is a method, in document order."""
    found: list[tuple[ast.FunctionDef, ast.ClassDef | None]] = []
    todo: list[tuple[ast.AST, ast.ClassDef | None]] = [(tree, None)]
    while todo:
        node, owner = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                todo.append((child, child))
            elif isinstance(child, ast.FunctionDef):
                found.append((child, owner))
                todo.append((child, owner))
            elif isinstance(child, ast.stmt | ast.ExceptHandler):
                todo.append((child, owner))
    return sorted(found, key=lambda item: item[0].lineno)
