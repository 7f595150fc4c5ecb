"""The most memory that a graph needs while MLX evaluates it.

Followed as MLX 0.32.4 does it (`eval_impl` in `mlx/transforms.cpp`): the order of the operations,
which of them give a view of their input, which write over an input that nobody needs any more, and
how far the thread that hands out memory may run ahead of what computes. What an operation reads is
held until the task that it is part of has run. When that is depends on which of the two is the
faster one, and so does the peak: it is highest where no task is through before MLX waits for it, as
with a large model or a long prompt on a GPU, and lowest where each is through at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .graph import Graph, Operation
from .kinds import CONCATENATE, NORM_GRADIENTS, OF_ANY_SIZE, RESHAPES, VIEWS
from .layouts import Layout, reshaped, rows, viewed
from .placing import copied_first, is_written_over, laid_out, summed_apart

# MLX's BFS_MAX_WIDTH: how wide it goes before it goes deep.
_WIDTH = 20
# An array may be written over by one that is so many bytes smaller (`donation_extra` of MLX).
_SPARE = 16384
# MLX waits once more tasks than these are on their way (`MAX_ACTIVE_TASKS`).
_TASKS = 10


@dataclass(frozen=True)
class Pace:
    """How many dispatches let go of what an operation has read, beside those that compute it, and
    with how many dispatches, or elements read, if given, a backend closes a task."""

    letting_go: int
    dispatches: int
    elements: int | None = None


# On the CPU letting go is a dispatch of its own, and DISPATCHES_PER_TASK is 10. On Metal more than
# a command buffer has on base and Pro chips, on CUDA than a graph on an H100 (`needs_commit`).
PACES = {
    "cpu": Pace(1, 10),
    "metal": Pace(0, 41, 41 << 20),
    "cuda": Pace(0, 101, 1001 << 20),
}


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak: where each task is through as soon as it is described, and where none is
    before MLX waits for it."""

    least: int
    most: int


def peak(graph: Graph, released: Sequence[str], backend: str) -> Peak:
    """The peak beyond the inputs that stay in memory; those that are `released`, which the program
    lets go of when it asks for the outputs, count as long as they are needed."""
    order = in_order(graph)
    found = []
    for tasks in (0, _TASKS):
        memory = _Memory(graph, set(released), backend, tasks)
        for operation in order:
            memory.evaluate(operation)
        found.append(memory.most)
    return Peak(*found)


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


def _kernels_of(operation: Operation, backend: str) -> int:
    """How many dispatches compute it: a concatenation copies its inputs one by one; on CUDA they
    then meet in a node of their own (`concatenate_gpu`), and the gradient of a norm's weight is
    summed, and written in its own type, by two more (`RMSNormVJP::eval_gpu`)."""
    on_cuda = backend == "cuda"
    if operation.name == CONCATENATE:
        return len(operation.inputs) + on_cuda
    return 3 if on_cuda and operation.name in NORM_GRADIENTS else 1


