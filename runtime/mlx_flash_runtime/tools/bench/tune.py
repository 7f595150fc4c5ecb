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
from ...problem.masks import as_array
from ...routes import native, reference, unfused
from .machine import free_memory, is_out_of_memory
from .numbers import significant
from .plain import error_budget, make_check, run_phase
from .problems import Configuration, Inputs
from .timing import Timing, calibrated, interleaved

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

    def time(runs: Mapping[str, Run]) -> Mapping[str, Timing]:
        def repeated(run: Run, calls: int) -> list[list[mx.array]]:
            return [run() for _ in range(calls)]

        calls, rounds = calibrated(runs, region=_REGION, limit=seconds, rounds=_ROUNDS)
        return interleaved(
            {name: partial(repeated, run, calls) for name, run in runs.items()}, rounds, calls
        )

    return time


def distinct(problems: Iterable[Problem], device: Device) -> list[Problem]:
    """One problem of each class, those that can be measured: MLX's own function has them, they
    have one query or as many as keys, and their mask is no array that is spread over the keys."""
    found: dict[str, Problem] = {}
    for problem in problems:
        usual = problem.query_length in (1, problem.key_length)
        if (
            problem.softcap is None
            and usual
            and problem.mask_shape[-1:] in ((), (problem.key_length,))
        ):
            found.setdefault(class_of(problem, device), problem)
    return list(found.values())


def tune(problems: Iterable[Problem], device: Device, time: Time) -> Iterator[Tuned]:
    """Measures each problem on `device`, the current one, as it is asked for. Where prefill and
    training are one class, both are measured, whichever is given."""
    for problem in problems:
        yield _tuned(problem, device, time)
        mx.clear_cache()


def _tuned(problem: Problem, device: Device, time: Time) -> Tuned:
    phase = phase_of(problem, device)
    trainings = (False, True) if phase == "prefill or training" else (problem.training,)
    timings: dict[str, dict[str, Timing]] = {}
    wrong: set[str] = set()
    too_large: set[str] = set()
    for training in trainings:
        one = replace(problem, training=training)
        runs = _checked(one, device, wrong, too_large)
        if runs:
            timings[one.phase] = dict(time(runs))
    name = class_of(problem, device)
    bad = wrong | too_large  # in one phase is enough
    kept = {
        phase: {name: t for name, t in of.items() if name not in bad}
        for phase, of in timings.items()
    }
    measured = fastest(kept) if kept and all(kept.values()) else None
    return Tuned(problem, name, measured, tuple(sorted(wrong)), tuple(sorted(too_large)))


def fastest(timings: Mapping[str, Mapping[str, Timing]]) -> Measured:
    """The winner of timings by phase and name: the route that gains most over MLX's own function
    in the phase where it gains least, or that function, unless the gain is above NOISE and there
    in nearly every round of every phase. Where MLX's own was not measured, for want of memory, the
    route that is fastest over all phases."""
    phases = list(timings.values())
    names = [name for name in phases[0] if all(name in of for of in phases)]
    ms = {
        phase: {name: significant(1e3 * timing.median) for name, timing in of.items()}
        for phase, of in timings.items()
    }
    if STOCK not in names:
        return Measured(
            min(names, key=lambda name: sum(of[name].median for of in phases)), None, ms
        )
    gains = {
        name: min(of[STOCK].median / of[name].median for of in phases)
        for name in names
        if name != STOCK and all(_beats(of[name], of[STOCK]) for of in phases)
    }
    best = max(gains, key=lambda name: gains[name], default=STOCK)
    return Measured(best, round(gains.get(best, 1.0), 2), ms)


def _beats(ours: Timing, stock: Timing) -> bool:
    """Whether it is faster by more than noise, in the middle and in nearly every round. Rounds are
    compared with each other, as the two were timed one after the other: what slows the machine for
    longer slows both."""
    gains = Timing(
        tuple(theirs / own for own, theirs in zip(ours.seconds, stock.seconds, strict=True))
    )
    return ours.median * (1 + NOISE) < stock.median and gains.quartiles[0] > 1


