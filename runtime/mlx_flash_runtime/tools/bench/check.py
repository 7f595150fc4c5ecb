"""Whether attention is right: held against attention written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import mlx.core as mx

from ...ops.written_out import attention, attention_and_weights
from ...planning.machine import current_device
from ...problem import Device, Problem
from .inputs import Inputs

# softmax(scale * q @ k.T + mask) @ v as a function of q, k, v alone.
Attend = Callable[[mx.array, mx.array, mx.array], mx.array]


def run_phase(
    problem: Problem, attend: Attend, inputs: Inputs, cotangent: mx.array
) -> list[mx.array]:
    """The output `[B, H, L, D_v]`; in training the gradients of q, k, v with it."""
    arrays = [inputs.q, inputs.k, inputs.v]
    if not problem.training:
        return [attend(*arrays)]
    outputs, gradients = mx.vjp(lambda q, k, v: [attend(q, k, v)], arrays, [cotangent])
    return [*outputs, *gradients]


# Scores of the float64 truth, which the CPU computes: enough of them to take about a second.
_CHECKED_SCORES = 2**22
# The smallest difference between 1 and the next number.
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Check:
    """The float64 result for some of the queries (all of them while they are few), the cotangent
    that is zero for the others, so that the gradients depend on no more than those, and the error
    of plain attention for them in the inputs' own type on this device: an independent run at the
    same precision."""

    rows: list[int]
    cotangent: mx.array
    expected: list[mx.array]
    rounding: float = 0.0

    def error(self, results: list[mx.array]) -> float:
        """The largest difference of any result from float64, relative to the largest element
        there; NaN if any is."""
        errors = []
        with mx.stream(mx.cpu):
            rows = mx.array(self.rows)
            for index, (result, expected) in enumerate(zip(results, self.expected, strict=True)):
                # Output and gradient of q go by query, those of k and v by key.
                own = mx.take(result, rows, axis=2) if index < 2 else result
                errors.append(_largest_difference(own.astype(mx.float64), expected))
        return max(errors) if all(map(math.isfinite, errors)) else math.nan


def _largest_difference(result: mx.array, expected: mx.array) -> float:
    """Relative to the largest element that is expected."""
    largest = (mx.abs(result - expected) / mx.abs(expected).max()).max()
    return float(largest.item())  # type: ignore[arg-type]  # typed in MLX's stubs as maybe complex


def make_check(problem: Problem, inputs: Inputs, scores: int = _CHECKED_SCORES) -> Check:
    """Computes attention written out for the checked queries, of so many scores, in float64 on the
    CPU and in their own type on this device."""
    rows = _checked_rows(problem, scores)
    chosen = mx.array(rows)
    selected = (mx.arange(problem.query_length)[:, None] == chosen).any(axis=1)[:, None]
    cotangent = mx.where(selected, inputs.cotangent, 0).astype(inputs.cotangent.dtype)
    few = _of_queries(inputs, chosen)
    narrow = _written_out(problem, few)
    mx.eval(cotangent, narrow)
    tf32 = _is_tf32(problem)  # on this device: below, the CPU is the default one
    with mx.stream(mx.cpu):
        expected = _written_out(problem, _in_float64(few))
        rounded = _multiplied_as_tf32(problem, few) if tf32 else narrow
        mx.eval(expected, rounded)
    every = Check(list(range(len(rows))), cotangent, expected)
    rounding = max(every.error(narrow), every.error(rounded))
    return Check(rows, cotangent, expected, rounding)


def multiplies_as_tf32(device: Device) -> bool:
    """Whether MLX multiplies matrices of float32 as TF32 on a device, at least large ones."""
    return device.tf32 and (device.nax or device.backend == "cuda")


def _is_tf32(problem: Problem) -> bool:
    """Whether MLX multiplies the problem's numbers as TF32 here, though not in plain attention for
    a few of its queries: a Mac's matrix units (M5) are for larger products, and cuBLAS multiplies
    some shapes, as of odd lengths, in float32."""
    return problem.dtype == "float32" and multiplies_as_tf32(current_device())


def _multiplied_as_tf32(problem: Problem, inputs: Inputs) -> list[mx.array]:
    """Plain attention whose two products have their terms rounded to TF32."""

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        _, weights = attention_and_weights(
            q, k, v, scale=inputs.scale, mask=inputs.mask, sinks=inputs.sinks
        )
        # Rounding has no gradient of its own.
        weights = weights + mx.stop_gradient(to_ten_bits(weights) - weights)
        return weights @ mx.repeat(v, q.shape[1] // v.shape[1], axis=1)

    rounded = _in_tf32(inputs)
    return run_phase(problem, attend, rounded, rounded.cotangent)


def _in_tf32(inputs: Inputs) -> Inputs:
    rounded = {}
    for name, value in vars(inputs).items():
        is_number = isinstance(value, mx.array) and value.dtype == mx.float32
        rounded[name] = to_ten_bits(value) if is_number else value
    return Inputs(**rounded)


def to_ten_bits(x: mx.array) -> mx.array:
    """Numbers in float32 rounded to TF32: of the 23 bits after the leading one, the first 10."""
    return ((x.view(mx.uint32) + 0x1000) & 0xFFFFE000).view(mx.float32)


def _checked_rows(problem: Problem, scores: int) -> list[int]:
    """The queries that are checked: all, or so many of them from the first to the last."""
    last = problem.query_length - 1
    scores_of_one = problem.score_count // problem.query_length
    count = max(1, min(problem.query_length, scores // scores_of_one))
    return sorted({round(i * last / max(1, count - 1)) for i in range(count)})


def _of_queries(inputs: Inputs, chosen: mx.array) -> Inputs:
    """Inputs of those queries alone."""
    mask = inputs.mask_array
    if mask is not None and mask.ndim > 1 and mask.shape[-2] > 1:
        mask = mx.take(mask, chosen, axis=-2)
    q, cotangent = (mx.take(x, chosen, axis=2) for x in (inputs.q, inputs.cotangent))
    return replace(inputs, q=q, mask=mask, cotangent=cotangent)


def _written_out(problem: Problem, inputs: Inputs) -> list[mx.array]:
    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return attention(q, k, v, scale=inputs.scale, mask=inputs.mask, sinks=inputs.sinks)

    return run_phase(problem, attend, inputs, inputs.cotangent)


def _in_float64(inputs: Inputs) -> Inputs:
    wide = {}
    for name, value in vars(inputs).items():
        is_number = isinstance(value, mx.array) and value.dtype != mx.bool_
        wide[name] = value.astype(mx.float64) if is_number else value
    return Inputs(**wide)


def error_budget(problem: Problem, check: Check, stock_error: float | None) -> float:
    """The error that a correct result may have: twice that of MLX's own attention in the same type
    on the same device, or of plain attention or of one rounding to the type where those are
    larger; three times with gradients, whose scores are computed again. Flash Attention's own
    tests allow the same factors over plain attention."""
    factor = 3 if problem.training else 2
    return factor * max(stock_error or 0.0, check.rounding, _EPSILON[problem.dtype])


class WrongResult(Exception):
    """A candidate does not compute attention; the message says which, of what, and how far off."""


def need_right(
    problem: Problem,
    inputs: Inputs,
    attends: Mapping[str, Attend],
    scores: int = _CHECKED_SCORES,
) -> None:
    """Raises WrongResult where the error of one of them, in training that of its gradients too,
    exceeds `error_budget`; that of MLX's own attention, `stock`, is part of the budget. Checked
    for queries that have so many scores."""
    check = make_check(problem, inputs, scores)
    errors: dict[str, float] = {}
    for name, attend in attends.items():
        results = run_phase(problem, attend, inputs, check.cotangent)
        mx.eval(results)
        errors[name] = check.error(results)
    budget = error_budget(problem, check, errors.pop("stock", None))
    for name, error in errors.items():
        if not error <= budget:  # NaN is not, either
            raise WrongResult(f"{name}: error {error:.1e}, allowed {budget:.1e}: {problem}")
