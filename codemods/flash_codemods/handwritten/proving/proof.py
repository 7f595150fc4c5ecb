"""Compares attention by hand with the fused call: outputs and gradients, on random inputs."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

from flash_codemods.handwritten.proving.cases import (
    ALL_SIZES,
    UNFIT,
    Case,
    Made,
    Run,
    Search,
)
from flash_codemods.handwritten.proving.comparison import Comparison, arrays
from flash_codemods.handwritten.proving.kinds import kinds_of_inputs
from flash_codemods.handwritten.proving.missing import Missing, NotEvaluable
from flash_codemods.handwritten.proving.question import Question, Verdict
from flash_codemods.handwritten.proving.roles import Orders, orders_of, shape_of_result
from flash_codemods.handwritten.proving.unseen import unseen_row
from flash_codemods.handwritten.proving.versions import touched, versions

_WANTED = 24
_PER_SIZES = 4


def prove(question: Question, avoid: tuple[str, ...]) -> Verdict:
    """The verdict on a rewrite. `avoid` are folders from which MLX is not to be imported: the
    repo's own."""
    try:
        mx = _import_mlx(avoid)
    except ImportError:
        return Verdict(False, reason="MLX is not installed here")
    mx.set_default_device(mx.cpu)
    try:
        verdict = _Proof(mx, question).verdict()
        if question.makers and not verdict.inputs:  # they may be out of reach
            verdict = _Proof(mx, dataclasses.replace(question, makers=())).verdict()
        return verdict
    except RecursionError:
        return Verdict(False, reason="too deep to be evaluated")
    except (NotEvaluable, Missing, *UNFIT) as error:
        return Verdict(False, reason=f"it can't be evaluated: {error}")


def _import_mlx(avoid: tuple[str, ...]) -> Any:
    """MLX as it is installed: never from the current folder, or from the repo that is read."""
    refused = {Path.cwd(), *map(_resolved, avoid)}
    sys.path[:] = [entry for entry in sys.path if entry and _resolved(entry) not in refused]
    import mlx.core as mx

    if _resolved(mx.__file__).parents[1] in refused:  # for the proofs of another repo
        raise ImportError("MLX is that of the repo")
    return mx


@cache
def _resolved(path: str) -> Path:
    return Path(path).resolve()


class _Proof:
    def __init__(self, mx: Any, question: Question) -> None:
        self.mx = mx
        self.rank = question.rank
        self.without_copies = question.without_copies
        self.old, self.new = versions(question)
        self.kinds = kinds_of_inputs([*self.old.suite, *self.new.suite])
        for name in question.bools:
            self.kinds.setdefault(name, set()).add("bool")
        for name in self.kinds.keys() & set(question.numbers):
            self.kinds[name] -= {"array", "added", "condition", "marks"}
            self.kinds[name] |= {"number"}
        self.chance = random.Random(0)
        self.no_sizes: set[str] = set()
        self.touched = touched(self.old, self.new)
        self.ran: set[int] = set()
        """The lines that some case has run; `reached` those of the last one tried."""
        self.reached: set[int] = set()

    def verdict(self) -> Verdict:
        cases = self._cases()
        if isinstance(cases, str):
            return Verdict(False, reason=cases)
        comparison = Comparison(self.mx, self.old, self.new)
        unseen: dict[Hashable, str] = {}
        count = seed = 0
        while count < _WANTED:
            seed += 1
            for case in cases if seed == 1 else cases[: _WANTED - count]:
                if (reason := comparison.compare(case, seed)) is not None:
                    return Verdict(False, count, reason=reason)
                count += 1
                if case.branch not in unseen:
                    said = unseen_row(self.mx, self.old, self.new, case, seed)
                    unseen |= {} if said is None else {case.branch: said}
        if (reason := comparison.difference()) is not None:
            return Verdict(False, count, reason=reason, differs=True)
        said = "; ".join(sorted(set(unseen.values())))
        return Verdict(True, count, comparison.error, unseen=said, narrower=comparison.narrower)

    def _cases(self) -> list[Case] | str:
        """Inputs on which both versions run, some of every size and every branch; or why there
        are none."""
        orders = orders_of(self.mx, self.new, self.rank)
        if orders is None:
            return "queries, keys and values can't be told apart"
        found = self._found(orders, _PER_SIZES)
        if not self._covers():  # it may turn on a number
            found += self._found(orders, 0, every_number=True)
        if not found:
            return "no inputs were found on which it runs"
        if self.without_copies and not any(case.copies_heads for case in found):
            return "no inputs were found on which it copies heads"
        return found if self._covers() else "a branch of it was never run"

    def _found(self, orders: Orders, count: int, *, every_number: bool = False) -> list[Case]:
        """So many inputs of every size, and those that run a line which none before has run."""
        found: list[Case] = []
        for sizes in ALL_SIZES:
            given = {
                key: Made("array", tuple(sizes.shape(role, self.rank)[axis] for axis in order))
                for key, (role, order) in orders.items()
            }
            shape = shape_of_result(self.new, sizes, self.rank)
            run = self._try(shape)
            search = Search(
                sizes, self.rank, self.kinds, run, self.chance, self.no_sizes, every_number
            )
            kept = 0
            for inputs in search.cases(given):
                new = self.reached - self.ran
                if kept < count or new:
                    copies_heads = sizes.key_heads < sizes.heads
                    found.append(Case(inputs, shape, frozenset(self.reached), copies_heads))
                    self.ran |= new
                    kept += 1
                elif self._covers():
                    break
        return found

    def _covers(self) -> bool:
        return self.touched <= self.ran

    def _try(self, wanted: tuple[int, ...]) -> Run:
        def run(given: dict[str, Made]) -> None:
            inputs = arrays(self.mx, given, "float32", 0)
            result, _ = self.new.run(self.mx, inputs)
            if tuple(result.shape) != wanted:
                raise ValueError("another shape")
            other, ran = self.old.run(self.mx, inputs)
            if tuple(other.shape) != tuple(result.shape):
                raise ValueError("another shape")
            self.reached = ran

        return run