def _checked(
    problem: Problem, device: Device, wrong: set[str], too_large: set[str]
) -> dict[str, Run]:
    """The candidates that compute what they should, ready to be timed; notes the others. Stock
    comes first."""
    size = _input_bytes(problem)
    if 3 * size > free_memory():
        too_large.add("inputs")
        return {}
    configuration = _configuration(problem)
    inputs = _inputs(problem)
    check = make_check(configuration, inputs)
    mask = inputs.mask if isinstance(inputs.mask, mx.array) else None

    def run_of(attend: Callable[[Call], mx.array], cotangent: mx.array) -> list[mx.array]:
        def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return attend(Call(problem, q, k, v, inputs.scale, mask, inputs.sinks))

        return run_phase(configuration, attention, inputs, cotangent)

    attends: dict[str, tuple[Attend, int]] = {STOCK: (stock.call, stock_memory(problem, device))}
    for route, block_size in candidates(problem, device):
        if route not in (native, unfused, reference):
            attend = route.attend(problem, device, block_size)
            attends[route.name] = attend, route.extra_memory(problem, device, block_size)
    runs: dict[str, Run] = {}
    stock_error: float | None = None
    for name, (attend, memory) in attends.items():
        try:
            # Not merely tried: with too large an allocation, MLX's CPU backend ends the process.
            if size + memory * (_TRAINING if problem.training else 1) > free_memory():
                raise MemoryError
            results = run_of(attend, check.cotangent)
            mx.eval(results)
            error = check.error(results)
            del results
        except (MemoryError, RuntimeError) as failure:
            if not is_out_of_memory(failure):
                raise
            mx.clear_cache()
            too_large.add(name)
            continue
        if name == STOCK:
            stock_error = error
        elif not error <= error_budget(configuration, check, stock_error):
            wrong.add(name)
            continue
        runs[name] = partial(run_of, attend, inputs.cotangent)
    return runs


def _configuration(p: Problem) -> Configuration:
    """What the check needs to know of a problem: lengths, heads, type and phase."""
    phase = "train" if p.training else "decode" if p.query_length < p.key_length else "prefill"
    return Configuration(
        p.batch, p.key_length, p.head_dim, p.query_heads, p.key_heads, p.dtype, p.mask, phase
    )


def _input_bytes(p: Problem) -> int:
    """Of q, k, v, mask, output and cotangent."""
    queries = p.query_heads * p.query_length * (p.head_dim + 2 * p.value_head_dim)
    keys = p.key_heads * p.key_length * (p.head_dim + p.value_head_dim)
    return p.item_bytes * (
        p.batch * (queries + keys) + (p.query_length * p.key_length if p.mask != "none" else 0)
    )


def _inputs(p: Problem) -> Inputs:
    """Random inputs of the problem, evaluated. A mask of unknown structure is `[L, S]`, spread to
    the problem's shape, and hides a tenth of the keys, never a query's own."""
    mx.random.seed(0)
    dtype: mx.Dtype = getattr(mx, p.dtype)
    shapes = (
        (p.batch, p.query_heads, p.query_length, p.head_dim),
        (p.batch, p.key_heads, p.key_length, p.head_dim),
        (p.batch, p.key_heads, p.key_length, p.value_head_dim),
        (p.batch, p.query_heads, p.query_length, p.value_head_dim),
    )
    q, k, v, cotangent = (mx.random.normal(shape).astype(dtype) for shape in shapes)
    sinks = mx.random.normal((p.query_heads,)).astype(dtype) if p.sinks else None
    array: mx.array | None = None
    key, position = (
        mx.arange(p.key_length),
        mx.arange(p.key_length - p.query_length, p.key_length)[:, None],
    )
    if p.mask == "causal":
        array = key <= position
    elif p.structure is not None:
        array = as_array(p.structure, p.query_length, p.key_length)
    elif p.mask != "none":
        rows = p.query_length if len(p.mask_shape) > 1 and p.mask_shape[-2] > 1 else 1
        seen = (mx.random.uniform(shape=(rows, p.key_length)) < 0.9) | (key == position[-rows:])
        array = mx.broadcast_to(seen, (p.query_length, p.key_length))
        if p.mask == "additive":
            array = mx.where(array, 0.0, -1e4).astype(dtype)
    mask = "causal" if p.mask == "causal" else array
    if p.mask in ("bool", "additive") and array is not None:
        mask = mx.broadcast_to(
            array[: p.mask_shape[-2] if len(p.mask_shape) > 1 else 1], p.mask_shape
        )
    inputs = Inputs(q, k, v, mask, array, cotangent, sinks)
    mx.eval(*(x for x in vars(inputs).values() if isinstance(x, mx.array)))
    return inputs
