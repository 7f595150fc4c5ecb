"""In the place of attention, of the loss, and of the functions of MLX that a GPU has kernels for:
the operations that they would be on a device, planned as there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn

from ...patching import patch
from ...planning import layers
from ...planning.choice import Choice
from ...planning.plan import Plan
from ...planning.planner import Key, Planner
from ...problem import Device, Problem
from ...routes import ROUTES, cuda_kernel, metal_kernel, native
from ...routes import unfused as unfused_route
from ...settings import Settings
from ...stock.fused import error_of, is_fused
from .kinds import BY_POSITION, LOSS_GRADIENT, NORM_GRADIENTS, ROPE
from .stand_ins import OURS, Kernel, StandIns, unfused

nn: Any = mlx.nn  # whose stubs do not export all of it
# Functions of MLX with a kernel of their own on GPUs.
_WITH_KERNELS = (
    (mx.fast, "rms_norm", Kernel("RMSNorm", NORM_GRADIENTS[0], reads_output=False)),
    (mx.fast, "layer_norm", Kernel("LayerNorm", NORM_GRADIENTS[1], reads_output=False)),
    (mx.fast, "rope", Kernel(ROPE, ROPE, reads_inputs=False, reads_output=False)),
    (mx, "dequantize", Kernel("Quantize")),
)
# One that MLX 0.32.4 does not export on a GPU ("Unable to get state for primitive").
_NOT_EXPORTED = (mx.fast, "cross_entropy", Kernel("CrossEntropy", LOSS_GRADIENT))
_ON_GPU = Kernel(BY_POSITION, BY_POSITION)
_ATTENTION, _LOSS = "scaled_dot_product_attention", "cross_entropy"


class MlxRaises(Exception):
    """MLX's own attention has an error for a call of the model; the message is that error."""


class _WithRuntime(Planner):
    """Has each call be an operation that needs what its route is predicted to need; where that is
    MLX's own attention, be that."""

    def __init__(self, device: Device, settings: Settings, stand_ins: StandIns) -> None:
        super().__init__(settings, device, stand_ins.training)
        self.stand_ins = stand_ins

    def _planned(self, key: Key, problem: Problem, mask: Any) -> Plan:
        found = super()._planned(key, problem, mask)
        assert found.choice is not None
        choice = self._first_choice(found.choice)
        return Plan(found.kind, self._run(choice), choice, to_learn=0)

    def _run(self, choice: Choice) -> Callable[..., mx.array]:
        if choice.route in (native, unfused_route):
            return _own_attention(choice.problem, choice.device, self.stand_ins)
        kernel = _ON_GPU if choice.route in (cuda_kernel, metal_kernel) else OURS
        attend = self.stand_ins.attention(choice.extra_memory, kernel)
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
        if problem is None:
            return unfused(q, k, v, scale=scale, mask=mask, sinks=sinks)
        error = error_of(problem, device)
        if error is not None:
            raise MlxRaises(error)
        run = _own_attention(problem, device, stand_ins)
        return run(q, k, v, scale=scale, mask=mask, sinks=sinks)

    return attention


def _own_attention(
    problem: Problem, device: Device, stand_ins: StandIns
) -> Callable[..., mx.array]:
    """MLX's own attention for a call. On CUDA it decides of the backward pass by itself: where only
    that has no fused kernel, it computes the scores again for it (`ScaledDotProductAttention::vjp`
    and the `use_fallback` of both in MLX's sources)."""
    if is_fused(problem, device)[0]:
        return stand_ins.fused_attention(device, backward=True)
    forward = replace(problem, training=False)
    if problem.training and device.backend == "cuda" and is_fused(forward, device)[0]:
        return stand_ins.fused_attention(device, backward=False)
    return unfused


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
    places = [(owner, function) for owner, function, _ in replaced]
    places += [(mx.fast, _ATTENTION), (nn.losses, _LOSS)]
    own = [(owner, function, getattr(owner, function)) for owner, function in places]
    try:
        if device.backend == "cpu":
            mx.set_default_device(mx.Device(mx.cpu))
        else:
            for owner, function, kernel in replaced:
                setattr(owner, function, _made(stand_ins, kernel, getattr(owner, function)))
            if _NOT_EXPORTED in replaced:
                setattr(nn.losses, _LOSS, _loss_on_a_gpu(nn.losses.cross_entropy))
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


def _made(
    stand_ins: StandIns, kernel: Kernel, function: Callable[..., mx.array]
) -> Callable[..., mx.array]:
    """A function that gives an array like that of MLX's `function`, by the operation `kernel`."""

    def run(*args: Any, **more: Any) -> mx.array:
        like = function(*args, **more)
        arrays = [x for x in (*args, *more.values()) if isinstance(x, mx.array)]
        return stand_ins.made(kernel, like.shape, like.dtype, arrays)

    return run


def _loss_on_a_gpu(own: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """`nn.losses.cross_entropy`, which on a GPU is one operation of the logits and the classes."""

    def run(logits: mx.array, targets: mx.array, *args: Any, **more: Any) -> mx.array:
        if args or more or targets.ndim == logits.ndim:
            return own(logits, targets, *args, **more)
        loss: mx.array = mx.fast.cross_entropy(logits, targets).astype(logits.dtype)
        return loss

    return run
