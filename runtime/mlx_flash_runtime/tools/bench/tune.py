"""Measures every route that holds for a problem, behind a check, in turns, and says which is the
fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import mlx.core as mx

from ... import stock
from ...planning.calibration import STOCK, Measured, class_of, phase_of
from ...planning.choice import candidates, stock_memory
from ...problem import Attend, Call, Device, Problem
from ...routes import native, reference, unfused
from .check import Check, error_budget, make_check, run_phase
from .inputs import Inputs, inputs_that_fit
from .machine import free_memory, is_out_of_memory
from .numbers import significant
from .timing import Timing, side_by_side

# A route has to gain more than this over MLX's own function: less is what two runs of the same
# differ by.
NOISE = 0.03
_ROUNDS = 15
_REGION = 0.005  # seconds of one timed region, at least
# Temporaries of a gradient, in those of the forward pass.
_TRAINING = 3

Run = Callable[[], list[mx.array]]
Time = Callable[[Mapping[str, Run]], Mapping[str, Timing]]


@dataclass(frozen=True)
class Tuned:
    """One problem: what was measured of its class, the routes whose results were wrong, and those
    that did not fit in memory. `measured` is None where nothing could be."""

    problem: Problem
    name: str
    measured: Measured | None
    wrong: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


def interleaving(seconds: float) -> Time:
    """Times candidates in turns, for about so many seconds."""

    def repeated(run: Run, calls: int) -> list[list[mx.array]]:
        return [run() for _ in range(calls)]

    def time(runs: Mapping[str, Run]) -> Mapping[str, Timing]:
        several = {name: partial(repeated, run) for name, run in runs.items()}
        measured = side_by_side(several, region=_REGION, limit=seconds, rounds=_ROUNDS)
        return measured.timings

    return time


def distinct(problems: Iterable[Problem], device: Device) -> list[Problem]:
    """One problem of each class, those that can be measured."""
    found: dict[str, Problem] = {}
    for problem in problems:
        if _can_be_measured(problem):
            found.setdefault(class_of(problem, device), problem)
    return list(found.values())


def _can_be_measured(problem: Problem) -> bool:
    """MLX's own function has it, it has one query or as many as keys, and its mask is no array
    that is spread over the keys."""
    usual = problem.query_length in (1, problem.key_length)
    along_keys = problem.mask_shape[-1:] in ((), (problem.key_length,))
    return problem.softcap is None and usual and along_keys


def tune(problems: Iterable[Problem], device: Device, time: Time) -> Iterator[Tuned]:
    """Measures each problem on `device`, the current one, as it is asked for. Where prefill and
    training are one class, both are measured, whichever is given."""
    for problem in problems:
        yield _tuned(problem, device, time)
        mx.clear_cache()


def _tuned(problem: Problem, device: Device, time: Time) -> Tuned:
    phase = phase_of(problem, device)
    trainings = (False, True) if phase == "prefill or training" else (problem.training,)
    timings: dict[str, Mapping[str, Timing]] = {}
    wrong: set[str] = set()
    too_large: set[str] = set()
    for training in trainings:
        one = replace(problem, training=training)
        runs = checked(one, device, wrong, too_large)
        if runs:
            timings[one.phase] = time(runs)
    kept = {phase: _without(of, wrong | too_large) for phase, of in timings.items()}
    measured = fastest(kept) if kept and all(kept.values()) else None
    name = class_of(problem, device)
    return Tuned(problem, name, measured, tuple(sorted(wrong)), tuple(sorted(too_large)))


def _without(timings: Mapping[str, Timing], bad: set[str]) -> dict[str, Timing]:
    """Those of candidates that are not bad: in one phase is enough."""
    return {name: timing for name, timing in timings.items() if name not in bad}


def fastest(timings: Mapping[str, Mapping[str, Timing]]) -> Measured:
    """The winner of timings by phase and name: the route that gains most over MLX's own function
    in the phase where it gains least, or that function, unless the gain is above NOISE and there
    in nearly every round of every phase. Where MLX's own was not measured, for want of memory, the
    route that is fastest over all phases."""
    phases = list(timings.values())
    names = list(phases[0])
    for of in phases[1:]:
        names = [name for name in names if name in of]
    ms = {phase: milliseconds(of) for phase, of in timings.items()}

    def total(name: str) -> float:
        return sum(of[name].median for of in phases)

    if STOCK not in names:
        return Measured(min(names, key=total), None, ms)
    gains = {STOCK: 1.0}
    for name in names:
        if all(_beats(of[name], of[STOCK]) for of in phases):
            gains[name] = min(of[STOCK].median / of[name].median for of in phases)
    best = max(gains, key=lambda name: gains[name])
    return Measured(best, round(gains[best], 2), ms)


def milliseconds(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The median of each candidate, as it is shown."""
    return {name: significant(1e3 * timing.median) for name, timing in timings.items()}


