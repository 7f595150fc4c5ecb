"""Compares attention by hand with the fused call: outputs and gradients, on random inputs."""

from __future__ import annotations

import ast
import itertools
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flash_codemods.handwritten.operations import Names
from flash_codemods.handwritten.proving.cases import (
    ALL_SIZES,
    UNFIT,
    Made,
    Search,
    Sizes,
    kinds_of_inputs,
)
from flash_codemods.handwritten.proving.evaluator import (
    Evaluator,
    Missing,
    NotEvaluable,
)

_WANTED = 24
_PER_SIZES = 4
# What rounding in another order may come to, in the error of an independent run.
_BUDGET = 4
_TYPES = ("float32", "bfloat16", "float16")
_EPS = {"float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10}


@dataclass(frozen=True)
class Slice:
    """The statements of one version that the other has not, and the expression whose value is
    asked for."""

    suite: list[ast.stmt]
    target: ast.expr


@dataclass(frozen=True)
class Question:
    """Two versions of a function's attention. Text, so that another process can be asked."""

    old: str
    new: str
    function: tuple[str, ...]
    """The way to the function: the names of classes and functions around it, and its own."""
    index: int
    """Which of the functions with these names it is."""
    product: tuple[int, int, int, int]
    """Where weights times values stand in the old text: lines and columns."""
    call: str
    rank: int


@dataclass(frozen=True)
class Verdict:
    """How a proof ended. `error` is the largest difference of an output in float32, and `unseen`
    what becomes of a row that sees no key."""

    proved: bool
    inputs: int = 0
    error: float = 0.0
    reason: str = ""
    unseen: str = ""

    def text(self) -> str:
        if not self.proved:
            return f"matched by form ({self.reason})" if self.reason else "matched by form"
        off = f"within {self.error:.0e}" if self.error else "the same bit for bit"
        return f"proved on {self.inputs} random inputs, outputs {off}"


def prove(question: Question, avoid: tuple[str, ...]) -> Verdict:
    """The verdict on a rewrite. `avoid` are folders from which MLX is not to be imported: the
    repo's own."""
    try:
        mx = _import_mlx(avoid)
    except ImportError:
        return Verdict(False, reason="MLX is not installed here")
    mx.set_default_device(mx.cpu)
    try:
        return _Proof(mx, question).verdict()
    except RecursionError:
        return Verdict(False, reason="too deep to be evaluated")


def _import_mlx(avoid: tuple[str, ...]) -> Any:
    """MLX as it is installed: never from the current folder, or from the repo that is read."""
    refused = [Path(folder).resolve() for folder in (".", *avoid)]
    sys.path[:] = [
        entry
        for entry in sys.path
        if entry and not any(Path(entry).resolve() == folder for folder in refused)
    ]
    import mlx.core as mx

    return mx


class _Proof:
    def __init__(self, mx: Any, question: Question) -> None:
        self.mx = mx
        self.question = question
        old, new = ast.parse(question.old), ast.parse(question.new)
        self.old_names, self.new_names = Names(old), Names(new)
        old_function = _function(old, question.function, question.index)
        new_function = _function(new, question.function, question.index)
        self.old, self.new = slices(old_function, new_function, question)
        self.functions = {node.name: node for node in old.body if isinstance(node, ast.FunctionDef)}
        statements = [*self.old.suite, *self.new.suite]
        self.kinds = kinds_of_inputs(statements)
        self.chance = random.Random(0)
        self.seed = 0
        self.error = 0.0
        self.errors: dict[tuple[str, str], tuple[float, float]] = {}
        """By type, and output or gradients: the largest errors of the fused call and by hand, as
        parts of the result's size."""
        self.ran: set[int] = set()
        """The lines that some case has run; `reached` those of the last one tried."""
        self.reached: set[int] = set()

    def verdict(self) -> Verdict:
        cases = self._cases()
        if isinstance(cases, str):
            return Verdict(False, reason=cases)
        unseen: set[str] = set()
        count = 0
        while count < _WANTED:
            self.seed += 1
            for case in cases:
                if (reason := self._compare(case)) is not None:
                    return Verdict(False, count, reason=reason)
                count += 1
                if (said := self._unseen_row(case)) is not None:
                    unseen.add(said)
        if (reason := self._beyond_budget()) is not None:
            return Verdict(False, count, reason=reason)
        return Verdict(True, count, self.error, unseen="; ".join(sorted(unseen)))

    def _beyond_budget(self) -> str | None:
        """Where the fused call is further from the exact result than rounding explains: by more
        than a few times what the attention by hand is, in the same type."""
        for (kind, what), (off, independent) in self.errors.items():
            if off > _BUDGET * independent + 4 * _EPS[kind]:
                return f"in {kind} the {what} differ by {off:.1e} of their size"
        return None

    def _cases(self) -> list[dict[str, Made]] | str:
        """Inputs on which both versions run, some of every size and every branch; or why there
        are none."""
        orders = self._orders()
        if orders is None:
            return "queries, keys and values can't be told apart"
        found: list[dict[str, Made]] = []
        for sizes in ALL_SIZES:
            given = {
                key: Made("array", tuple(sizes.shape(role, self.question.rank)[a] for a in order))
                for key, (role, order) in orders.items()
            }
            search = Search(sizes, self.question.rank, self.kinds, self._try(sizes), self.chance)
            kept = 0
            for case in search.cases(given):
                new = self.reached - self.ran
                if kept < _PER_SIZES or new:
                    found.append(case)
                    self.ran |= new
                    kept += 1
                elif self._covers():
                    break
        if not found:
            return "no inputs were found on which it runs"
        return found if self._covers() else "a branch of it was never run"

    def _orders(self) -> dict[str, tuple[str, tuple[int, ...]]] | None:
        """For the text of each of queries, keys and values the order in which the function holds
        its axes."""
        sizes, rank = ALL_SIZES[0], self.question.rank
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        call = _call_of(self.new.target)
        for role, argument in zip(("query", "key", "value"), call.args, strict=False):
            base = _base(argument, self.new_names)
            making = [item for item in self.new.suite if _binds(item, base)]
            wanted = (1,) * (4 - rank) + sizes.shape(role, rank)
            for order in itertools.permutations(range(rank)):
                shape = tuple(sizes.shape(role, rank)[axis] for axis in order)
                array = self.mx.zeros(shape)
                key = self._asked_for(making, argument, array, wanted)
                if key is not None:
                    found[key] = (role, order)
                    break
            else:
                return None
        return found

    def _asked_for(
        self, making: list[ast.stmt], argument: ast.expr, array: Any, wanted: tuple[int, ...]
    ) -> str | None:
        """The text of the input that has to be `array` for an argument to have its shape."""
        inputs: dict[str, Any] = {}
        for _ in range(4):
            evaluator = Evaluator(self.mx, self.new_names, inputs)
            try:
                result = evaluator.run(
                    [*making, ast.copy_location(ast.Expr(argument), argument)], argument
                )
            except Missing as missing:
                if inputs:
                    inputs[missing.key] = 0.37
                else:
                    inputs[missing.key] = array
                continue
            except (NotEvaluable, *UNFIT):
                return None
            return next(iter(inputs)) if tuple(result.shape) == wanted and inputs else None
        return None

    def _covers(self) -> bool:
        return self._touched() <= self.ran

    def _touched(self) -> set[int]:
        """The lines of the old version's statements that are no longer in the new one."""
        kept = {ast.dump(node) for node in _statements(self.new.suite)}
        return {node.lineno for node in _statements(self.old.suite) if ast.dump(node) not in kept}

    # Running

    def _try(self, sizes: Sizes) -> Any:
        wanted = sizes.shape("query", self.question.rank)[:-1]

        def run(given: dict[str, Made]) -> None:
            inputs = {key: self._made(made, "float32", key) for key, made in given.items()}
            result, _ = self._run(self.new, self.new_names, inputs)
            if tuple(result.shape) != self._result_shape(sizes, wanted):
                raise ValueError("another shape")
            other, ran = self._run(self.old, self.old_names, inputs)
            if tuple(other.shape) != tuple(result.shape):
                raise ValueError("another shape")
            self.mx.eval(result, other)
            self.reached = ran

        return run

    def _result_shape(self, sizes: Sizes, wanted: tuple[int, ...]) -> tuple[int, ...]:
        shape = (*wanted, sizes.features)
        order = self._order_of_result()
        return shape if order is None else tuple(shape[axis] for axis in order)

    def _order_of_result(self) -> list[int] | None:
        """The transposition behind the call that an einsum had in it."""
        node = self.new.target
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "transpose":
                return [argument.value for argument in node.args]  # type: ignore[attr-defined]
            if not isinstance(node.func.value, ast.Call):
                return None
            node = node.func.value
        return None

    def _run(
        self,
        version: Slice,
        names: Names,
        inputs: dict[str, Any],
        types: dict[str, str] | None = None,
    ) -> tuple[Any, set[int]]:
        evaluator = Evaluator(self.mx, names, inputs, types)
        evaluator.functions = dict(self.functions)
        return evaluator.run(version.suite, version.target), evaluator.ran

    def _made(self, made: Made, kind: str, key: str) -> Any:
        """An input in one of the types."""
        mx = self.mx
        if made.kind in ("number", "choice"):
            return made.value
        shape = made.value
        seed = self.seed * 7919 + sum(ord(letter) * (at + 1) for at, letter in enumerate(key))
        random_key = mx.random.key(seed + len(shape))
        dtype = getattr(mx, kind)
        if made.kind == "array":
            return mx.random.normal(shape, key=random_key).astype(mx.bfloat16).astype(dtype)
        if made.kind == "bias":
            return mx.random.normal(shape, key=random_key).astype(mx.bfloat16).astype(dtype)
        seen = mx.random.bernoulli(0.7, shape, key=random_key)
        column = mx.arange(shape[-1]) == 0
        seen = mx.logical_or(seen, column)  # every row sees a key
        if made.kind == "seen":
            return seen
        if made.kind == "marks":
            return seen.astype(mx.int32)
        return mx.where(seen, mx.array(0.0, dtype), mx.array(-math.inf, dtype))

    # Comparing

    def _compare(self, case: dict[str, Made]) -> str | None:
        """Notes how far both versions are from the exact result in each type; why they can't be
        compared, if so."""
        exact = dict.fromkeys(_TYPES, "float64")
        wanted = self._results(self.old, self.old_names, case, "float64", exact)
        if wanted is None:
            return "it can't be evaluated in float64"
        for kind in _TYPES:
            hand = self._results(self.old, self.old_names, case, kind, None)
            low = self._results(self.old, self.old_names, case, kind, {"float32": kind})
            fused = self._results(self.new, self.new_names, case, kind, None)
            if fused is None:
                return f"the fused call does not take {kind}"
            for index, right in enumerate(wanted):
                size = max(self.mx.abs(right).max().item(), 0.1)
                independent = [self._distance(of[index], right) for of in (hand, low) if of]
                self._note(
                    (kind, "gradients" if index else "outputs"),
                    self._distance(fused[index], right) / size,
                    max(independent, default=0.0) / size,
                )
            if kind == "float32" and hand is not None:
                self.error = max(self.error, self._distance(fused[0], hand[0]))
        return None

    def _note(self, where: tuple[str, str], off: float, independent: float) -> None:
        before = self.errors.get(where, (0.0, 0.0))
        finite = independent if math.isfinite(independent) else 0.0
        self.errors[where] = (max(before[0], off), max(before[1], finite))

    def _results(
        self,
        version: Slice,
        names: Names,
        case: dict[str, Made],
        kind: str,
        types: dict[str, str] | None,
    ) -> list[Any] | None:
        """The output and the gradients of queries, keys and values in float64; None where a type
        does not go through."""
        mx = self.mx
        inputs = {key: self._made(made, kind, key) for key, made in case.items()}
        arrays = [key for key, made in case.items() if made.kind in ("array", "bias")]

        def result(*values: Any) -> Any:
            given = {**inputs, **dict(zip(arrays, values, strict=True))}
            return self._run(version, names, given, types)[0]

        def loss(*values: Any) -> Any:
            out = result(*values)
            count = mx.arange(out.size, dtype=mx.float32)
            weights = mx.sin(count * 0.7).astype(out.dtype).reshape(out.shape)
            return (out * weights).sum()

        given = [inputs[key] for key in arrays]
        try:
            out = result(*given)
            gradients = mx.grad(loss, argnums=list(range(len(arrays))))(*given)
            gradients = gradients if isinstance(gradients, tuple | list) else [gradients]
            results = [array.astype(mx.float64) for array in (out, *gradients)]
            mx.eval(results)
        except UNFIT:
            return None
        return results

    def _distance(self, one: Any, other: Any) -> float:
        """The largest difference of two arrays; infinite where one is not a number alone."""
        mx = self.mx
        if one.shape != other.shape:
            return math.inf
        same = mx.logical_and(mx.isnan(one), mx.isnan(other))
        off = mx.where(same, mx.array(0.0, mx.float64), mx.abs(one - other)).max().item()
        return math.inf if math.isnan(off) else float(off)

    def _unseen_row(self, case: dict[str, Made]) -> str | None:
        """What both versions give for a row that sees no key, in float32."""
        hiding = [key for key, made in case.items() if made.kind in ("seen", "hides")]
        if len(hiding) != 1:
            return None
        mx = self.mx
        inputs = {key: self._made(made, "float32", key) for key, made in case.items()}
        of = inputs[hiding[0]]
        nothing = mx.zeros_like(of) if of.dtype == mx.bool_ else mx.full(of.shape, -math.inf)
        inputs[hiding[0]] = nothing
        try:
            said = []
            for version, names in ((self.old, self.old_names), (self.new, self.new_names)):
                result, _ = self._run(version, names, inputs)
                values = result.astype(mx.float32).reshape(-1).tolist()
                said.append(_kind_of_row(values))
        except (ValueError, TypeError, RuntimeError):
            return None
        if said[0] == said[1]:
            return f"a row that sees no key gives {said[0]}, as before"
        return f"a row that sees no key gives {said[1]} where it gave {said[0]}"


def _kind_of_row(values: list[float]) -> str:
    if any(math.isnan(value) for value in values):
        return "NaN"
    if all(value == 0 for value in values):
        return "zeros"
    return "the mean of the values"


def slices(old: ast.FunctionDef, new: ast.FunctionDef, question: Question) -> tuple[Slice, Slice]:
    """The statements of each version that the result comes from."""
    product = next(
        node
        for node in ast.walk(old)
        if isinstance(node, ast.expr)
        and (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) == question.product
    )
    call = ast.unparse(ast.parse(question.call, mode="eval"))
    made = next(
        node for node in ast.walk(new) if isinstance(node, ast.expr) and ast.unparse(node) == call
    )
    old_kept = {ast.dump(node) for node in _statements(new.body)}
    new_kept = {ast.dump(node) for node in _statements(old.body)}
    return _slice(old, product, old_kept), _slice(new, made, new_kept)


def _slice(function: ast.FunctionDef, target: ast.expr, unchanged: set[str]) -> Slice:
    """The statements that are not in the other version, of the suites that lead to the target."""
    found: list[ast.stmt] = []
    suite = function.body
    while True:
        index = next(i for i, item in enumerate(suite) if _holds(item, target))
        found += [item for item in suite[:index] if _changes(item, unchanged)]
        inner = [
            part
            for name in ("body", "orelse", "finalbody")
            for part in [getattr(suite[index], name, None)]
            if isinstance(part, list) and any(_holds(item, target) for item in part)
        ]
        if not inner:
            return Slice([*found, suite[index]], target)
        suite = inner[0]


def _changes(statement: ast.stmt, unchanged: set[str]) -> bool:
    return ast.dump(statement) not in unchanged


def _holds(statement: ast.stmt, target: ast.expr) -> bool:
    return any(node is target for node in ast.walk(statement))


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    return [node for item in body for node in ast.walk(item) if isinstance(node, ast.stmt)]


def _call_of(node: ast.expr) -> ast.Call:
    """The fused call in what stands in the place of weights times values."""
    part: Any = node
    while getattr(getattr(part, "func", None), "attr", "") != "scaled_dot_product_attention":
        part = part.func if isinstance(part, ast.Call) else part.value
    assert isinstance(part, ast.Call)
    return part


def _binds(statement: ast.stmt, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(getattr(target, "id", None) == name for target in targets)


def _base(node: ast.expr, names: Names) -> str:
    """The text of what an argument is made of: `keys` of `keys.swapaxes(-1, -2)`."""
    while True:
        operation = names.operation(node)
        if operation is not None and operation.arguments:
            node = operation.arguments[0]
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            return ast.unparse(node)


def _function(tree: ast.Module, way: tuple[str, ...], index: int) -> ast.FunctionDef:
    """The function at the end of a way of names."""
    nodes: list[ast.AST] = [tree]
    for name in way:
        nodes = [
            child
            for node in nodes
            for child in ast.walk(node)
            if child is not node
            and isinstance(child, ast.ClassDef | ast.FunctionDef)
            and child.name == name
        ]
    found = sorted(
        (node for node in nodes if isinstance(node, ast.FunctionDef)),
        key=lambda node: node.lineno,
    )
    return found[index]
