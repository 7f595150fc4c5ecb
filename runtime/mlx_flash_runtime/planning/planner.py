"""One question, asked per call: which route? One table remembers the answers."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from sys import _getframe
from typing import Any

import mlx.core as mx

from ..environment import announcement
from ..problem import Device, Launch, Problem
from ..problem.masks import StructuredMask
from ..routes import ROUTES, native
from ..settings import Settings
from ..stock import gradient
from ..stock.fused import error_of
from . import layers
from .choice import Choice, choose
from .counts import Kind
from .machine import current_device
from .plan import UNPLANNED, Plan

Key = tuple[Any, ...]

# A decoding loop meets a new key length with every token: the table starts over rather than grow.
_MOST_PLANS = 4096
_CPU = mx.Device(mx.cpu)


class Planner:
    """Plans calls under fixed settings and remembers the plans.

    For the device of the call, or for a `device` that it is told of, and then for calls inside or
    outside of a gradient as it is told by `training`.
    """

    def __init__(
        self, settings: Settings, device: Device | None = None, training: bool = False
    ) -> None:
        self.settings = settings
        self.plans: dict[Key, Plan] = {}
        self._told = None if device is None else (device, training)
        self._devices: dict[bool, Device] = {}  # as last looked at, by whether it is the CPU
        # Where there is a GPU, either device may be a thread's default at the time of a call.
        self._device_varies = mx.metal.is_available() or mx.cuda.is_available()
        gradient.shows()  # asks MLX once, here, outside of any gradient

    @property
    def device(self) -> Device:
        """The device that it plans for: the one that it is told of, or that of the calls, as it
        was when a call on it was last planned: looking again costs more than a call may."""
        if self._told is not None:
            return self._told[0]
        device = self._devices.get(self._is_on_cpu())
        return self._look() if device is None else device

    def _is_on_cpu(self) -> bool:
        """Whether calls are for the CPU while there is a GPU, too."""
        return self._device_varies and mx.default_device() == _CPU

    def _look(self) -> Device:
        device = self._devices[self._is_on_cpu()] = current_device()
        return device

    def attend(self, q: Any, k: Any, v: Any, scale: Any, mask: Any, sinks: Any) -> mx.array:
        """One call of the program: planned, counted for the layer that the caller's caller is, and
        run. The arguments are those of `mx.fast.scaled_dot_product_attention`, of any type."""
        plan = self.lookup(q, k, v, mask, sinks)
        next(plan.numbers)
        if plan.to_learn or layers.in_every_call:
            plan.learn(_getframe(2))
        return plan.run(q, k, v, scale=scale, mask=mask, sinks=sinks)

    def lookup(
        self, q: Any, k: Any, v: Any, mask: Any, sinks: Any, softcap: float | None = None
    ) -> Plan:
        """The plan of one call, for a gradient where one is traced now and that makes a
        difference."""
        try:
            key = (
                q.shape,
                k.shape,
                v.shape,
                q.dtype,
                k.dtype,
                v.dtype,
                _mask_key(mask),
                None if sinks is None else (sinks.shape, sinks.dtype),
                softcap,
                self._device_varies and mx.default_device() == _CPU,
            )
            plan = self.plans.get(key)
        except (AttributeError, TypeError):  # no arrays: MLX says so best
            return UNPLANNED
        if plan is None:
            plan = self._new(key, q, k, v, mask, sinks, softcap)
        if plan.in_training is not None and gradient.is_traced():
            return plan.in_training
        return plan

    def forget(self) -> None:
        """Has every call planned anew: the machine has got something."""
        self.plans.clear()
        self._devices.clear()

    def _new(
        self, key: Key, q: mx.array, k: mx.array, v: mx.array, mask: Any, sinks: Any, softcap: Any
    ) -> Plan:
        shared = _decode_key(key)
        before = None if shared is None else self.plans.get(shared)
        plan = None if before is None else self._next_token(before, k.shape[2], mask)
        if plan is None:
            problem = Problem.of(q, k, v, mask, sinks, softcap=softcap)
            if problem is None:
                return UNPLANNED
            plan = self._planned(key, problem, mask)
        if shared is not None and plan.in_training is None:
            self.plans[shared] = plan
        self._remember(key, plan)
        return plan

    def _remember(self, key: Key, plan: Plan) -> None:
        """Has calls of that key go by `plan`."""
        if len(self.plans) > _MOST_PLANS - 3:
            self.plans.clear()
        self.plans[key] = plan
        queries, keys, values, dtype, k_dtype, v_dtype, mask, sinks, softcap, on_cpu = key
        is_plain = sinks is None and softcap is None and (mask is None or isinstance(mask, str))
        if not is_plain or not dtype == k_dtype == v_dtype or on_cpu:
            return
        quick = queries, keys, math.prod(values) * dtype.size, mask
        before = self.plans.get(quick)
        if plan.is_quick:
            self.plans[quick] = plan
        elif before is not None and before.dtype_to_check == plan.dtype_to_check:
            del self.plans[quick]

    def _next_token(self, before: Plan, key_length: int, mask: Any) -> Plan | None:
        """The plan of a decoded token by that of the token before it: MLX's own function is the
        same one, a kernel is launched for its own number of keys. None to plan it anew."""
        choice = before.choice
        if choice is None or choice.route.is_stock:
            return before
        mask_shape = mask.shape if isinstance(mask, mx.array) else ()
        problem = replace(choice.problem, key_length=key_length, mask_shape=mask_shape)
        choice = replace(choice, problem=problem)
        return Plan(before.kind, _plan(choice, mask).run, choice, to_learn=before.to_learn)

    def _planned(self, key: Key, problem: Problem, mask: Any) -> Plan:
        """The plan of a problem that is new."""
        if self._told is not None:
            device, training = self._told
            problem = replace(problem, training=training)
            return _plan(choose(problem, device, self.settings), mask)
        device = self._look()
        for route in ROUTES:
            if self.settings.route in (None, route.name):
                route.prepare(problem, device, forget_plans)
        choice = choose(problem, device, self.settings)
        if not choice.route.is_stock:
            announcement.it_runs()
        plan = self._with_gradient(key, choice, mask)
        if choice.route is native and self.settings.route is None:
            for route in ROUTES:
                calls, why = route.first_calls(problem, device)
                if calls:
                    announcement.it_runs()
                    return self._first_calls(
                        key, calls, replace(choice, route=route, reason=why), plan
                    )
        return plan

    def _with_gradient(self, key: Key, choice: Choice, mask: Any) -> Plan:
        """The plan of a choice, with another one for gradients where that makes a difference."""
        problem, device = choice.problem, choice.device
        # Asking MLX whether a gradient is traced costs more than planning: it is left where the
        # answer changes nothing, as in decode, of which nobody takes a gradient.
        if not gradient.shows() or device.backend == "cpu":
            return _plan(choice, mask, unsure=True)
        training_problem = replace(problem, training=True)
        if problem.phase == "decode" and not _may_be_trained(training_problem, device):
            return _plan(choice, mask, unsure=True)
        training = choose(training_problem, device, self.settings)
        if choice.route.finds_gradients:
            once_traced = partial(self._once_traced, key, choice, training, mask)
            return _plan(choice, mask, unsure=True, in_gradient=once_traced)
        if not training.route.is_stock:
            return _plan(choice, mask, in_training=_plan(training, mask))
        if choice.route.is_stock:
            return _plan(choice, mask, unsure=True)
        return _plan(choice, mask, in_training=_plan(training, mask))

    def _once_traced(self, key: Key, choice: Choice, training: Choice, mask: Any) -> Launch:
        """A gradient was traced: has calls of that key asked from here on whether one is; where
        MLX's own function is to run those, it runs the others, too. Gives the function for one in
        a gradient."""
        plan = _plan(training, mask, unsure=training.route.is_stock)
        known = plan if training.route.is_stock else _plan(choice, mask, in_training=plan)
        self._remember(key, known)
        return plan.run

    def _first_calls(self, key: Key, calls: int, choice: Choice, then: Plan) -> Plan:
        """So many calls as `choice` says; those after them, and all once there is a gradient, by
        `then`."""

        def over() -> Launch:
            self._remember(key, then)
            return then.run

        launch = choice.route.launch(choice.problem, choice.device, None, over)
        left = iter(range(calls - 1, 0, -1))

        def run(q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
            if next(left, 0) == 0:
                over()
            return launch(q, k, v, scale=scale, mask=mask, sinks=sinks)

        kind = Kind(then.kind.phase, *choice.decision)
        return Plan(kind, run, choice, then.in_training)


def _may_be_trained(problem: Problem, device: Device) -> bool:
    """Whether few queries on more keys may be other than a step of decoding, where MLX has an error
    for their gradient: several, as latents that read a sequence; one, as that which pools a
    sequence, where it is new in the middle of a gradient."""
    if error_of(problem, device) is None:
        return False
    return problem.query_length > 1 or gradient.is_traced()


def _plan(
    choice: Choice,
    mask: Any,
    *,
    unsure: bool = False,
    in_training: Plan | None = None,
    in_gradient: Callable[[], Launch] | None = None,
) -> Plan:
    """A choice, ready to run. `unsure` says that it is not asked whether a gradient is traced."""
    problem, device = choice.problem, choice.device
    launch = choice.route.launch(problem, device, choice.block_size, in_gradient)
    if problem.mask == "causal" and isinstance(mask, mx.array):
        launch = _in_a_word(launch)
    phase = problem.phase
    if unsure and phase in ("prefill", "training"):
        phase = "prefill or training"
    return Plan(Kind(phase, *choice.decision), launch, choice, in_training)


def _mask_key(mask: Any) -> Any:
    """What a plan depends on in a mask that is an array: its shape and its type or structure."""
    if not isinstance(mask, mx.array):
        return mask
    if isinstance(mask, StructuredMask):
        return mask.shape, mask.structure, mask.dtype
    return mask.shape, mask.dtype


def _decode_key(key: Key) -> Key | None:
    """The key that decoded tokens share which take one route: with the length of the keys no
    further than to a power of two, as calibrations count it. None for other calls: of more than
    one query, with sinks, or with a mask that is no array for all keys."""
    queries, keys, values, *types, mask, sinks, softcap, device = key
    if not len(queries) == len(keys) == len(values) == 4:
        return None
    if queries[2] != 1 or keys[:3] != values[:3] or sinks or softcap:
        return None
    if mask is not None:
        if not isinstance(mask, tuple) or mask[0][-1:] != keys[2:3]:
            return None
        if not isinstance(mask[1], mx.Dtype):
            return None
        mask = mask[0][:-1], mask[1]
    length = keys[2].bit_length()
    return "decode", queries, keys[:2], length, keys[3], values[3], *types, mask, device


def _in_a_word(launch: Launch) -> Launch:
    """`launch` with "causal" for a causal mask that is an array: MLX skips what the word hides, and
    reads all of an array."""

    def run(q: Any, k: Any, v: Any, *, scale: Any, mask: Any, sinks: Any) -> mx.array:
        return launch(q, k, v, scale=scale, mask="causal", sinks=sinks)

    return run


# Settings that a program uses at a time; each block size that `flash_attention` is given is one.
_MOST_SETTINGS = 64
_planners: weakref.WeakSet[Planner] = weakref.WeakSet()


@lru_cache(maxsize=_MOST_SETTINGS)
def planner_for(settings: Settings) -> Planner:
    """The planner of these settings, with the plans it has made so far."""
    planner = Planner(settings)
    _planners.add(planner)
    return planner


def forget_plans() -> None:
    """Has every such planner plan anew."""
    for planner in list(_planners):
        planner.forget()
