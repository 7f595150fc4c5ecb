"""Heads of keys and values that are copied, each followed by its copies, and those of queries that
are split into groups for them: a fused call does both itself. In another order, or by other
operations, they are arrays like any other."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from enum import Enum

from flash_codemods.handwritten.operations import Operation, integer, integers, statements_of
from flash_codemods.handwritten.reading.reader import Reader
from flash_codemods.handwritten.values import Binding


class Heads(Enum):
    """What was done to the heads of an array."""

    AS_MADE = "[B, H, L, D]"
    APART = "[B, H, 1, L, D]"
    COPIED = "[B, H, n, L, D]"
    JOINED = "[B, H * n, L, D]"
    SPLIT = "[B, H / n, n, L, D]"


@dataclass(frozen=True)
class Copies:
    """What was done to the heads of `of`; `made` are the bindings by which it was done."""

    of: Binding
    heads: Heads
    made: tuple[Binding, ...] = ()


def copies_of(binding: Binding, reader: Reader) -> Copies:
    """How a name's array comes from another one by nothing but copying of its heads; from itself
    where it does not."""
    itself = Copies(binding, Heads.AS_MADE)
    if len(binding.parents) == 2:
        one, other = (copies_of(parent, reader) for parent in binding.parents)
        met = _met([one, other])
        return itself if met is None else Copies(met.of, met.heads, (*met.made, binding))
    made = _made(binding)
    found = copies_in(made, binding.seen, reader) if made is not None else None
    if found is None or found.heads is Heads.AS_MADE:
        return itself
    return replace(found, made=(*found.made, binding))


def _met(ways: list[Copies]) -> Copies | None:
    """What comes of several ways: copies of one array, or in some of them that array itself."""
    done = {way.heads for way in ways} - {Heads.AS_MADE}
    if len({way.of for way in ways}) != 1 or len(done) != 1:
        return None
    return Copies(ways[0].of, done.pop(), tuple(item for way in ways for item in way.made))


def _made(binding: Binding) -> ast.expr | None:
    """What an assignment binds a name to, also in `k, v = map(repeat, (k, v))`."""
    statement = binding.statement
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Name):
        return value
    if not isinstance(target, ast.Tuple):
        return None
    index = [getattr(item, "id", "") for item in target.elts].index(binding.name)
    called = None
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "map":
        called, value = value.args[0], value.args[-1]
    if not isinstance(value, ast.Tuple | ast.List) or len(value.elts) != len(target.elts):
        return None
    return value.elts[index] if called is None else ast.Call(called, [value.elts[index]], [])


def copies_in(node: ast.expr, names: dict[str, Binding], reader: Reader) -> Copies | None:
    """How an expression comes from a name's array by nothing but copying or splitting its heads;
    None where it does not."""
    if isinstance(node, ast.Name):
        return copies_of(names[node.id], reader) if node.id in names else None
    operation = reader.names.operation(node)
    if isinstance(node, ast.Subscript):
        inner, done = node.value, _after_index(node.slice)
    elif operation is not None and operation.arguments:
        inner, done = operation.arguments[0], _after(operation)
        if operation.name == "concatenate":
            inner = _item(inner)
    elif isinstance(node, ast.Call):
        return _returned(node, names, reader)
    else:
        return None
    before = copies_in(inner, names, reader) if done else None
    if before is None or before.heads not in done:
        return None
    return replace(before, heads=done[before.heads])


_Done = dict[Heads, Heads]
"""What becomes of heads, by what was done to them before."""
_TO_COPIES = {Heads.APART: Heads.COPIED}


def _after_index(index: ast.expr) -> _Done:
    """`k[:, :, None]`, with or without what follows."""
    parts = list(index.elts) if isinstance(index, ast.Tuple) else []
    whole = [isinstance(part, ast.Slice) and ast.unparse(part) == ":" for part in parts]
    new = len(parts) > 2 and getattr(parts[2], "value", ...) is None
    rest = whole[3:] in ([], [True, True]) or ast.unparse(index).endswith("None, ...)")
    return {Heads.AS_MADE: Heads.APART} if new and all(whole[:2]) and rest else {}


def _after(operation: Operation) -> _Done:
    axis = integer(operation.argument(2 if operation.name == "repeat" else 1, "axis"))
    if operation.name == "repeat":
        joined = {Heads.AS_MADE: Heads.JOINED} if axis in (1, -3) else {}
        return joined | (_TO_COPIES if axis in (2, -3) else {})
    if operation.name == "expand_dims" and axis in (2, -3):
        return {Heads.AS_MADE: Heads.APART}
    if operation.name == "concatenate" and axis in (2, -3):
        return _TO_COPIES
    if operation.name == "tile":
        times = operation.axes("reps")
        others = integers([*times[:2], *times[3:]])
        return _TO_COPIES if len(times) == 5 and others == [1, 1, 1, 1] else {}
    if operation.name == "broadcast_to":
        return _TO_COPIES if len(operation.axes("shape")) == 5 else {}
    if operation.name == "reshape":
        split = {Heads.AS_MADE: Heads.SPLIT} if _are_sizes(operation, 5) else {}
        return {Heads.COPIED: Heads.JOINED} if joins_heads(operation) else split
    return {Heads.COPIED: Heads.JOINED} if joins_heads(operation) else {}


def joins_heads(operation: Operation) -> bool:
    """Whether an operation joins the second and third of five axes, and no others."""
    if operation.name == "reshape":
        return _are_sizes(operation, 4)
    ends = integers([*operation.arguments[1:], *operation.keywords.values()])
    return operation.name == "flatten" and ends == [1, 2]


def _are_sizes(operation: Operation, rank: int) -> bool:
    """Whether so many sizes leave all axes but those of heads as they were: none of them is one of
    several axes together."""
    sizes = operation.axes("shape")
    others = [sizes[index] for index in (0, -2, -1)] if len(sizes) == rank else []
    return bool(others) and not any(isinstance(size, ast.BinOp | ast.Starred) for size in others)


def _item(node: ast.expr) -> ast.expr:
    """`k` of `[k] * n`."""
    times = node.left if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else None
    return times.elts[0] if isinstance(times, ast.List) and len(times.elts) == 1 else node


def _returned(node: ast.Call, names: dict[str, Binding], reader: Reader) -> Copies | None:
    """What a function of the file gives that does nothing but copy heads."""
    name = node.func.id if isinstance(node.func, ast.Name) and node.func.id not in names else ""
    function = reader.functions.get(name)
    if function is None or reader.depth > 1 or not _only_computes(function, reader):
        return None
    inner = reader.of_function(function)
    ways = [copies_in(value, seen, inner) for value, seen in inner.returned_nodes]
    met = _met([way for way in ways if way is not None]) if ways else None
    positional = [item.arg for item in [*function.args.posonlyargs, *function.args.args]]
    parameters = [*positional, *(item.arg for item in function.args.kwonlyargs)]
    if met is None or None in ways or met.of not in inner.bound[: len(parameters)]:
        return None
    given = dict(zip(positional, node.args, strict=False))
    given |= {item.arg: item.value for item in node.keywords if item.arg}
    argument = None if _is_starred(node) else given.get(met.of.name)
    found = copies_in(argument, names, reader) if argument is not None else None
    return replace(found, heads=met.heads) if found and found.heads is Heads.AS_MADE else None


def _is_starred(node: ast.Call) -> bool:
    """Whether it is not known which parameter an argument is for."""
    return any(isinstance(item, ast.Starred) for item in node.args)


def _only_computes(function: ast.FunctionDef, reader: Reader) -> bool:
    """Whether nothing but its result comes of a function."""
    statements = statements_of(function)[1:]
    plain = all(
        isinstance(item, ast.If | ast.Return)
        or (isinstance(item, ast.Assign) and all(_is_of_names(part) for part in item.targets))
        or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
        for item in statements
    )
    parts = [part for item in function.body for part in ast.walk(item)]
    calls = [part for part in parts if isinstance(part, ast.Call)]
    return plain and all(reader.names.operation(call) is not None for call in calls)


def _is_of_names(target: ast.expr) -> bool:
    """Whether an assignment binds names, and changes nothing that they stand for."""
    parts = target.elts if isinstance(target, ast.Tuple) else [target]
    return all(isinstance(part, ast.Name) for part in parts)
