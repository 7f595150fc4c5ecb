"""Two of MLX's transformations, one over the other, over every route: against attention in float64,
whose own derivatives are exact, and differences of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arithmetic import rounding
from attention64 import Array
from attention64 import attention as attention64
from attention_cases import Call, Case, make, wide
from ways import WAYS, Way, each, skip_where_jvp_is_wrong

# Of the inputs of a call, to a list of outputs.
Function = Callable[..., list[mx.array]]

_STEP = 1e-4  # what a difference is taken over: its own error is of the order of the square
_TOLERANCE = max(1e-4, 8 * rounding(mx.float32))  # the second where MLX multiplies as TF32


def weights(x: Any) -> Any:
    """Numbers of the shape of `x` that are no multiples of each other."""
    numbers = np.cos(np.arange(x.size, dtype=np.float64)).reshape(x.shape)
    return mx.array(numbers, x.dtype) if isinstance(x, mx.array) else numbers


def linear(outputs: list[Any]) -> Any:
    """The number that `vjp` gives the gradient of."""
    return sum((weights(x) * x).sum() for x in outputs)


def curved(outputs: list[Any]) -> Any:
    """The number that `grad` gives the gradient of, which depends on the outputs."""
    return sum((weights(x) * x + x * x / 2).sum() for x in outputs)


# MLX's transformations: each makes a function of the same inputs of one.


def listed(outputs: Any) -> list[mx.array]:
    return [outputs] if isinstance(outputs, mx.array) else list(outputs)


def grad(function: Function) -> Function:
    def run(*primals: mx.array) -> list[mx.array]:
        every = tuple(range(len(primals)))
        return listed(mx.grad(lambda *inputs: curved(function(*inputs)), every)(*primals))

    return run


def vjp(function: Function) -> Function:
    def run(*primals: mx.array) -> list[mx.array]:
        cotangents = [mx.stop_gradient(weights(x)) for x in function(*primals)]
        return listed(mx.vjp(function, list(primals), cotangents)[1])

    return run


def jvp(function: Function) -> Function:
    def run(*primals: mx.array) -> list[mx.array]:
        return listed(mx.jvp(function, list(primals), [weights(x) for x in primals])[1])

    return run


def vmap(function: Function) -> Function:
    return lambda *primals: listed(mx.vmap(function)(*(mx.stack([x, -x]) for x in primals)))


def compiled(function: Function) -> Function:
    return lambda *primals: listed(mx.compile(function)(*primals))


def checkpoint(function: Function) -> Function:
    return lambda *primals: listed(mx.checkpoint(function)(*primals))


# The same in float64.


@dataclass(frozen=True)
class Exact:
    """A function of arrays, and its vjp where that is known without differences."""

    value: Callable[[list[Array]], list[Array]]
    pull: Callable[[list[Array], list[Array]], list[Array]] | None = None


def difference(
    function: Callable[[list[Array]], list[Array]], at: list[Array], by: list[Array]
) -> list[Array]:
    """The derivative of `function` in the direction `by`."""

    def moved(step: float) -> list[Array]:
        return function([x + step * dx for x, dx in zip(at, by, strict=True)])

    pairs = zip(moved(_STEP), moved(-_STEP), strict=True)
    return [(after - before) / (2 * _STEP) for after, before in pairs]


def exact_grad(function: Exact) -> Exact:
    def value(primals: list[Array]) -> list[Array]:
        assert function.pull is not None
        return function.pull(primals, [weights(x) + x for x in function.value(primals)])

    return Exact(value)


def exact_vjp(function: Exact) -> Exact:
    def value(primals: list[Array]) -> list[Array]:
        assert function.pull is not None
        return function.pull(primals, [weights(x) for x in function.value(primals)])

    return Exact(value)


def exact_jvp(function: Exact) -> Exact:
    return Exact(lambda primals: difference(function.value, primals, [weights(x) for x in primals]))


def exact_vmap(function: Exact) -> Exact:
    pull = function.pull

    def value(primals: list[Array]) -> list[Array]:
        pairs = zip(function.value(primals), function.value([-x for x in primals]), strict=True)
        return [np.stack(pair) for pair in pairs]

    def pull_both(primals: list[Array], cotangents: list[Array]) -> list[Array]:
        assert pull is not None
        plus = pull(primals, [x[0] for x in cotangents])
        minus = pull([-x for x in primals], [x[1] for x in cotangents])
        return [x - y for x, y in zip(plus, minus, strict=True)]

    return Exact(value, pull_both if pull else None)


def same(function: Exact) -> Exact:
    return function


TRANSFORMS: dict[str, tuple[Callable[[Function], Function], Callable[[Exact], Exact]]] = {
    "grad": (grad, exact_grad),
    "vjp": (vjp, exact_vjp),
    "jvp": (jvp, exact_jvp),
    "vmap": (vmap, exact_vmap),
    "compile": (compiled, same),
    "checkpoint": (checkpoint, same),
}
NUMBERS = {"grad": curved, "vjp": linear}


def in_float64(call: Call) -> Exact:
    """Attention as the case has it, by its definition."""
    mask = np.array(call.mask) if isinstance(call.mask, mx.array) else call.mask

    def both(primals: list[Array], cotangent: Array) -> list[Array]:
        q, k, v, *rest = primals
        own = rest[0] if call.additive else mask
        sinks = rest[-1] if call.sinks else None
        return attention64(q, k, v, call.scale, own, sinks, cotangent, call.softcap)

    def value(primals: list[Array]) -> list[Array]:
        return both(primals, np.zeros((1, 1, 1, 1)))[:1]

    return Exact(value, lambda primals, cotangents: both(primals, cotangents[0])[1:])


def assert_close(own: Any, wanted: Any, size: float) -> None:
    error = float(np.abs(own - wanted).max())
    assert error <= _TOLERANCE * size, f"error {error:.1e} in numbers up to {size:.1e}"


@pytest.mark.parametrize("inner", TRANSFORMS)
@pytest.mark.parametrize("outer", TRANSFORMS)
@pytest.mark.parametrize(("way", "case"), each(WAYS))
def test_a_composition_is_that_of_the_definition(
    way: Way, case: Case, outer: str, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "jvp" in (outer, inner):
        skip_where_jvp_is_wrong(case)
    call = make(case, mx.float32)
    attention = call.function(way.attention(case, monkeypatch))
    over, over64 = TRANSFORMS[outer]
    under, under64 = TRANSFORMS[inner]
    own = [wide(x) for x in over(under(lambda *primals: [attention(*primals)]))(*call.primals)]
    primals = [wide(x) for x in call.primals]
    function = under64(in_float64(call))
    if outer not in NUMBERS or function.pull is not None:
        for x, y in zip(own, over64(function).value(primals), strict=True):
            assert x.shape == y.shape
            assert_close(x, y, float(np.abs(y).max()))
        return

    def number(primals: list[Array]) -> list[Array]:
        return [NUMBERS[outer](function.value(primals))]

    # Without an exact gradient of it, a gradient in some directions.
    random = np.random.default_rng(0)
    for i, gradient in enumerate(own):
        direction = [np.zeros_like(x) for x in primals]
        for _ in range(3):
            direction[i] = random.choice([-1.0, 1.0], gradient.shape)
            along = float((gradient * direction[i]).sum())
            assert_close(along, difference(number, primals, direction)[0], np.abs(gradient).sum())
