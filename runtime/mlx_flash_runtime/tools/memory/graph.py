"""What a function of arrays would compute, as MLX traces it: operations with their inputs and
outputs, by shape. Nothing is computed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx

from .kinds import FILL


@dataclass(eq=False)
class Operation:
    """An operation by MLX's name for it, and its arrays by theirs. `extra` are bytes that it needs
    while it runs, beyond its inputs and outputs."""

    name: str
    inputs: list[str]
    outputs: list[str]
    arguments: list[Any] = field(default_factory=list)
    extra: int = 0


@dataclass
class Graph:
    """Operations, the arrays that go in and come out, and of every array its shape and type."""

    operations: list[Operation]
    inputs: list[str]
    outputs: list[str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, mx.Dtype]
    constants: dict[str, mx.array]

    def size(self, array: str) -> int:
        """Elements of an array."""
        return math.prod(self.shapes[array])

    def bytes_of(self, array: str) -> int:
        """Bytes of an array that lies in memory of its own."""
        return self.size(array) * self.dtypes[array].size


def trace(function: Callable[..., Sequence[mx.array]], inputs: Sequence[mx.array]) -> Graph:
    """The graph of `function(*inputs)`, whose inputs are not read. Raises what the function raises,
    and ValueError with MLX's "[eval]" for one that computes numbers while it describes itself."""
    graph = Graph([], [], [], {}, {}, {})

    def add(arrays: Sequence[tuple[str, tuple[int, ...], mx.Dtype]]) -> list[str]:
        for name, shape, dtype in arrays:
            graph.shapes[name], graph.dtypes[name] = tuple(shape), dtype
        return [name for name, _, _ in arrays]

    def read(entry: dict[str, Any]) -> None:
        match entry["type"]:
            case "inputs":
                graph.inputs = add(entry["inputs"])
            case "outputs":
                graph.outputs = add(entry["outputs"])
            case "constants":
                for name, array in entry["constants"]:
                    add([(name, array.shape, array.dtype)])
                    graph.constants[name] = array
            case "primitive":
                made = add(entry["outputs"])
                read_ones = add(entry["inputs"])
                operation = Operation(entry["name"], read_ones, made, entry["arguments"])
                graph.operations.append(operation)

    # MLX's own: the patch has functions exported with MLX's attention.
    inspect.unwrap(mx.export_function)(read, function, *inputs)
    return graph


def filled_apart(graph: Graph) -> Graph:
    """The graph as an eager program has it: arrays filled with a number, as caches start with, are
    each one of its own, where MLX's trace has one for all that are equal."""
    shapes, dtypes = dict(graph.shapes), dict(graph.dtypes)
    filled: dict[str, Operation] = {}
    operations: list[Operation] = []
    for operation in graph.operations:
        inputs = list(operation.inputs)
        for at, name in enumerate(inputs):
            if name not in filled:
                continue
            inputs[at] = apart = f"{name} for {operation.outputs[0]}"
            shapes[apart], dtypes[apart] = shapes[name], dtypes[name]
            operations.append(replace(filled[name], outputs=[apart]))
        if operation.name == FILL:
            filled[operation.outputs[0]] = operation
        operations.append(replace(operation, inputs=inputs))
    apart_graph = replace(graph, operations=operations, shapes=shapes, dtypes=dtypes)
    return needed(apart_graph)


def needed(graph: Graph) -> Graph:
    """The graph without what leads to none of its outputs."""
    reached = set(graph.outputs)
    operations = []
    for operation in reversed(graph.operations):
        if not reached.isdisjoint(operation.outputs):
            reached.update(operation.inputs)
            operations.append(operation)
    return replace(graph, operations=operations[::-1])
