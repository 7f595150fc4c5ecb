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
from ...planning.choice import Choice
from ...planning.plan import Plan
from ...planning.planner import Key, Planner
from ...problem import Device, Problem
from ...routes import ROUTES, native, unfused
from ...settings import Settings
from ...stock.fused import error_of, is_fused
from .graph import Graph, Operation, needed
from .kinds import ATTENTION, FILL, OPAQUE, ROPE, SELECT

# A number that marks an operation, far from any that a model has.
_FIRST_MARK = 0x51AD_0000_0000
# Functions of MLX with a kernel of their own on GPUs, and its name in a graph.
_WITH_KERNELS = (
    (mx.fast, "rms_norm", "RMSNorm"),
    (mx.fast, "layer_norm", "LayerNorm"),
    (mx.fast, "rope", ROPE),
    (mx, "dequantize", "Quantize"),
)
# One that MLX 0.32.4 does not export on a GPU ("Unable to get state for primitive").
_NOT_EXPORTED = (mx.fast, "cross_entropy", "CrossEntropy")


class MlxRaises(Exception):
    """MLX's own attention has an error for a call of the model; the message is that error."""


@dataclass(frozen=True)
class _Call:
    """The operation that a call is, the marks of its inputs and output, and bytes that it needs
    while it runs."""

    name: str
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

    def attention(self, extra: int, name: str = OPAQUE) -> Callable[..., mx.array]:
        """A call of attention that needs so many bytes, and its gradient as many; of that `name`,
        if MLX knows it."""

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
            return self.made(name, (*q.shape[:3], v.shape[3]), q.dtype, arrays, extra)

        return run

    def fused_attention(self, device: Device) -> Callable[..., mx.array]:
        """A call of MLX's fused attention. On CUDA that takes masks of numbers alone: of one that
        is bool, MLX makes one for all heads, from as large an array of zeros and another one of
        infinities, in each call anew (`scaled_dot_product_attention` in its `fast.cpp`)."""
        attend = self.attention(0, ATTENTION)

        def run(q: mx.array, k: mx.array, v: mx.array, **more: Any) -> mx.array:
            mask = more.get("mask")
            if device.backend == "cuda" and isinstance(mask, mx.array) and mask.dtype == mx.bool_:
                shape = (*q.shape[:3], k.shape[2])
                zeros, infinities = (self.made(FILL, shape, q.dtype, []) for _ in range(2))
                of_scores = mx.broadcast_to(mask, shape)
                more["mask"] = self.made(SELECT, shape, q.dtype, [of_scores, zeros, infinities])
            return attend(q, k, v, **more)

        return run

    def made(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: mx.Dtype,
        inputs: Sequence[mx.array],
        extra: int = 0,
    ) -> mx.array:
        """An array of a shape and type, by the operation `name` from `inputs`."""
        marks = tuple(next(self._marks) for _ in inputs)
        marked = [_marked(x, mark) for x, mark in zip(inputs, marks, strict=True)]
        connected = sum((mx.sum(x).astype(dtype) for x in marked), mx.array(0, dtype))
        out = next(self._marks)
        self.calls.append(_Call(name, marks, out, extra))
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
            put[output.array] = Operation(call.name, read, [output.array], extra=call.extra)
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
        choice = self._first_choice(found.choice)
        return Plan(found.kind, self._run(choice), choice, to_learn=0)

    def _run(self, choice: Choice) -> Callable[..., mx.array]:
        if choice.route is unfused:
            return _unfused
        if choice.route is native:
            return self.stand_ins.fused_attention(choice.device)
        attend = self.stand_ins.attention(choice.extra_memory)
        # Our own routes know a window by its size: the mask itself is never computed.
        return _without_mask(attend) if choice.problem.mask == "window" else attend

    def _first_choice(self, choice: Choice) -> Choice:
        """What runs where the shape is new, as those of a prompt are."""
        problem, device = choice.problem, choice.device
        if choice.route is native and self.settings.route is None and not problem.training:
            for route in ROUTES:
                if route.first_calls(problem, device)[0]:
                    extra = route.extra_memory(problem, device, None)
                    return replace(choice, route=route, extra_memory=extra)
        return choice


def _without_mask(attend: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def run(q: mx.array, k: mx.array, v: mx.array, **more: Any) -> mx.array:
        return attend(q, k, v, **{**more, "mask": None})

    return run


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
        run = stand_ins.fused_attention(device)
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
    default = mx.default_device()
    replaced = [_NOT_EXPORTED] if hasattr(mx.fast, "cross_entropy") else []
    if default.type == mx.DeviceType.cpu:
        replaced += _WITH_KERNELS
    own = [(owner, function, getattr(owner, function)) for owner, function, _ in replaced]
    own.append((mx.fast, _ATTENTION, getattr(mx.fast, _ATTENTION)))
    try:
        if device.backend == "cpu":
            mx.set_default_device(mx.Device(mx.cpu))
        else:
            for owner, function, name in replaced:
                setattr(owner, function, _kernel(stand_ins, name, getattr(owner, function)))
        if settings is None:
            setattr(mx.fast, _ATTENTION, _without_runtime(device, stand_ins))
        else:
            patch.install(_WithRuntime(device, settings, stand_ins))
        yield stand_ins
    finally:
        patch.uninstall()
        for owner, function, was in own:
            setattr(owner, function, was)
        mx.set_default_device(default)
        if before is not None:
            patch.install(before)
        layers.forget()


def _kernel(
    stand_ins: StandIns, name: str, function: Callable[..., mx.array]
) -> Callable[..., mx.array]:
    """A function that gives an array like that of MLX's `function`, by the operation `name`."""

    def run(*args: Any, **more: Any) -> mx.array:
        like = function(*args, **more)
        arrays = [x for x in (*args, *more.values()) if isinstance(x, mx.array)]
        return stand_ins.made(name, like.shape, like.dtype, arrays)

    return run


_ATTENTION = "scaled_dot_product_attention"
