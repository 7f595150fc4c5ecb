"""Calls of which each is one operation in a graph: of MLX's fused attention, of our own, and of the
functions of MLX that a GPU has kernels for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx

from ... import stock
from ...problem import Device
from .graph import Graph, Operation, needed
from .kinds import ATTENTION, ATTENTION_GRADIENT, FILL, OPAQUE, SELECT

# A number that marks an operation, far from any that a model has.
_FIRST_MARK = 0x51AD_0000_0000


@dataclass(frozen=True)
class Kernel:
    """An operation by MLX's name for it, the name of its gradient's, and what that one reads beside
    the gradient of the output: the inputs, the output."""

    name: str
    gradient: str = OPAQUE
    reads_inputs: bool = True
    reads_output: bool = True


_FUSED = Kernel(ATTENTION, ATTENTION_GRADIENT)
OURS, _FILLED, _SELECTED = Kernel(OPAQUE), Kernel(FILL), Kernel(SELECT)


@dataclass(frozen=True)
class _Call:
    """The operation that a call is, the marks of its inputs and output, and bytes that it needs
    while it runs. Its gradient is one operation too, or else that of what is between the marks."""

    kernel: Kernel
    inputs: tuple[int, ...]
    output: int
    extra: int = 0
    is_gradient_apart: bool = False


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

    def attention(self, extra: int, kernel: Kernel) -> Callable[..., mx.array]:
        """A call of attention that needs so many bytes, and its gradient as many; by that
        `kernel`."""

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
            return self.made(kernel, (*q.shape[:3], v.shape[3]), q.dtype, arrays, extra)

        return run

    def fused_attention(self, device: Device, backward: bool) -> Callable[..., mx.array]:
        """A call of MLX's fused attention, whose gradient is fused too, or else computes the scores
        again. On CUDA that takes masks of numbers alone: of one that is bool, MLX makes one for all
        heads, from as large an array of zeros and another one of infinities, in each call anew
        (`scaled_dot_product_attention` in its `fast.cpp`)."""
        attend = self.attention(0, _FUSED) if backward else self._again_in_the_gradient

        def run(q: mx.array, k: mx.array, v: mx.array, **more: Any) -> mx.array:
            mask = more.get("mask")
            if device.backend == "cuda" and isinstance(mask, mx.array) and mask.dtype == mx.bool_:
                shape = (*q.shape[:3], k.shape[2])
                zeros, infinities = (self.made(_FILLED, shape, q.dtype, []) for _ in range(2))
                of_scores = mx.broadcast_to(mask, shape)
                arrays = [of_scores, zeros, infinities]
                more["mask"] = self.made(_SELECTED, shape, q.dtype, arrays)
            return attend(q, k, v, **more)

        return run

    def _again_in_the_gradient(
        self, q: mx.array, k: mx.array, v: mx.array, *, scale: Any, mask: Any, sinks: Any
    ) -> mx.array:
        """Fused attention whose gradient is that of MLX's graph, which then is computed for it."""
        arrays = [x for x in (q, k, v, mask) if isinstance(x, mx.array)]
        marks = tuple(next(self._marks) for _ in arrays)
        q, k, v, *masks = (_marked(x, mark) for x, mark in zip(arrays, marks, strict=True))
        mask = masks[0] if masks else mask
        out = next(self._marks)
        self.calls.append(_Call(_FUSED, marks, out, is_gradient_apart=True))
        return _marked(unfused(q, k, v, scale=scale, mask=mask, sinks=sinks), out)

    def made(
        self,
        kernel: Kernel,
        shape: tuple[int, ...],
        dtype: mx.Dtype,
        inputs: Sequence[mx.array],
        extra: int = 0,
    ) -> mx.array:
        """An array of a shape and type, by the operation `kernel` from `inputs`."""
        marks = tuple(next(self._marks) for _ in inputs)
        marked = [_marked(x, mark) for x, mark in zip(inputs, marks, strict=True)]
        connected = sum((mx.sum(x).astype(dtype) for x in marked), mx.array(0, dtype))
        out = next(self._marks)
        self.calls.append(_Call(kernel, marks, out, extra))
        return _marked(mx.broadcast_to(connected, shape), out)

    def put_into(self, graph: Graph) -> Graph:
        """The graph with one operation for each call, and one for each gradient."""
        put = _Put(graph)
        for call in self.calls:
            put.add(call)
        return put.graph()


class _Put:
    """A graph into which calls are put for what stands there for them."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._sites = graph, _sites_in(graph)
        self._operations: dict[str, Operation] = {}  # by the array in whose place they are
        self._gone: set[str] = set()
        self._is: dict[str, str] = {}  # a product with a mark is what is multiplied

    def add(self, call: _Call) -> None:
        """That call, if somebody needs it."""
        sites = [self._sites.get(mark, []) for mark in (*call.inputs, call.output)]
        if not sites[-1]:
            return
        (*inputs, output) = (site[0] for site in sites if site)
        read = [site.of for site in inputs]
        kernel, extra = call.kernel, call.extra
        self._operations[output.array] = Operation(kernel.name, read, [output.array], extra=extra)
        if call.is_gradient_apart:
            for site in (*inputs, *(each for several in sites for each in several[1:])):
                self._is[site.array] = site.of
        elif len(sites[-1]) > 1:
            towards = sites[-1][1]
            gradients = [site[1].array for site in sites[:-1] if len(site) > 1]
            read = read if kernel.reads_inputs else []
            read = [*read, output.array, towards.of] if kernel.reads_output else [*read, towards.of]
            gradient = Operation(kernel.gradient, read, gradients, extra=extra)
            self._operations[towards.array] = gradient
            self._gone.update(gradients)

    def graph(self) -> Graph:
        """The graph with all of them."""
        operations = []
        gone = self._gone | self._is.keys()
        for each in self._graph.operations:
            if each.outputs[0] not in gone:
                each = self._operations.get(each.outputs[0], each)
                inputs = [self._name_of(name) for name in each.inputs]
                operations.append(replace(each, inputs=inputs))
        outputs = [self._name_of(name) for name in self._graph.outputs]
        return needed(replace(self._graph, operations=operations, outputs=outputs))

    def _name_of(self, array: str) -> str:
        while array in self._is:
            array = self._is[array]
        return array


class _Site(NamedTuple):
    """A product with a marked number: the array that it is, and that which is multiplied."""

    array: str
    of: str


def _sites_in(graph: Graph) -> dict[int, list[_Site]]:
    """The products with marked numbers in a graph, by mark: of the call, then of its gradient."""
    sites: dict[int, list[_Site]] = {}
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
                    sites.setdefault(marks[number], []).append(_Site(output, other))
    return sites


def _marked(x: mx.array, mark: int) -> mx.array:
    number = mx.depends([mx.array(1, x.dtype)], [mx.array(mark, mx.uint64)])[0]
    product: mx.array = x * number
    return product


def unfused(
    q: mx.array, k: mx.array, v: mx.array, *, scale: Any, mask: Any, sinks: Any
) -> mx.array:
    """The graph that MLX computes where it has no fused kernel, as on the CPU."""
    return stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks, stream=mx.cpu)
