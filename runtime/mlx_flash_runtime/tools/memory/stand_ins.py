"""In the place of attention, and of the functions of MLX that a GPU has kernels for: one operation
with the inputs, the output and the memory that it is planned to need."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx

from ... import stock
from ...patching import patch
from ...planning import layers
from ...planning.plan import Plan
from ...planning.planner import Key, Planner
from ...problem import Device, Problem
from ...routes import native, unfused
from ...settings import Settings
from ...stock.fused import error_of, is_fused
from .graph import Graph, Operation, needed
from .kinds import OPAQUE

# A number that marks an operation, far from any that a model has.
_FIRST_MARK = 0x51AD_0000_0000
# Functions of MLX with a kernel of their own on GPUs, and what comes after an array of theirs.
_WITH_KERNELS = ("rms_norm", "layer_norm", "rope")


class MlxRaises(Exception):
    """MLX's own attention has an error for a call of the model; the message is that error."""


@dataclass(frozen=True)
class _Call:
    """The marks of a call's inputs and output, and bytes that it needs while it runs."""

    inputs: tuple[int, ...]
    output: int
    extra: int


class StandIns:
    """Calls that are to be one operation each in a graph, and one in that of their gradients.

    MLX exports no operation with a gradient of another's making. So what goes into a call, and what
    comes out, is multiplied by a number that is marked: its gradient is multiplied by the same one,
    and both are found in the graph. What is between them there only connects them.
    """

    def __init__(self, training: bool) -> None:
        self.training = training
        self.calls: list[_Call] = []
        self._marks = itertools.count(_FIRST_MARK)

    def attention(self, extra: int) -> Callable[..., mx.array]:
        """A call of attention that needs so many bytes, and its gradient as many."""

        def run(
            q: mx.array,
            k: mx.array,
            v: mx.array,
            *,
            scale: Any,
            mask: Any = None,
            sinks: Any = None,
        ) -> mx.array:
            arrays = [x for x in (q, k, v, mask, sinks) if isinstance(x, mx.array)]
            return self.made((*q.shape[:3], v.shape[3]), q.dtype, arrays, extra)

        return run

    def made(
        self, shape: tuple[int, ...], dtype: mx.Dtype, inputs: Sequence[mx.array], extra: int = 0
    ) -> mx.array:
        """An array of a shape and type, from `inputs`."""
        marks = tuple(next(self._marks) for _ in inputs)
        marked = [_marked(x, mark) for x, mark in zip(inputs, marks, strict=True)]
        connected = sum((mx.sum(x).astype(dtype) for x in marked), mx.array(0, dtype))
        out = next(self._marks)
        self.calls.append(_Call(marks, out, extra))
        return _marked(mx.broadcast_to(connected, shape), out)

    def put_into(self, graph: Graph) -> Graph:
        """The graph with one operation for each call, and one for each gradient."""
        marked = _Marked(graph)
        put: dict[str, Operation] = {}
        gone: set[str] = set()
        for call in self.calls:
            sites = [marked.sites.get(mark, []) for mark in (*call.inputs, call.output)]
            if not sites[-1]:
                continue  # nobody needs it
            (*inputs, output) = (site[0] for site in sites if site)
            read = [site.of for site in inputs]
            put[output.array] = Operation(OPAQUE, read, [output.array], extra=call.extra)
            if len(sites[-1]) > 1:
                towards = sites[-1][1]
                gradients = [site[1].array for site in sites[:-1] if len(site) > 1]
                read = [*read, output.array, towards.of]
                put[towards.array] = Operation(OPAQUE, read, gradients, extra=call.extra)
                gone.update(gradients)
        operations = [
            put.get(each.outputs[0], each)
            for each in graph.operations
            if each.outputs[0] not in gone
        ]
        return needed(replace(graph, operations=operations))


class _Site(NamedTuple):
    """A product with a marked number: the array that it is, and that which is multiplied."""

    array: str
    of: str


