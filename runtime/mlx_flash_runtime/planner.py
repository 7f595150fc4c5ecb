"""One question, asked per call: which route? The plans are remembered."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from typing import Any
from weakref import WeakSet

import mlx.core as mx

from . import gradient
from .kernels.cpu import library
from .layers import Kind
from .masks import StructuredMask, structure_of
from .plan import UNPLANNED, Plan, plan
from .problem import Device, Problem
from .routes import cpu_kernel, cuda_kernel, native
from .settings import Settings

# A decoding loop meets a new key length with every token: the cache starts over rather than grow with them.
_CACHED_PLANS = 4096
_CPU = mx.Device(mx.cpu)
_SIMPLE = 5  # parts of the key of a call without sinks or a mask array, whose arrays are of one type


class Planner:
    """Plans calls under fixed settings and remembers the plans.

    For the device of the call, or for a `device` that it is told of, and then for calls inside or outside of a gradient
    as it is told by `training`.
    """

    def __init__(self, settings: Settings, device: Device | None = None, training: bool = False) -> None:
        self.settings = settings
        self.told = None if device is None else (device, training)
        # Plans of calls without sinks or a mask array that were planned before, by the shapes of q and k, the bytes of
        # an element of q and the mask: those that run the same way in a gradient, by MLX's own function or by `kernel`.
        # MLX's is right for whatever else k and v may be, and on either device; the kernel says what it is for.
        self.known: dict[tuple[object, ...], Plan] = {}
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._cpu_plans: dict[tuple[object, ...], Plan] = {}
        # Plans of calls with rope scores for a mask that are no better without, see `mla`.
        self.unfoldable: WeakSet[Plan] = WeakSet()
        # Where there is a GPU, either device may be a thread's default at the time of a call.
        self._device_varies = mx.metal.is_available() or mx.cuda.is_available()
        _planners.add(self)
        gradient.shows()  # asks MLX once, here, outside of any gradient

    def plan_call(self, q: mx.array, k: mx.array, v: mx.array, mask: object, sinks: Any) -> Plan:
        """The plan of one call, whose arguments are those of `mx.fast.scaled_dot_product_attention`, of any type."""
        try:
            dtype, queries, keys, values = q.dtype, q.shape, k.shape, v.shape
            key: tuple[object, ...]
            if not isinstance(mask, mx.array):
                key = (queries, keys, values, dtype, mask)
            elif isinstance(mask, StructuredMask):  # which is bool
                key = (queries, keys, values, dtype, mask.shape, mask.structure or mask.dtype)
            else:
                key = (queries, keys, values, dtype, mask.shape, mask.dtype)
            # Types are slow to hash: three alike, as they nearly always are, stand in the key as one.
            if not dtype == k.dtype == v.dtype:
                key += (k.dtype, v.dtype)
            if sinks is not None:
                key += ("sinks", sinks.shape, sinks.dtype)
            plans = self._of_device()
            found = plans.get(key)
        except (AttributeError, TypeError, IndexError):  # no arrays: MLX says so best
            return UNPLANNED
        if found is None:
            self._make_room(plans)
            alike = _decode_class(key)
            found = plans.get(alike) if alike else None
            if found is None or not found.is_native:
                found = self._plan_anew(q, k, v, mask, sinks)
                if alike:
                    plans[alike] = found
            plans[key] = found
            if len(key) == _SIMPLE and plans is self._plans and found.is_quick:
                self.known[queries, keys, q.itemsize, mask] = found
        return _as_traced(found)

    def plan_softcapped(self, q: mx.array, k: mx.array, v: mx.array, mask: object, softcap: float) -> Plan:
        """The plan of a call whose scores are softcapped."""
        said = structure_of(mask, q.shape[-2], k.shape[-2]) if isinstance(mask, mx.array) else mask
        key: tuple[object, ...] = (q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, softcap, said)
        key += (getattr(mask, "shape", None), getattr(mask, "dtype", None))
        plans = self._of_device()
        found = plans.get(key)
        if found is None:
            self._make_room(plans)
            problem = Problem.of(q, k, v, mask, softcap=softcap)
            found = plans[key] = UNPLANNED if problem is None else self._planned(problem, mask)
        return _as_traced(found)

    def _of_device(self) -> dict[tuple[object, ...], Plan]:
        """The plans for the device that is the default now."""
        return self._cpu_plans if self._device_varies and mx.default_device() == _CPU else self._plans

    def _make_room(self, plans: dict[tuple[object, ...], Plan]) -> None:
        if len(plans) >= _CACHED_PLANS:
            plans.clear()
            self.known.clear()

    def _plan_anew(self, q: mx.array, k: mx.array, v: mx.array, mask: object, sinks: object) -> Plan:
        problem = Problem.of(q, k, v, mask, sinks)
        return UNPLANNED if problem is None else self._planned(problem, mask)

    def _planned(self, problem: Problem, mask: object) -> Plan:
        if self.told is not None:
            device, training = self.told
            return self._plan(replace(problem, training=training), device, mask)
        device = Device.current()
        if cpu_kernel.is_missed(problem, device) and self.settings.route in (None, cpu_kernel.NAME):
            library.want(forget_plans)
        chosen = self._plan_with_gradient(problem, device, mask)
        if chosen.route is not native or self.settings.route is not None:
            return chosen
        calls = cuda_kernel.trial(problem, device)
        if not calls:
            return chosen
        # What a gradient traces is MLX's own in that route too.
        reason = "cuDNN would first plan for this shape, for longer than the calls of one prompt take without it"
        kernel = cuda_kernel.Trial(problem, calls, partial(self._settle, chosen))
        kind = Kind(chosen.kind.phase, cuda_kernel.NAME, reason)
        return replace(chosen, route=cuda_kernel, kind=kind, is_native=False, kernel=kernel, calls=count(1))

    def _settle(self, chosen: Plan, kernel: cuda_kernel.ByScale) -> None:
        """Puts `chosen` in the place of the plan with `kernel`."""
        for plans in (self._plans, self.known):
            for key, known in list(plans.items()):
                if known.kernel is kernel:
                    plans[key] = chosen

    def _plan_with_gradient(self, problem: Problem, device: Device, mask: object) -> Plan:
        chosen = self._plan(problem, device, mask)
        # Asking MLX costs more than planning: it is left where MLX's own function is the answer anyway, as inside the
        # CUDA kernel's route, and in decode, of which nobody takes a gradient.
        if not gradient.shows() or device.backend == "cpu" or problem.phase == "decode":
            return _unsure_of_training(chosen)
        in_training = self._plan(replace(problem, training=True), device, mask)
        if in_training.is_native and chosen.is_native:
            return _unsure_of_training(chosen)
        if in_training.is_native and chosen.kernel is not None:
            # To ask MLX, which answers with an exception, costs more than the kernel gains where calls are short. It
            # finds out itself, by failing to run; the shape then stays with what is trained.
            chosen.kernel.over = partial(self._settle, replace(in_training, kind=_unsure(in_training.kind)))
            return _unsure_of_training(chosen)
        return replace(chosen, in_training=in_training)

    def _plan(self, problem: Problem, device: Device, mask: object) -> Plan:
        chosen = plan(problem, device, self.settings)
        # A causal array that is known to be one is better said in a word, which is what `Plan.run` does.
        said_in_a_word = problem.mask == "causal" and isinstance(mask, mx.array)
        return replace(chosen, is_native=False) if said_in_a_word else chosen


def _as_traced(plan: Plan) -> Plan:
    """The plan, or that for a gradient where one is traced now and makes a difference."""
    return plan.in_training if plan.in_training is not None and gradient.is_traced() else plan


def _unsure_of_training(plan: Plan) -> Plan:
    """The plan, counting as what it is where it is not asked whether a gradient is traced."""
    return replace(plan, kind=_unsure(plan.kind))


def _unsure(kind: Kind) -> Kind:
    return kind._replace(phase="prefill or training") if kind.phase in ("prefill", "training") else kind


def _decode_class(key: tuple[Any, ...]) -> tuple[object, ...] | None:
    """Of one query on as many keys as values, without sinks, and with a mask that is an array for all keys if any: what
    the plan depends on if it leaves the call to MLX. That is the key length no further than to a power of two, as
    calibrations count it."""
    queries, keys, values, dtype, mask, *rest = key
    if len(queries) != 4 or queries[2] != 1 or keys[:3] != values[:3]:
        return None
    alike = "decode", queries, keys[:2], keys[2].bit_length(), keys[3], values[3], dtype
    if mask is None and not rest:
        return alike
    if len(rest) == 1 and isinstance(rest[0], mx.Dtype) and mask[-1:] == keys[2:3]:
        return *alike, mask[:-1], rest[0]
    return None


_planners: WeakSet[Planner] = WeakSet()


def forget_plans() -> None:
    """Has every planner plan anew: the machine has got something."""
    for planner in list(_planners):
        planner.known.clear()
        planner._plans.clear()
        planner._cpu_plans.clear()


@lru_cache(maxsize=64)
def planner_for(settings: Settings) -> Planner:
    """The planner of these settings, with the plans it has made so far."""
    return Planner(settings)
