"""The most memory that a graph needs while MLX evaluates it.

Followed as MLX 0.32.4 does it (`eval_impl` in `mlx/transforms.cpp`): the order of the operations,
which of them give a view of their input, which write over an input that nobody needs any more, and
how far the thread that hands out memory runs ahead of the one that computes. What an operation
reads is held until it has run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .graph import Graph, Operation
from .kinds import ELEMENTWISE, GAPS, RESHAPES, VIEWS, WRITE_OVER

# MLX's BFS_MAX_WIDTH: how wide it goes before it goes deep.
_WIDTH = 20
# An array may be written over by one that is so many bytes smaller (`donation_extra` of MLX).
_SPARE = 16384
# MLX waits once more tasks than these are on their way (`MAX_ACTIVE_TASKS`).
_TASKS = 10


@dataclass(frozen=True)
class Pace:
    """How many dispatches an operation is, and a view, and when a backend closes a task: after so
    many dispatches, or elements read, if given."""

    operation: int
    view: int
    dispatches: int
    elements: int | None = None


# On the CPU an operation is what computes it and what lets go of its inputs, DISPATCHES_PER_TASK
# 10. On Metal the limits of a command buffer on base and Pro chips, on CUDA those of a graph on an
# H100.
PACES = {
    "cpu": Pace(2, 1, 10),
    "metal": Pace(1, 0, 40, 40 << 20),
    "cuda": Pace(1, 0, 100, 1000 << 20),
}


def peak(graph: Graph, released: Sequence[str], backend: str) -> int:
    """Bytes at the peak beyond the inputs that stay in memory; those that are `released`, which the
    program lets go of when it asks for the outputs, count as long as they are needed."""
    memory = _Memory(graph, set(released), PACES[backend])
    for operation in in_order(graph):
        memory.evaluate(operation)
    return memory.most


def in_order(graph: Graph) -> list[Operation]:
    """The operations that the outputs need, as MLX orders them: from the outputs back, in width as
    far as `_WIDTH` goes, then in depth."""
    maker = {name: operation for operation in graph.operations for name in operation.outputs}
    last = Operation("Synchronize", list(graph.outputs), [])
    readers: Counter[int] = Counter()
    waiting = [last]
    while waiting:
        for name in waiting.pop().inputs:
            made_by = maker.get(name)
            if made_by is None:
                continue
            if id(made_by) not in readers:
                waiting.append(made_by)
            readers[id(made_by)] += 1

    tape, at = [last], 0
    deeper: list[tuple[Operation, int]] = []
    while at < len(tape) or deeper:
        if at < len(tape):
            operation, first = tape[at], 0
            at += 1
        else:
            operation, first = deeper.pop()
        for number in range(first, len(operation.inputs)):
            made_by = maker.get(operation.inputs[number])
            if made_by is None:
                continue
            if len(tape) - at >= _WIDTH:
                deeper.append((operation, number))
                break
            readers[id(made_by)] -= 1
            if readers[id(made_by)] == 0:
                tape.append(made_by)
    return tape[:0:-1]


@dataclass(eq=False)
class _Buffer:
    """Memory that arrays share, and how many of them and of the operations on their way hold it."""

    size: int
    holders: int = 1


@dataclass
class _Task:
    """Operations that run together, and what they hold until then."""

    dispatches: int = 0
    elements: int = 0
    held: list[_Buffer] = field(default_factory=list)


class _Memory:
    """What is in memory after each operation."""

    def __init__(self, graph: Graph, released: set[str], pace: Pace) -> None:
        self.graph, self.pace = graph, pace
        self.now = self.most = 0
        self.buffers: dict[str, _Buffer] = {}
        self.rows: dict[str, bool] = {}  # whether its elements lie in the order of its rows
        self.stays = set(graph.outputs) | set(graph.inputs) | set(graph.constants)
        self.stays -= released - set(graph.outputs)
        self.readers = Counter(name for each in graph.operations for name in set(each.inputs))
        self.tasks = deque([_Task()])
        for name in (*graph.inputs, *graph.constants):
            self._allocate(name, graph.bytes_of(name) if name in released else 0)
        self.most = self.now

    def evaluate(self, operation: Operation) -> None:
        """One operation: its outputs, then what nobody needs any more."""
        inputs = list(dict.fromkeys(operation.inputs))
        is_view = self._is_view(operation)
        for output in operation.outputs:
            if is_view:
                self._share(output, self.buffers[inputs[0]])
            else:
                donor = self._written_over(operation, inputs, output)
                if donor is None:
                    self._allocate(output, self.graph.bytes_of(output))
                else:
                    self._share(output, self.buffers[donor])
            self.rows[output] = self._lies_in_rows(operation, inputs, output)
        held = {self.buffers[name] for name in (*inputs, *operation.outputs[1:])}
        held.discard(self.buffers[operation.outputs[0]])
        for buffer in held:
            buffer.holders += 1
        if operation.extra:
            held.add(_Buffer(operation.extra))
            self.now += operation.extra
        self.most = max(self.most, self.now)
        for name in inputs:
            self.readers[name] -= 1
        for name in (*inputs, *operation.outputs):
            if self.readers[name] == 0 and name not in self.stays:
                self._let_go(self.buffers[name])
        self._hand_out(self.pace.view if is_view else self.pace.operation, inputs, held)

    def _is_view(self, operation: Operation) -> bool:
        if operation.name in RESHAPES:
            return self.rows[operation.inputs[0]]
        return operation.name in VIEWS

    def _written_over(self, operation: Operation, inputs: list[str], output: str) -> str | None:
        """The input in whose memory the output may be written."""
        if operation.name not in WRITE_OVER or output != operation.outputs[0]:
            return None
        item = self.graph.dtypes[output].size
        most = self.graph.bytes_of(output) + _SPARE
        for name in inputs if operation.name in ELEMENTWISE else inputs[:1]:
            buffer = self.buffers[name]
            is_last = self.readers[name] == 1 and name not in self.stays and buffer.holders == 1
            fits = self.graph.dtypes[name].size == item and 0 < buffer.size <= most
            if is_last and fits:
                return name
        return None

    def _lies_in_rows(self, operation: Operation, inputs: list[str], output: str) -> bool:
        graph = self.graph
        if operation.name in ELEMENTWISE:
            size = graph.size(output)
            return all(self.rows[name] for name in inputs if graph.size(name) == size)
        if operation.name not in VIEWS:
            return True
        lies = self.rows[inputs[0]]
        if operation.name == "Transpose":
            shape = graph.shapes[inputs[0]]
            moved = [axis for axis in operation.arguments[0] if shape[axis] != 1]
            return lies and moved == sorted(moved)
        if operation.name in GAPS:
            return lies and graph.size(inputs[0]) == graph.size(output)
        return lies

    def _allocate(self, name: str, size: int) -> None:
        self.buffers[name] = _Buffer(size)
        self.rows[name] = True
        self.now += size

    def _share(self, name: str, buffer: _Buffer) -> None:
        buffer.holders += 1
        self.buffers[name] = buffer

    def _let_go(self, buffer: _Buffer) -> None:
        buffer.holders -= 1
        if buffer.holders == 0:
            self.now -= buffer.size

    def _hand_out(self, dispatches: int, inputs: Sequence[str], held: set[_Buffer]) -> None:
        """The operation goes to the thread that computes; if too many tasks are on their way, the
        first of them is waited for."""
        task = self.tasks[-1]
        task.held.extend(held)
        task.dispatches += dispatches
        task.elements += sum(self.graph.size(name) for name in inputs)
        pace = self.pace
        full = pace.elements is not None and task.elements > pace.elements
        if task.dispatches >= pace.dispatches or full:
            self.tasks.append(_Task())
        if len(self.tasks) > _TASKS + 1:
            for buffer in self.tasks.popleft().held:
                self._let_go(buffer)
