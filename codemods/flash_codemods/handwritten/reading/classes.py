"""What a class says of the attributes that its methods read: numbers, dropout that is off."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from flash_codemods.handwritten.operations import LAYERS, Names, statements_of

SCALE = re.compile(r"^_?((sm|softmax|attn|attention|qk)_?)?scal(e|ing)(_factor)?$")
_NUMBERS = {"int", "float", "Optional[int]", "Optional[float]", "int | None", "float | None"}


def is_number_parameter(argument: ast.arg, default: ast.expr | None) -> bool:
    """Whether a parameter is a number by its annotation, its default, or because it is called
    `scale`, as that of MLX's own function."""
    if argument.annotation is not None:
        return ast.unparse(argument.annotation).strip("'\"") in _NUMBERS
    if isinstance(default, ast.Constant) and type(default.value) in (int, float):
        return True
    return SCALE.match(argument.arg) is not None


class ClassFacts:
    """The attributes and methods of one class of a file."""

    def __init__(self, node: ast.ClassDef | None, names: Names) -> None:
        self.names = names
        self.methods: dict[str, ast.FunctionDef] = {}
        self._assigned: dict[str, list[tuple[ast.expr | None, ast.FunctionDef]]] = {}
        for method in node.body if node else ():
            if isinstance(method, ast.FunctionDef):
                self.methods[method.name] = method
                self._read(method)
        self._fields = {
            item.target.id: ast.unparse(item.annotation)
            for item in (node.body if node else ())
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }

    def _read(self, method: ast.FunctionDef) -> None:
        for node in statements_of(method):
            if isinstance(node, ast.Assign):
                targets: list[ast.expr] = node.targets
                value: ast.expr | None = node.value
            elif isinstance(node, ast.AnnAssign | ast.AugAssign):
                targets, value = [node.target], node.value
            else:
                continue
            for target, given in _each(targets, value):
                if (name := self_attribute(target)) is not None:
                    self._assigned.setdefault(name, []).append((given, method))

    def is_number(self, attribute: str) -> bool:
        """Whether every assignment of `self.attribute` makes it a number of Python's."""
        return self._is_number(attribute, frozenset())

    def _is_number(self, attribute: str, asked: frozenset[str]) -> bool:
        if attribute in asked:
            return False
        if attribute in self._fields:
            return self._fields[attribute] in _NUMBERS
        found = self._assigned.get(attribute, [])
        asked |= {attribute}
        return bool(found) and all(
            value is not None and self._number(value, method, asked) for value, method in found
        )

    def _number(self, node: ast.expr, method: ast.FunctionDef, asked: frozenset[str]) -> bool:
        if isinstance(node, ast.Constant):
            return type(node.value) in (int, float)
        if isinstance(node, ast.BinOp):
            return self._number(node.left, method, asked) and self._number(
                node.right, method, asked
            )
        if isinstance(node, ast.UnaryOp):
            return self._number(node.operand, method, asked)
        if isinstance(node, ast.BoolOp):
            return all(self._number(value, method, asked) for value in node.values)
        if isinstance(node, ast.IfExp):
            return self._number(node.body, method, asked) and self._number(
                node.orelse, method, asked
            )
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr" and node.args:
            return self._is_argument(node.args[0], method, asked)
        if isinstance(node, ast.Call):
            return self._is_number_call(node)
        if (name := self_attribute(node)) is not None:
            return self._is_number(name, asked)
        return self._is_argument(node, method, asked)

    def _is_number_call(self, node: ast.Call) -> bool:
        full = self.names.full(node.func) or ""
        plain = isinstance(node.func, ast.Name) and node.func.id in ("int", "float", "len")
        return plain or full.startswith("math.")

    def _is_argument(self, node: ast.expr, method: ast.FunctionDef, asked: frozenset[str]) -> bool:
        """Whether it is what a module is made with: a parameter of `__init__`, a setting of a
        configuration, or a variable that one of those was given to."""
        while isinstance(node, ast.Attribute):
            if (kept := self_attribute(node)) is not None:
                return self._is_kept_argument(kept)
            node = node.value
        if not isinstance(node, ast.Name):
            return False
        values = [
            value
            for item in statements_of(method)
            if isinstance(item, ast.Assign)
            for target, value in _each(item.targets, item.value)
            if isinstance(target, ast.Name) and target.id == node.id
        ]
        key = f"{method.name}.{node.id}"
        if key in asked:
            return False
        arguments = {item.arg: item for item in [*method.args.args, *method.args.kwonlyargs]}
        given = node.id in arguments and method.name == "__init__" and node.id != "self"
        if given and arguments[node.id].annotation is not None:
            given = "array" not in ast.unparse(arguments[node.id].annotation)  # type: ignore[arg-type]
        return (given or bool(values)) and all(
            value is not None and self._number(value, method, asked | {key}) for value in values
        )

    def _is_kept_argument(self, attribute: str) -> bool:
        """Whether `self.args` is a parameter of `__init__`, as it came."""
        found = self._assigned.get(attribute, [])
        return bool(found) and all(
            isinstance(value, ast.Name)
            and method.name == "__init__"
            and value.id in {item.arg for item in method.args.args}
            for value, method in found
        )

    def drops_nothing(self, attribute: str) -> bool:
        """Whether `self.attribute` is a dropout that is written to be off."""
        found = self._assigned.get(attribute, [])
        return bool(found) and all(self._is_dropout_off(value) for value, _ in found)

    def _is_dropout_off(self, node: ast.expr | None) -> bool:
        if not isinstance(node, ast.Call):
            return False
        full = self.names.full(node.func)
        if full == f"{LAYERS}.Identity":
            return True
        given = [*node.args[:1], *(item.value for item in node.keywords if item.arg == "p")]
        off = [item for item in given if isinstance(item, ast.Constant) and item.value == 0]
        return full == f"{LAYERS}.Dropout" and len(given) == len(off) == 1

    def is_dropout(self, attribute: str) -> bool:
        """Whether it is a dropout by its name, or by what it is made as."""
        made = [
            self.names.full(value.func)
            for value, _ in self._assigned.get(attribute, [])
            if isinstance(value, ast.Call)
        ]
        return "drop" in attribute.lower() or f"{LAYERS}.Dropout" in made


def _each(
    targets: list[ast.expr], value: ast.expr | None
) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """What an assignment binds, with its value: None where that is a part of something else."""
    for target in targets:
        if isinstance(target, ast.Starred):
            yield target.value, None
        elif isinstance(target, ast.Tuple | ast.List):
            for item, part in zip(target.elts, _parts(value, target), strict=True):
                yield from _each([item], part)
        else:
            yield target, value


def _parts(value: ast.expr | None, target: ast.Tuple | ast.List) -> Sequence[ast.expr | None]:
    """What each part of a target is given, where as many values are written out."""
    values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    starred = any(isinstance(item, ast.Starred) for item in [*values, *target.elts])
    known = len(values) == len(target.elts) and not starred
    return values if known else [None] * len(target.elts)


def self_attribute(node: ast.expr) -> str | None:
    """`scale` for `self.scale`."""
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    ):
        return node.attr
    return None
