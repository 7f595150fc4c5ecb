"""Attention calls to test, and the comparison of one route's answers with the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from arithmetic import rounding
from attention64 import Array, sum_to
from attention64 import attention as attention64

from mlx_flash_runtime.planning import machine
from mlx_flash_runtime.problem import Attend, Device, Problem
from mlx_flash_runtime.problem import Call as RouteCall
from mlx_flash_runtime.problem.masks import packed_mask, prefix_mask, window_mask

Function = Callable[..., mx.array]


@dataclass(frozen=True)
class Case:
    """One call: `mask` is None, "causal", ("bool", shape), ("additive", shape), ("rows hidden",
    shape) or a mask of known structure: ("window", (size,)), ("prefix", (length,)), ("segments",
    lengths)."""

    query_length: int
    key_length: int
    heads: int = 2
    key_heads: int = 2
    head_dim: int = 16
    value_head_dim: int = 16
    batch: int = 1
    mask: Any = None
    sinks: bool = False
    block_size: int = 32
    softcap: float | None = None

    def __str__(self) -> str:
        mask = (
            self.mask
            if isinstance(self.mask, str)
            else "dense"
            if self.mask is None
            else self.mask[0]
        )
        shape = (
            ""
            if self.mask is None or isinstance(self.mask, str)
            else "x".join(map(str, self.mask[1]))
        )
        sinks = "-sinks" if self.sinks else ""
        softcap = "-softcap" if self.softcap else ""
        sizes = f"{self.query_length}x{self.key_length}-{self.heads}/{self.key_heads}"
        return f"{sizes}-{mask}{shape}{sinks}{softcap}"


STRUCTURED: dict[str, Callable[[Case, tuple[int, ...]], mx.array]] = {
    "window": lambda case, shape: window_mask(case.query_length, *shape, case.key_length),
    "prefix": lambda case, shape: prefix_mask(case.query_length, *shape),
    "segments": lambda case, shape: packed_mask(shape),
}


@dataclass
class Call:
    """The arrays of one case. `primals` are those with a gradient: q, k, v, then an additive mask,
    then sinks."""

    primals: list[mx.array]
    mask: mx.array | str | None
    cotangent: mx.array
    scale: float
    sinks: bool
    block_size: int
    softcap: float | None = None

    @property
    def additive(self) -> bool:
        return isinstance(self.mask, mx.array) and self.mask.dtype != mx.bool_

    def function(self, attention: Function) -> Callable[..., mx.array]:
        """`attention` as a function of the primals."""

        def of_primals(*primals: mx.array) -> mx.array:
            q, k, v, *rest = primals
            mask = rest[0] if self.additive else self.mask
            return attention(
                q, k, v, scale=self.scale, mask=mask, sinks=rest[-1] if self.sinks else None
            )

        return of_primals


def make(case: Case, dtype: mx.Dtype, seed: int = 0) -> Call:
    """Random arrays for `case`."""
    keys = iter(mx.random.split(mx.random.key(seed), 8))

    def normal(*shape: int) -> mx.array:
        return mx.random.normal(shape, key=next(keys)).astype(dtype)

    primals = [
        normal(case.batch, case.heads, case.query_length, case.head_dim),
        normal(case.batch, case.key_heads, case.key_length, case.head_dim),
        normal(case.batch, case.key_heads, case.key_length, case.value_head_dim),
    ]
    cotangent = normal(case.batch, case.heads, case.query_length, case.value_head_dim)
    mask: mx.array | str | None = case.mask if isinstance(case.mask, str) else None
    if isinstance(case.mask, tuple):
        kind, shape = case.mask
        if kind in STRUCTURED:
            mask = STRUCTURED[kind](case, shape)
        elif kind == "additive":
            mask = normal(*shape)
            primals.append(mask)
        else:
            mask = mx.random.uniform(shape=shape, key=next(keys)) < 0.7
            if kind == "rows hidden":  # every third query sees nothing
                mask &= (mx.arange(shape[-2]) % 3 != 0)[:, None]
    if case.sinks:
        primals.append(normal(case.heads))
    mx.eval(primals, cotangent)
    return Call(
        primals, mask, cotangent, case.head_dim**-0.5, case.sinks, case.block_size, case.softcap
    )


def runner(
    route: Any,
    block_size: int | None,
    softcap: float | None = None,
    training: bool = False,
    dtype: str | None = None,
) -> Function:
    """`route` as a function of the arguments of MLX's own; `dtype` is what the problem says of
    their type, where it is not the truth: a device may have fused kernels for half precision
    alone, and a test may want more."""

    attends: dict[tuple[Problem, Device], Attend] = {}

    def attention(
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        mask: Any = None,
        sinks: mx.array | None = None,
    ) -> mx.array:
        problem = Problem.of(q, k, v, mask, sinks, softcap=softcap, training=training)
        assert problem is not None
        if dtype is not None:
            problem = replace(problem, dtype=dtype)
        array = mask if isinstance(mask, mx.array) and problem.has_array_mask else None
        at = problem, machine.current_device()
        if at not in attends:
            attends[at] = route.attend(*at, block_size)
        return attends[at](RouteCall(problem, q, k, v, scale, array, sinks))

    return attention


def answers(attention: Function, call: Call) -> list[mx.array]:
    """Output and gradients of the primals."""
    outputs, gradients = mx.vjp(call.function(attention), call.primals, [call.cotangent])
    return [*outputs, *gradients]


def expected(call: Call) -> list[Array]:
    """The same in float64."""
    return _in_float64(call)


def _magnitudes(call: Call) -> list[Array]:
    """For each number of the answers, the terms that it sums up, by their magnitude."""
    return _in_float64(call, magnitudes=True)


def _in_float64(call: Call, magnitudes: bool = False) -> list[Array]:
    q, k, v, *rest = (wide(x) for x in call.primals)
    mask = (
        rest[0]
        if call.additive
        else np.array(call.mask)
        if isinstance(call.mask, mx.array)
        else call.mask
    )
    sinks = rest[-1] if call.sinks else None
    return attention64(
        q, k, v, call.scale, mask, sinks, wide(call.cotangent), call.softcap, magnitudes
    )


def neighbour(call: Call, seed: int) -> Call:
    """The call with every number of its primals one rounding error away, up or down."""
    random = np.random.default_rng(seed)
    error = rounding(call.primals[0].dtype)
    moved = [
        mx.array(wide(x) * (1 + error * random.choice([-1, 1], x.shape)), x.dtype)
        for x in call.primals
    ]
    mask = moved[3] if call.additive else call.mask
    return replace(call, primals=moved, mask=mask)


def wide(x: mx.array) -> Array:
    """`x` in float64."""
    return np.array(x.astype(mx.float32)).astype(np.float64)


def assert_as_exact_as(independent: Function, attention: Function, call: Call) -> None:
    """Holds `attention` to the errors that `independent`, another implementation, makes in the
    same precision."""
    assert_within(budgets(independent, call), attention, call)


@dataclass(frozen=True)
class Budget:
    """What one answer is in float64, and the largest error that it may have."""

    wanted: Array
    dtype: mx.Dtype
    error: float


def budgets(independent: Function, call: Call) -> list[Budget]:
    """For each answer, the errors that `independent` makes in the precision of the call.

    They are those of four runs, on inputs one rounding error apart. Where they happen to be small,
    such a rounding error counts as well, one of the answer, and one in float32 of every term that
    an answer sums up: the gradient of a score is a difference, which each implementation takes of
    other sums. The largest error may be 3 times as large: the order of the additions is each
    implementation's own.
    """
    runs = [call, *(neighbour(call, seed) for seed in range(3))]
    exact = [expected(run) for run in runs]
    others = [answers(independent, run) for run in runs]
    precision, single = rounding(call.primals[0].dtype), rounding(mx.float32)
    found = []
    for i, (wanted, summed, terms) in enumerate(
        zip(exact[0], _magnitudes(call), _terms(call), strict=True)
    ):
        errors = [wide(other[i]) - right[i] for other, right in zip(others, exact, strict=True)]
        errors += [precision * wanted, single * summed, *(right[i] - wanted for right in exact[1:])]
        found.append(
            Budget(wanted, others[0][i].dtype, 3 * max(precision * terms, *map(_largest, errors)))
        )
    return found


def assert_within(budgets: list[Budget], attention: Function, call: Call) -> None:
    """Holds `attention` to the budgets of its answers."""
    for i, (own, budget) in enumerate(zip(answers(attention, call), budgets, strict=True)):
        assert own.dtype == budget.dtype
        assert own.shape == budget.wanted.shape
        error = _largest(wide(own) - budget.wanted)
        assert error <= budget.error, f"answer {i}: error {error:.2e}, budget {budget.error:.2e}"


def _terms(call: Call) -> list[float]:
    """For each answer, the magnitudes that one of its numbers sums up: of an additive mask's
    gradient those of the scores that share a number of the mask; 1 for the others, whose terms are
    of the order of the inputs."""
    terms = [1.0] * (1 + len(call.primals))
    if call.additive:
        q, k, v, mask, *sinks = (wide(x) for x in call.primals)
        full = np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))
        cotangent = wide(call.cotangent)
        gradients = attention64(
            q, k, v, call.scale, full, sinks[0] if sinks else None, cotangent, call.softcap
        )
        terms[4] = max(1.0, _largest(sum_to(np.abs(gradients[4]), mask.shape)))
    return terms


def _largest(x: Array) -> float:
    return float(np.abs(x).max())


def assert_output_as_exact_as(independent: Function, attention: Function, call: Call) -> None:
    """The same of the output alone, outside of gradients: a kernel may not run in those."""
    budget = budgets(independent, call)[0]
    own = call.function(attention)(*call.primals)
    assert own.dtype == budget.dtype
    assert own.shape == budget.wanted.shape
    error = _largest(wide(own) - budget.wanted)
    assert error <= budget.error, f"error {error:.2e}, budget {budget.error:.2e}"
