"""How far the fused call and the attention by hand are from the exact result: outputs and
gradients, in each type."""

from __future__ import annotations

import ast
import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flash_codemods.handwritten.operations import CORE
from flash_codemods.handwritten.proving.cases import UNFIT, Made
from flash_codemods.handwritten.proving.missing import NotEvaluable
from flash_codemods.handwritten.proving.versions import Version

TYPES = ("float32", "bfloat16", "float16")
_EPS = {"float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10}
# What rounding in another order may come to, in the error of an independent run.
_BUDGET = 4
_EXACT = dict.fromkeys(TYPES, "float64")


class Comparison:
    """The largest errors over all inputs that were compared."""

    def __init__(self, mx: Any, old: Version, new: Version) -> None:
        self.mx = mx
        self.old = old
        self.new = new
        self.asks_for_float32 = any(
            isinstance(node, ast.expr) and old.names.full(node) == f"{CORE}.float32"
            for statement in [*old.suite, *old.functions.values()]
            for node in ast.walk(statement)
        )
        self.narrower = False
        """Whether the output keeps 16 bits where a constant by hand made it float32."""
        self.error = 0.0
        """The largest difference of an output in float32."""
        self._errors: dict[tuple[str, str], tuple[float, float]] = {}
        """By type, and output or gradients: the largest errors of the fused call and by hand, as
        parts of the result's size."""

    def compare(self, case: dict[str, Made], seed: int) -> str | None:
        """Notes how far both versions are from the exact result in each type; why they can't be
        compared, if so."""
        mx = self.mx
        inputs = {kind: arrays(mx, case, kind, seed) for kind in (*TYPES, "float64")}
        exact = self._results(self.old, case, inputs["float64"], _EXACT)
        if exact is None:
            return "it can't be evaluated in float64"
        sizes = [mx.abs(right).max() for right in exact.arrays]
        off: dict[str, tuple[list[_Distance], list[list[_Distance]]]] = {}
        by_hand = None
        for kind in TYPES:
            hand = self._results(self.old, case, inputs[kind], None)
            # Where the author asks for float32, the same in the type itself.
            low = None
            if self.asks_for_float32 and kind != "float32":
                low = self._results(self.old, case, inputs[kind], {"float32": kind})
            fused = self._results(self.new, case, inputs[kind], None)
            if fused is None:
                return f"the fused call does not take {kind}"
            if hand is not None and hand.dtype != fused.dtype:
                if (hand.dtype, fused.dtype) != (mx.float32, getattr(mx, kind)):
                    return f"of {kind} comes {_name(fused.dtype)} where {_name(hand.dtype)} came"
                self.narrower = True
            independent = [self._distances(of, exact) for of in (hand, low) if of is not None]
            off[kind] = (self._distances(fused, exact), independent)
            if kind == "float32" and hand is not None:
                by_hand = _Distance(mx, fused.arrays[0], hand.arrays[0])
        measured = [by_hand] if by_hand is not None else []
        for own, others in off.values():
            measured += own
            for distances in others:
                measured += distances
        # At once: each evaluation of its own has to wait for another thread.
        try:
            mx.eval(sizes, [distance.largest for distance in measured])
        except UNFIT as error:
            return f"it can't be evaluated: {error}"
        for kind, (own, others) in off.items():
            for index, size in enumerate(sizes):
                errors = [of[index].number() for of in others]
                self._note(
                    (kind, "gradients" if index else "outputs"),
                    own[index].number() / max(size.item(), 0.1),
                    max(errors, default=0.0) / max(size.item(), 0.1),
                )
        if by_hand is not None:
            self.error = max(self.error, by_hand.number())
        return None

    def beyond_budget(self) -> str | None:
        """Where the fused call is further from the exact result than rounding explains: by more
        than a few times what the attention by hand is, in the same type."""
        for (kind, what), (off, independent) in self._errors.items():
            if off > _BUDGET * independent + 4 * _EPS[kind]:
                return f"in {kind} the {what} differ by {off:.1e} of their size"
        return None

    def _note(self, where: tuple[str, str], off: float, independent: float) -> None:
        before = self._errors.get(where, (0.0, 0.0))
        finite = independent if math.isfinite(independent) else 0.0
        self._errors[where] = (max(before[0], off), max(before[1], finite))

    def _results(
        self,
        version: Version,
        case: dict[str, Made],
        inputs: dict[str, Any],
        types: dict[str, str] | None,
    ) -> _Results | None:
        """The output, and the gradients of queries, keys, values and biases, in float64, not
        evaluated yet; None where a type does not go through."""
        mx = self.mx
        differentiated = [key for key, made in case.items() if made.kind in ("array", "bias")]

        def loss(*values: Any) -> tuple[Any, Any]:
            given = {**inputs, **dict(zip(differentiated, values, strict=True))}
            out, _ = version.run(mx, given, types)
            return (out * _weights(mx, tuple(out.shape)).astype(out.dtype)).sum(), out

        function = mx.value_and_grad(loss, argnums=list(range(len(differentiated))))
        try:
            (_, out), gradients = function(*(inputs[key] for key in differentiated))
        except UNFIT:
            return None
        gradients = gradients if isinstance(gradients, tuple | list) else [gradients]
        return _Results([array.astype(mx.float64) for array in (out, *gradients)], out.dtype)

    def _distances(self, some: _Results, others: _Results) -> list[_Distance]:
        pairs = zip(some.arrays, others.arrays, strict=True)
        return [_Distance(self.mx, one, other) for one, other in pairs]


@dataclass(frozen=True)
class _Results:
    """An output and gradients in float64, and the type that the output had."""

    arrays: list[Any]
    dtype: Any


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("mlx.core.")


@lru_cache(maxsize=64)
def _weights(mx: Any, shape: tuple[int, ...]) -> Any:
    """What makes a loss of an output: another factor for each number."""
    return mx.sin(mx.arange(math.prod(shape), dtype=mx.float32) * 0.7).reshape(shape)


class _Distance:
    """The largest difference of two arrays; `largest` is an array, to be evaluated with others."""

    def __init__(self, mx: Any, one: Any, other: Any) -> None:
        self.mx = mx
        self.pair = one, other
        same = one.shape == other.shape
        self.largest = mx.abs(one - other).max() if same else mx.array(math.inf)

    def number(self) -> float:
        """Infinite where the shapes differ, or one has a number where the other has none."""
        mx = self.mx
        off = float(self.largest.item())
        if math.isnan(off):
            one, other = self.pair
            neither = mx.logical_and(mx.isnan(one), mx.isnan(other))
            zero = mx.array(0.0, one.dtype)
            off = float(mx.where(neither, zero, mx.abs(one - other)).max().item())
        return math.inf if math.isnan(off) else off


def arrays(mx: Any, case: dict[str, Made], kind: str, seed: int) -> dict[str, Any]:
    """The inputs of a case in one of the types, the same numbers in each."""
    return {
        key: _typed(mx, made, zlib.crc32(f"{seed} {key}".encode()), kind)
        for key, made in case.items()
    }


@lru_cache(maxsize=1 << 10)
def _drawn(mx: Any, made: Made, seed: int) -> Any:
    """Random numbers that every type has, or which keys are seen; made once for all types."""
    if made.kind in ("number", "choice"):
        return made.value
    shape = made.value
    random_key = mx.random.key(seed)
    if made.kind in ("array", "bias"):
        return mx.random.normal(shape, key=random_key).astype(mx.bfloat16)
    seen = mx.random.bernoulli(0.7, shape, key=random_key)
    column = mx.arange(shape[-1]) == 0
    return mx.logical_or(seen, column)  # every row sees a key


@lru_cache(maxsize=1 << 10)
def _typed(mx: Any, made: Made, seed: int, kind: str) -> Any:
    drawn, dtype = _drawn(mx, made, seed), getattr(mx, kind)
    if made.kind in ("array", "bias"):
        return drawn.astype(dtype)
    if made.kind == "marks":
        return drawn.astype(mx.int32)
    if made.kind == "hides":
        return mx.where(drawn, mx.array(0.0, dtype), mx.array(-math.inf, dtype))
    return drawn


def unseen_row(mx: Any, old: Version, new: Version, case: dict[str, Made], seed: int) -> str | None:
    """What both versions give for a row that sees no key, in float32; None where no mask of the
    case can hide one."""
    hiding = [key for key, made in case.items() if made.kind in ("seen", "hides")]
    if len(hiding) != 1:
        return None
    inputs = arrays(mx, case, "float32", seed)
    of = inputs[hiding[0]]
    nothing = mx.zeros_like(of) if of.dtype == mx.bool_ else mx.full(of.shape, -math.inf)
    inputs[hiding[0]] = nothing
    try:
        results = [version.run(mx, inputs)[0].astype(mx.float32) for version in (old, new)]
        mx.eval(results)
        said = [_kind_of_row(result.reshape(-1).tolist()) for result in results]
    except (NotEvaluable, *UNFIT):
        return None
    if said[0] == said[1]:
        return f"a query whose keys are all masked gives {said[0]}, as before"
    return f"a query whose keys are all masked gives {said[1]}, not {said[0]} as before"


def _kind_of_row(values: list[float]) -> str:
    if any(math.isnan(value) for value in values):
        return "NaN"
    if all(value == 0 for value in values):
        return "zeros"
    return "the mean of the values"