class _Marked:
    """The products with marked numbers in a graph, by mark: of the call, then of its gradient."""

    def __init__(self, graph: Graph) -> None:
        self.sites: dict[int, list[_Site]] = {}
        marks: dict[str, int] = {}
        for operation in graph.operations:
            inputs, (output, *_) = operation.inputs, operation.outputs
            if operation.name == "Depends":
                mark = graph.constants.get(inputs[-1])
                if mark is not None and mark.dtype == mx.uint64:
                    marks[output] = int(mark)
            elif operation.name in ("Broadcast", "Reshape") and inputs[0] in marks:
                marks[output] = marks[inputs[0]]
            elif operation.name == "Multiply":
                for number, other in (inputs, inputs[::-1]):
                    if number in marks:
                        self.sites.setdefault(marks[number], []).append(_Site(output, other))


def _marked(x: mx.array, mark: int) -> mx.array:
    number = mx.depends([mx.array(1, x.dtype)], [mx.array(mark, mx.uint64)])[0]
    product: mx.array = x * number
    return product


class _WithRuntime(Planner):
    """Has each call be an operation that needs what its route is predicted to need; where that is
    MLX's unfused attention, be that."""

    def __init__(self, device: Device, settings: Settings, stand_ins: StandIns) -> None:
        super().__init__(settings, device, stand_ins.training)
        self.stand_ins = stand_ins

    def _planned(self, key: Key, problem: Problem, mask: Any) -> Plan:
        found = super()._planned(key, problem, mask)
        assert found.choice is not None
        choice = found.choice
        run: Any = _unfused
        if choice.route is not unfused:
            run = self.stand_ins.attention(choice.extra_memory)
        return Plan(found.kind, run, choice, to_learn=0)


def _without_runtime(device: Device, stand_ins: StandIns) -> Callable[..., mx.array]:
    """MLX's own function as it would be on the device."""

    def attention(
        q: mx.array, k: mx.array, v: mx.array, *, scale: Any, mask: Any = None, sinks: Any = None
    ) -> mx.array:
        problem = Problem.of(q, k, v, mask, sinks, training=stand_ins.training)
        if problem is None or not is_fused(problem, device)[0]:
            error = None if problem is None else error_of(problem, device)
            if error is not None:
                raise MlxRaises(error)
            return _unfused(q, k, v, scale=scale, mask=mask, sinks=sinks)
        run = stand_ins.attention(native.extra_memory(problem, device, None))
        return run(q, k, v, scale=scale, mask=mask, sinks=sinks)

    return attention


def _unfused(
    q: mx.array, k: mx.array, v: mx.array, *, scale: Any, mask: Any, sinks: Any
) -> mx.array:
    """The graph that MLX computes where it has no fused kernel, as on the CPU."""
    return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks, stream=mx.cpu)


@contextmanager
def in_place(device: Device, settings: Settings | None, training: bool) -> Iterator[StandIns]:
    """Has attention be what it would be on the device, with the runtime under these settings, or
    without it for None; what there was is put back."""
    stand_ins = StandIns(training)
    before = patch.active()
    patch.uninstall()
    mlx_own = {name: getattr(mx.fast, name) for name in (*_WITH_KERNELS, _ATTENTION)}
    default = mx.default_device()
    try:
        if device.backend == "cpu":
            mx.set_default_device(mx.Device(mx.cpu))
        elif default.type == mx.DeviceType.cpu:
            for name in _WITH_KERNELS:
                setattr(mx.fast, name, _kernel(stand_ins))
        if settings is None:
            setattr(mx.fast, _ATTENTION, _without_runtime(device, stand_ins))
        else:
            patch.install(_WithRuntime(device, settings, stand_ins))
        yield stand_ins
    finally:
        patch.uninstall()
        for name, function in mlx_own.items():
            setattr(mx.fast, name, function)
        mx.set_default_device(default)
        if before is not None:
            patch.install(before)
        layers.forget()


def _kernel(stand_ins: StandIns) -> Callable[..., mx.array]:
    """A function that gives an array like its first one."""

    def run(x: mx.array, *others: Any, **more: Any) -> mx.array:
        weights = [other for other in others if isinstance(other, mx.array)]
        return stand_ins.made(x.shape, x.dtype, [x, *weights])

    return run


_ATTENTION = "scaled_dot_product_attention"
