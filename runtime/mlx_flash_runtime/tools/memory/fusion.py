"""What `mx.compile` makes of a graph: operations on each element by itself, one after the other,
become one, and what is between them is never in memory. As `compile_fuse` of MLX 0.32.4 does it
(`mlx/compile.cpp`)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from .graph import Graph, Operation
from .kinds import FUSABLE

_DEEPEST, _MOST_INPUTS = 11, 24
_BROADCAST = "Broadcast"


def fused(graph: Graph, *, shapeless: bool = False) -> Graph:
    """The graph with such operations in one; `shapeless` as `mx.compile` has it, which sees a
    broadcast before each input of an operation on several: fewer of them fit into one."""
    fusing = _Fusing(graph, shapeless)
    done: list[Operation] = []
    for operation in reversed(graph.operations):
        if operation.outputs[0] not in fusing.gone:
            done.append(fusing.from_last(operation))
    return replace(graph, operations=done[::-1])


class _Fusing:
    def __init__(self, graph: Graph, shapeless: bool) -> None:
        self.graph, self.shapeless = graph, shapeless
        self.outputs = set(graph.outputs)
        self.gone: set[str] = set()
        self.maker = {name: op for op in graph.operations for name in op.outputs}
        self.readers: dict[str, set[str]] = defaultdict(set)
        for operation in graph.operations:
            for name in operation.inputs:
                self.readers[name].add(operation.outputs[0])

    def from_last(self, last: Operation) -> Operation:
        """`last` with all that can be computed with it."""
        if last.name not in FUSABLE:
            return last
        inside: dict[str, Operation] = {}
        inputs: dict[str, None] = {}
        self._collect(last.outputs[0], 0, self.graph.shapes[last.outputs[0]], inside, inputs)
        if len(inside) <= 1:
            return last
        name = last.outputs[0]
        kept = [each for each in inside if each in self.outputs and each != name]
        self.gone.update(inside)
        for each in inputs.keys() - inside.keys():
            self.readers[each] = {name} | (self.readers[each] - inside.keys())
        read = [each for each in inputs if each not in inside]
        return Operation("Compiled", read, [name, *kept])

    def _collect(
        self,
        name: str,
        depth: int,
        shape: tuple[int, ...],
        inside: dict[str, Operation],
        inputs: dict[str, None],
    ) -> None:
        """Goes back from an array as far as its operations can be part of the same one."""
        if name in inside:
            return
        operation = self.maker.get(name)
        is_output = name in self.outputs
        misfit = is_output and self.graph.shapes[name] != shape
        fusable = operation is not None and operation.name in FUSABLE | {_BROADCAST}
        if operation is None or not fusable or depth >= _DEEPEST or misfit:
            inputs[name] = None
            return
        others = self.readers[name] - inside.keys()
        is_shared = depth > 0 and others
        if is_shared and operation.name == _BROADCAST:  # repeated for each that reads it
            self._collect(operation.inputs[0], depth + 1, shape, inside, inputs)
            return
        if is_shared or len(inputs) >= _MOST_INPUTS:
            inputs[name] = None
            return
        inputs.pop(name, None)
        if is_output:  # which counts among the arrays that fit into one
            inputs[name] = None
        inside[name] = operation
        with_broadcasts = self.shapeless and len(operation.inputs) > 1
        for each in operation.inputs:
            self._collect(each, depth + 1 + with_broadcasts, shape, inside, inputs)