class _Memory:
    """What is in memory after each operation, with no more than so many tasks on their way."""

    def __init__(self, graph: Graph, released: set[str], backend: str, most_tasks: int) -> None:
        self.graph, self.backend, self.pace = graph, backend, PACES[backend]
        self.most_tasks = most_tasks
        self.now = self.most = 0
        self.buffers: dict[str, _Buffer] = {}
        self.layouts: dict[str, Layout] = {}
        self.stays = set(graph.outputs) | set(graph.inputs) | set(graph.constants)
        self.stays -= released - set(graph.outputs)
        self.readers = Counter(name for each in graph.operations for name in set(each.inputs))
        self.tasks = deque([_Task()])
        for name in (*graph.inputs, *graph.constants):
            self.layouts[name] = rows(graph.shapes[name])
            self._allocate(name, graph.bytes_of(name) if name in released else 0)
        self.most = self.now

    def evaluate(self, operation: Operation) -> None:
        """One operation: its outputs, then what nobody needs any more."""
        inputs = list(dict.fromkeys(operation.inputs))
        seen = [self.layouts[name] for name in operation.inputs]
        copies = [operation.inputs[at] for at in copied_first(operation.name, seen, self.backend)]
        extra = operation.extra + sum(self.graph.bytes_of(name) for name in copies)
        if inputs:
            item_bytes = self.graph.dtypes[inputs[0]].size
            extra += summed_apart(operation.name, seen[0], item_bytes, self.backend)
        is_view = self._view(operation)
        if not is_view:
            for output in operation.outputs:
                self._make(operation, seen, output)
        held = {self.buffers[name] for name in (*inputs, *operation.outputs[1:])}
        held.discard(self.buffers[operation.outputs[0]])
        for buffer in held:
            buffer.holders += 1
        if extra:
            held.add(_Buffer(extra))
            self.now += extra
        self.most = max(self.most, self.now)
        for name in inputs:
            self.readers[name] -= 1
        for name in (*inputs, *operation.outputs):
            if self.readers[name] == 0 and name not in self.stays:
                self._let_go(self.buffers[name])
        kernels = elements = 0
        if not is_view:
            kernels = len(copies) + _kernels_of(operation, self.backend)
            elements = sum(self.layouts[name].span for name in inputs)
        self._hand_out(kernels + self.pace.letting_go, elements, held)

    def _view(self, operation: Operation) -> bool:
        """Whether the operation's outputs are views of its first input; then they are seen."""
        if operation.name not in RESHAPES | VIEWS:
            return False
        name, seen = operation.inputs[0], self.layouts[operation.inputs[0]]
        for output in operation.outputs:
            shape = self.graph.shapes[output]
            if operation.name in RESHAPES:
                found = reshaped(seen, shape)
                if found is None:
                    return False
            else:
                found = viewed(operation.name, operation.arguments, seen, shape)
            self._share(output, self.buffers[name])
            self.layouts[output] = found
        return True

    def _make(self, operation: Operation, seen: list[Layout], output: str) -> None:
        """An output that is no view, in new memory or over an input."""
        shape, at = self.graph.shapes[output], operation.outputs.index(output)
        layout = laid_out(operation.name, at, seen, shape, self.backend)
        donor = None
        # Of several outputs each keeps the inputs: to MLX there is always somebody who needs them.
        if len(operation.outputs) == 1:
            donor = self._written_over(operation, seen, output)
        if donor is None:
            self._allocate(output, layout.span * self.graph.dtypes[output].size)
        else:
            self._share(output, self.buffers[donor])
        self.layouts[output] = layout

    def _written_over(self, operation: Operation, seen: list[Layout], output: str) -> str | None:
        """The input in whose memory the output may be written."""
        graph, shape = self.graph, self.graph.shapes[output]
        most = graph.bytes_of(output) + _SPARE
        for at, name in enumerate(operation.inputs):
            buffer = self.buffers[name]
            is_last = self.readers[name] == 1 and name not in self.stays and buffer.holders == 1
            is_once = operation.inputs.count(name) == 1
            fits = operation.name in OF_ANY_SIZE or buffer.size <= most
            is_like = graph.dtypes[name].size == graph.dtypes[output].size and buffer.size > 0
            may = is_last and is_once and fits and is_like
            if may and is_written_over(operation.name, at, seen, shape, self.backend):
                return name
        return None

    def _allocate(self, name: str, size: int) -> None:
        self.buffers[name] = _Buffer(size)
        self.now += size

    def _share(self, name: str, buffer: _Buffer) -> None:
        buffer.holders += 1
        self.buffers[name] = buffer

    def _let_go(self, buffer: _Buffer) -> None:
        buffer.holders -= 1
        if buffer.holders == 0:
            self.now -= buffer.size

    def _hand_out(self, dispatches: int, elements: int, held: set[_Buffer]) -> None:
        """The operation goes to the thread that computes; if too many tasks are on their way, the
        first of them is waited for."""
        task = self.tasks[-1]
        task.held.extend(held)
        task.dispatches += dispatches
        task.elements += elements
        pace = self.pace
        full = pace.elements is not None and task.elements >= pace.elements
        if task.dispatches >= pace.dispatches or full:
            self.tasks.append(_Task())
        if len(self.tasks) > self.most_tasks + 1:
            for buffer in self.tasks.popleft().held:
                self._let_go(buffer)
