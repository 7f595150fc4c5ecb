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
from flash_codemods.handwritten.proving.cases import UNFIT, Case, Made
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
        self._retyped: str | None = None
        """Where the output's type is another, in any other way."""
        self.error = 0.0
        """The largest difference of an output in float32."""
        self._fused: dict[tuple[str, str], float] = {}
        self._by_hand: dict[tuple[str, str], float] = {}
        """By type, and output or gradients: the largest errors of the fused call and by hand, as
        parts of the result's size."""

    def compare(self, case: Case, seed: int) -> str | None:
        """Notes how far both versions are from the exact result in each type; why they can't be
        compared, if so."""
        mx = self.mx
        inputs = {kind: arrays(mx, case.inputs, kind, seed) for kind in (*TYPES, "float64")}
        exact = self._results(self.old, case, inputs["float64"], _EXACT)
        if exact is None:
            return "it can't be evaluated in float64"
        runs: list[_Run] = []
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
                    came, comes = _name(hand.dtype), _name(fused.dtype)
                    self._retyped = f"of {kind} comes {comes} where {came} came"
                self.narrower = True
            runs.append(_Run(kind, True, fused))
            runs += [_Run(kind, False, results) for results in (hand, low) if results is not None]
        return self._measure(runs, exact)

    def _measure(self, runs: list[_Run], exact: _Results) -> str | None:
        mx = self.mx
        sizes = [mx.where(mx.isnan(right), 0.0, mx.abs(right)).max() for right in exact.arrays]
        distances = [
            _Distances(mx, [run.results.arrays[index] for run in runs], right)
            for index, right in enumerate(exact.arrays)
        ]
        outputs = [run.results.arrays[0] for run in runs if run.kind == "float32"]
        by_hand = _Distances(mx, outputs[1:], outputs[0]) if len(outputs) > 1 else None
        # At once: each evaluation of its own has to wait for another thread.
        measured = distances if by_hand is None else [*distances, by_hand]
        try:
            mx.eval(sizes, [item.largest for item in measured])
        except UNFIT as error:
            return f"it can't be evaluated: {error}"
        for index, (size, of_runs) in enumerate(zip(sizes, distances, strict=True)):
            what = "gradients" if index else "outputs"
            numbers = of_runs.numbers()
            if not all(map(math.isfinite, numbers)):
                numbers = self._in_its_type(runs, index, numbers)
            for run, off in zip(runs, numbers, strict=True):
                self._note((run.kind, what), run.is_fused, off / max(size.item(), 0.1))
        if by_hand is not None:
            self.error = max(self.error, *by_hand.numbers())
        return None

    def _in_its_type(self, runs: list[_Run], index: int, numbers: list[float]) -> list[float]:
        """Distances, but of a fused call the one from what comes by hand in its type, where that
        has no numbers itself: `0 * -1e9` is none in float16."""
        by_hand: dict[str, tuple[_Run, float]] = {}
        for run, off in zip(runs, numbers, strict=True):
            if not run.is_fused:
                by_hand.setdefault(run.kind, (run, off))
        found = []
        for run, off in zip(runs, numbers, strict=True):
            hand, of_hand = by_hand.get(run.kind, (run, 0.0))
            if run.is_fused and math.isinf(of_hand):
                one, other = (item.results.arrays[index] for item in (run, hand))
                (off,) = _Distances(self.mx, [one], other).numbers()
            found.append(off)
        return found

    def difference(self) -> str | None:
        """Where the fused call gives another type, or is further from the exact result than
        rounding explains: by more than a few times what the attention by hand is, in the same
        type."""
        if self._retyped is not None:
            return self._retyped
        for (kind, what), off in self._fused.items():
            independent = self._by_hand.get((kind, what), 0.0)
            if off > _BUDGET * independent + 4 * _EPS[kind]:
                return f"in {kind} the {what} differ by {off:.1e} of their size"
        return None

    def _note(self, where: tuple[str, str], is_fused: bool, off: float) -> None:
        errors = self._fused if is_fused else self._by_hand
        if is_fused or math.isfinite(off):
            errors[where] = max(errors.get(where, 0.0), off)

    def _results(
        self,
        version: Version,
        case: Case,
        inputs: dict[str, Any],
        types: dict[str, str] | None,
    ) -> _Results | None:
        """The output, and the gradients of queries, keys, values and biases, not evaluated yet;
        None where a type does not go through."""
        mx = self.mx
        differentiated = [
            key for key, made in case.inputs.items() if made.kind in ("array", "bias")
        ]
        dtypes = []

        def output(*values: Any) -> Any:
            given = {**inputs, **dict(zip(differentiated, values, strict=True))}
            out, _ = version.run(mx, given, types)
            dtypes.append(out.dtype)
            return out.astype(mx.float64)

        primals = [inputs[key] for key in differentiated]
        try:
            outputs, gradients = mx.vjp(output, primals, [_cotangent(mx, case.shape)])
        except UNFIT:
            return None
        return _Results([*outputs, *gradients], dtypes[0])


@dataclass(frozen=True)
class _Results:
    """An output and gradients, and the type that the output had."""

    arrays: list[Any]
    dtype: Any


@dataclass(frozen=True)
class _Run:
    """The results of one version in one type."""

    kind: str
    is_fused: bool
    results: _Results


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("mlx.core.")


@lru_cache(maxsize=64)
def _cotangent(mx: Any, shape: tuple[int, ...]) -> Any:
    """The gradient that goes back from an output: another factor for each number."""
    factors = mx.sin(mx.arange(math.prod(shape), dtype=mx.float32) * 0.7)
    return factors.reshape(shape).astype(mx.float64)


class _Distances:
    """The largest difference of each of several arrays from one; `largest` is an array, to be
    evaluated with others."""

    def __init__(self, mx: Any, some: list[Any], one: Any) -> None:
        self.mx = mx
        self.one = one
        self.some = mx.stack(some)  # in a type that holds the numbers of all
        self.axes = list(range(1, self.some.ndim))
        self.largest = mx.abs(self.some - one).max(axis=self.axes)

    def numbers(self) -> list[float]:
        """Infinite where one array has a number where the other has none."""
        mx = self.mx
        found: list[float] = self.largest.tolist()
        if any(map(math.isnan, found)):
            neither = mx.logical_and(mx.isnan(self.some), mx.isnan(self.one))
            off = mx.where(neither, mx.array(0.0), mx.abs(self.some - self.one))
            found = off.max(axis=self.axes).tolist()
        return [math.inf if math.isnan(off) else off for off in found]


def arrays(mx: Any, inputs: dict[str, Made], kind: str, seed: int) -> dict[str, Any]:
    """Inputs in one of the types, the same numbers in each."""
    return {
        key: _typed(mx, made, zlib.crc32(f"{seed} {key}".encode()), kind)
        for key, made in inputs.items()
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
    # Every row sees a key, and hides one: which of both a mask says is the function's own.
    column = mx.arange(shape[-1])
    hides = mx.logical_and(column == shape[-1] - 1, column > 0)
    return mx.logical_and(mx.logical_or(seen, column == 0), mx.logical_not(hides))


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