def _beats(ours: Timing, stock: Timing) -> bool:
    """Whether it is faster by more than noise, in the middle and in nearly every round. Rounds are
    compared with each other, as the two were timed one after the other: what slows the machine for
    longer slows both."""
    rounds = zip(ours.seconds, stock.seconds, strict=True)
    gains = Timing(tuple(theirs / own for own, theirs in rounds))
    return ours.median * (1 + NOISE) < stock.median and gains.quartiles[0] > 1


def checked(
    problem: Problem, device: Device, wrong: set[str], too_large: set[str]
) -> dict[str, Run]:
    """The candidates that compute what they should, ready to be timed; notes the others. Stock
    comes first."""
    try:
        inputs = inputs_that_fit(problem)
    except MemoryError:
        too_large.add("inputs")
        return {}
    check = make_check(problem, inputs)
    runs: dict[str, Run] = {}
    stock_error: float | None = None
    for name, (attend, memory) in _attends(problem, device).items():
        run = partial(_run, problem, attend, inputs)
        try:
            error = _error_if_it_fits(run, check, inputs, memory)
        except (MemoryError, RuntimeError) as failure:
            if not is_out_of_memory(failure):
                raise
            mx.clear_cache()
            too_large.add(name)
            continue
        if name == STOCK:
            stock_error = error
        elif not error <= error_budget(problem, check, stock_error):  # NaN is not, either
            wrong.add(name)
            continue
        runs[name] = partial(run, inputs.cotangent)
    return runs


def _attends(problem: Problem, device: Device) -> dict[str, tuple[Attend, int]]:
    """The candidates by name, each with the memory that its forward pass is predicted to need."""
    attends: dict[str, tuple[Attend, int]] = {STOCK: (stock.call, stock_memory(problem, device))}
    for route, block_size in candidates(problem, device):
        if route not in (native, unfused, reference):
            attend = route.attend(problem, device, block_size)
            attends[route.name] = attend, route.extra_memory(problem, device, block_size)
    return attends


def _run(problem: Problem, attend: Attend, inputs: Inputs, cotangent: mx.array) -> list[mx.array]:
    mask = inputs.mask if isinstance(inputs.mask, mx.array) else None

    def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return attend(Call(problem, q, k, v, inputs.scale, mask, inputs.sinks))

    return run_phase(problem, attention, inputs, cotangent)


def _error_if_it_fits(
    run: Callable[[mx.array], list[mx.array]], check: Check, inputs: Inputs, memory: int
) -> float:
    """The error of a candidate's results. Raises MemoryError where they do not fit: not merely
    tried, as with too large an allocation MLX's CPU backend ends the process."""
    temporaries = memory * (_TRAINING if len(check.expected) > 1 else 1)
    results = sum(array.nbytes for array in inputs.arrays)  # at most as much as the inputs
    if temporaries + results > free_memory():
        raise MemoryError
    found = run(check.cotangent)
    mx.eval(found)
    return check.error(found)
