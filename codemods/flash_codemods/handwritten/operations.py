"""What the names in a file stand for: MLX's operations, its layers, Python's own numbers."""

from __future__ import annotations

import ast
from dataclasses import dataclass

CORE = "mlx.core"
LAYERS = "mlx.nn"
# MLX takes their numbers as it takes Python's: the type of an array beside them stays.
NUMPY_FLOATS = {"numpy.float16", "numpy.float32", "numpy.float64"}

# Methods that every array has, and the operations of mlx.core of the same names.
ARRAY_METHODS = {
    "astype",
    "flatten",
    "moveaxis",
    "reshape",
    "softmax",
    "split",
    "squeeze",
    "swapaxes",
    "transpose",
    "unflatten",
}


@dataclass(frozen=True)
class Operation:
    """A call of an operation of MLX, the array first among its arguments, also where it is a
    method of it."""

    name: str
    arguments: tuple[ast.expr, ...]
    keywords: dict[str, ast.expr]

    def argument(self, position: int, keyword: str) -> ast.expr | None:
        """An argument by its place, counted with the array, or by its name."""
        if position < len(self.arguments):
            return self.arguments[position]
        return self.keywords.get(keyword)

    def axes(self, keyword: str) -> list[ast.expr]:
        """Sizes or axes: the rest of the arguments, or the one tuple that holds them."""
        rest = list(self.arguments[1:])
        if not rest and keyword in self.keywords:
            rest = [self.keywords[keyword]]
        if len(rest) == 1 and isinstance(rest[0], ast.Tuple | ast.List):
            return list(rest[0].elts)
        return rest


class Names:
    """The modules that a file imports, under the names that it gives them."""

    def __init__(self, tree: ast.Module) -> None:
        self.modules: dict[str, str] = {}
        self._full: dict[ast.expr, str | None] = {}
        self._operations: dict[ast.expr, Operation | None] = {}
        for node in statements_of(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        self.modules[alias.asname] = alias.name
                    else:
                        self.modules[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def full(self, node: ast.expr) -> str | None:
        """`mlx.core.softmax` for `mx.softmax`; None for what no import gave its name."""
        if node not in self._full:
            self._full[node] = self._found(node)
        return self._full[node]

    def _found(self, node: ast.expr) -> str | None:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.modules:
            return None
        return ".".join([self.modules[node.id], *reversed(parts)])

    def core(self) -> str | None:
        """The file's own name for mlx.core."""
        for name, module in self.modules.items():
            if module == CORE:
                return name
        return "mlx.core" if self.modules.get("mlx") == "mlx" else None

    def operation(self, node: ast.expr) -> Operation | None:
        """The operation that a call is of; None for any other expression."""
        if not isinstance(node, ast.Call):
            return None
        if node not in self._operations:
            self._operations[node] = self._operation(node)
        return self._operations[node]

    def _operation(self, node: ast.Call) -> Operation | None:
        keywords = {item.arg: item.value for item in node.keywords if item.arg}
        full = self.full(node.func)
        if full is not None:
            module, _, name = full.rpartition(".")
            if module in (CORE, LAYERS, f"{CORE}.linalg", f"{CORE}.fast"):
                return Operation(name, tuple(node.args), keywords)
            return None
        own = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self"
        if isinstance(node.func, ast.Attribute) and node.func.attr in ARRAY_METHODS and not own:
            return Operation(node.func.attr, (node.func.value, *node.args), keywords)
        return None


def statements_of(root: ast.AST) -> list[ast.AST]:
    """Every statement below a node, and what holds some: imports, functions and classes stand
    nowhere else."""
    found: list[ast.AST] = [root]
    for node in found:
        for suite in ("body", "handlers", "orelse", "finalbody", "cases"):
            found += getattr(node, suite, ())
    return found


def functions_of(tree: ast.Module, names: Names) -> dict[str, ast.FunctionDef]:
    """The functions of a module that its names stand for: no decorator makes another one of them,
    and no assignment binds the name anew."""
    found: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.pop(node.name, None)
            if is_as_written(node, names):
                found[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                found.pop(getattr(target, "id", ""), None)
    return found


def is_as_written(function: ast.FunctionDef, names: Names) -> bool:
    """Whether a function does what is written in it: it has no decorator but MLX's `compile`."""
    return all(
        any(
            isinstance(part, ast.Attribute | ast.Name) and names.full(part) == f"{CORE}.compile"
            for part in ast.walk(decorator)
        )
        for decorator in function.decorator_list
    )


def integer(node: ast.expr | None) -> int | None:
    """The value of `3` or `-1`."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = integer(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def integers(nodes: list[ast.expr]) -> list[int] | None:
    """The values of several; None if one of them is not written out."""
    found = [value for node in nodes if (value := integer(node)) is not None]
    return found if len(found) == len(nodes) else None


def permutation(operation: Operation, rank: int | None) -> list[int] | None:
    """How a transposition orders the axes; None where that is not written out, or turns on a
    number of axes that is not known."""
    if operation.name == "transpose":
        order = integers(operation.axes("axes"))
        if not order:
            return list(reversed(range(rank))) if order == [] and rank else None
        return [axis % len(order) for axis in order]
    if operation.name == "swapaxes":
        pair = (integer(operation.argument(1, "axis1")), integer(operation.argument(2, "axis2")))
    elif operation.name == "moveaxis":
        pair = (
            integer(operation.argument(1, "source")),
            integer(operation.argument(2, "destination")),
        )
    else:
        return None
    if pair[0] is None or pair[1] is None:
        return None
    if rank is None:
        # The last two axes are the last two, however many stand before them.
        if set(pair) == {-1, -2}:
            return [1, 0]
        return [0, 1, 3, 2] if set(pair) == {2, 3} else None
    one, other = pair[0] % rank, pair[1] % rank
    order = list(range(rank))
    if operation.name == "swapaxes":
        order[one], order[other] = order[other], order[one]
    else:
        order.insert(other, order.pop(one))
    return order


def swaps_last_two(order: list[int]) -> bool:
    """Whether a transposition exchanges the last two axes and nothing else."""
    rank = len(order)
    return order == [*range(rank - 2), rank - 1, rank - 2]
