"""Functions that a model has had compiled, as `nn.silu` and mlx-lm's `swiglu`: where MLX runs them
they are one operation, where it traces a graph all that they are made of."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn
from mlx.utils import tree_map

from .fusion import fused
from .graph import Graph, Operation

nn: Any = mlx.nn  # whose stubs do not export all of it
_COMPILED = type(nn.silu)
# The number that marks where the first call begins, far from any that a model has; the next one
# marks where it ends.
_FIRST_MARK, _MOST_MARKS = 0x51AC_0000_0000, 2**32


class Pieces:
    """Calls of compiled functions, marked in a graph."""

    def __init__(self) -> None:
        self._marks = itertools.count(_FIRST_MARK, 2)
        self._is_inside = False

    def marked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with marks around what it computes; not inside of another one, which is
        compiled as a whole."""

        def run(*args: Any, **more: Any) -> Any:
            if self._is_inside:
                return function(*args, **more)
            mark = next(self._marks)
            self._is_inside = True
            try:
                args, more = _marked((args, more), mark)
                return _marked(function(*args, **more), mark + 1)
            finally:
                self._is_inside = False

        return run

    def put_into(self, graph: Graph) -> Graph:
        """The graph with each of these calls as MLX compiles it, without the marks."""
        unmarked = _Unmarked(graph)
        for operation in graph.operations:
            unmarked.add(operation)
        outputs = [unmarked.name_of(name) for name in graph.outputs]
        return replace(graph, operations=unmarked.operations, outputs=outputs)


class _Unmarked:
    """A graph's operations, as they are added: what is between marks fused, the marks left out."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.operations: list[Operation] = []
        self._calls: dict[str, list[Operation]] = {}  # by array, of the call that it is part of
        self._names: dict[str, str] = {}  # of marked arrays, of what they are without the mark

    def add(self, operation: Operation) -> None:
        """The next one."""
        mark = _mark_of(operation, self.graph)
        part_of = [self._calls[name] for name in operation.inputs if name in self._calls]
        call = part_of[0] if part_of else None
        if mark is not None and mark % 2 == 0:
            call = []
            self._calls.update((name, call) for name in operation.outputs)
            marked = zip(operation.outputs, operation.inputs, strict=False)
            self._names.update((name, self.name_of(of)) for name, of in marked)
        elif mark is not None:
            self._end(call or [], operation)
        elif call is not None:
            call.append(operation)
            self._calls.update((name, call) for name in operation.outputs)
        else:
            self._put(operation, {})

    def name_of(self, array: str) -> str:
        """The name of an array without a mark."""
        return self._names.get(array, array)

    def _end(self, call: list[Operation], end: Operation) -> None:
        """Puts a call in, with what it made by the names that others know it by."""
        made = {name for operation in call for name in operation.outputs}
        known_as: dict[str, str] = {}
        for name, outside in zip(end.inputs[:-1], end.outputs, strict=True):
            if name in made and name not in known_as:
                known_as[name] = outside
            else:
                self._names[outside] = known_as.get(name, self.name_of(name))
        piece = replace(self.graph, operations=call, outputs=end.inputs[:-1])
        for operation in fused(piece, shapeless=True).operations:
            self._put(operation, known_as)

    def _put(self, operation: Operation, known_as: dict[str, str]) -> None:
        inputs = [known_as.get(name, self.name_of(name)) for name in operation.inputs]
        outputs = [known_as.get(name, name) for name in operation.outputs]
        self.operations.append(replace(operation, inputs=inputs, outputs=outputs))


@contextmanager
def marking(pieces: Pieces) -> Iterator[None]:
    """Has the compiled functions that modules have mark their calls; what there was is put back."""
    found = list(_compiled_functions())
    try:
        for module, name, function in found:
            setattr(module, name, pieces.marked(function))
        yield
    finally:
        for module, name, function in found:
            setattr(module, name, function)


def _compiled_functions() -> Iterator[tuple[ModuleType, str, Callable[..., Any]]]:
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name, value in list(vars(module).items()):
                if type(value) is _COMPILED:
                    yield module, name, value


def _marked(tree: Any, mark: int) -> Any:
    """The tree with its arrays as outputs of one operation that reads the mark, too."""
    arrays: list[mx.array] = []
    tree_map(lambda leaf: arrays.append(leaf) if isinstance(leaf, mx.array) else None, tree)
    if not arrays:
        return tree
    marked = iter(mx.depends(arrays, [mx.array(mark, mx.uint64)]))
    return tree_map(lambda leaf: next(marked) if isinstance(leaf, mx.array) else leaf, tree)


def _mark_of(operation: Operation, graph: Graph) -> int | None:
    if operation.name != "Depends":
        return None
    mark = graph.constants.get(operation.inputs[-1])
    if mark is None or mark.dtype != mx.uint64:
        return None
    return int(mark) if 0 <= int(mark) - _FIRST_MARK < _MOST_MARKS else None
