"""How many axes an array has, by the operation that gives it."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.operations import Operation, integer, permutation, swaps_last_two
from flash_codemods.handwritten.values import Array, Items, Value

_SAME_AXES = {
    "astype", "abs", "clip", "contiguous", "cos", "exp", "maximum", "minimum", "multiply", "pad",
    "repeat", "rope", "sigmoid", "sin", "split", "sqrt", "stop_gradient", "tanh", "tile", "where",
    "concatenate", "array", "rms_norm", "layer_norm", "logical_not", "logical_and", "softmax",
    "zeros_like", "ones_like", "triu", "tril", "add", "subtract",
}  # fmt: skip


def shaped(operation: Operation, values: list[Value]) -> Value:
    """The axes of what an operation gives."""
    of = next((value for value in values if isinstance(value, Array)), Array())
    rank, name = of.rank, operation.name
    if name in ("reshape", "broadcast_to", "full", "zeros", "ones"):
        sizes = operation.axes("shape")
        if name in ("full", "zeros", "ones") and operation.arguments:
            first = operation.arguments[0]
            sizes = list(first.elts) if isinstance(first, ast.Tuple | ast.List) else [first]
        return _of_sizes(sizes)
    if name in ("transpose", "swapaxes", "moveaxis"):
        return _transposed(of, operation)
    if name == "expand_dims":
        axes = operation.argument(1, "axis")
        count = len(axes.elts) if isinstance(axes, ast.Tuple | ast.List) else 1
        single = integer(axes) == 0
        return Array(rank + count if rank is not None else None, single=single)
    if name == "concatenate" and values and isinstance(values[0], Items):
        return _joined(values[0])
    if name == "stack" and values and isinstance(values[0], Items):
        joined = _joined(values[0])
        return Array(joined.rank + 1 if joined.rank is not None else None)
    if name == "arange":
        return Array(1)
    if name in _SAME_AXES:
        known = [value.rank for value in values if isinstance(value, Array)]
        if name in ("where", "maximum", "minimum", "multiply", "add", "subtract"):
            ranks = [rank for rank in known if rank is not None]
            return Array(max(ranks, default=None))
        return of
    return Array()


def _of_sizes(sizes: list[ast.expr]) -> Array:
    count = 0
    for size in sizes:
        if not isinstance(size, ast.Starred):
            count += 1
        elif isinstance(size.value, ast.Subscript) and isinstance(size.value.slice, ast.Slice):
            part = size.value.slice
            stop = integer(part.upper)
            if part.lower is not None or part.step is not None or stop is None or stop < 0:
                return Array()
            count += stop
        else:
            return Array()
    # One that is not written out may be a tuple: `reshape(shape)`.
    plain = len(sizes) > 1 or (len(sizes) == 1 and integer(sizes[0]) is not None)
    single = bool(sizes) and integer(sizes[0]) == 1
    return Array(count if plain else None, single=single)


def _transposed(of: Array, operation: Operation) -> Array:
    order = permutation(operation, of.rank)
    if order is None:
        return Array(of.rank)
    rank = of.rank
    if operation.name == "transpose":
        rank = len(order)
    features_first = len(order) > 1 and order[-2] == len(order) - 1
    single = of.single and order[0] == 0
    if of.transposed and swaps_last_two(order):
        features_first = False
    return Array(rank, features_first, single)


def _joined(items: Items) -> Array:
    """Arrays that are concatenated: what is known of one of them holds of all."""
    arrays = [item for item in items.values if isinstance(item, Array)]
    ranks = {item.rank for item in arrays if item.rank is not None}
    transposed = any(item.transposed for item in arrays)
    return Array(ranks.pop() if len(ranks) == 1 else None, transposed)


def indexed(of: Array, index: ast.expr) -> Array:
    parts = list(index.elts) if isinstance(index, ast.Tuple) else [index]
    if of.rank is None:
        return Array()
    rank = of.rank
    for part in parts:
        if isinstance(part, ast.Constant) and part.value is None:
            rank += 1
        elif integer(part) is not None:
            rank -= 1
        elif not isinstance(part, ast.Slice) and not (
            isinstance(part, ast.Constant) and part.value is Ellipsis
        ):
            return Array()
    single = isinstance(parts[0], ast.Constant) and parts[0].value is None
    whole = all(isinstance(part, ast.Slice) for part in parts)
    return Array(rank, of.transposed and whole, single or (of.single and whole))
