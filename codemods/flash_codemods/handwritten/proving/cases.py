"""Arrays, numbers and choices on which both versions run, found by trying."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from flash_codemods.handwritten.proving.missing import Missing, NotEvaluable

# Batch, heads, key heads, queries, keys, head_dim: different from each other wherever they can
# be, so that an axis in the wrong place is seen.
_SIZES = (
    (2, 6, 6, 5, 7, 8),
    (2, 6, 6, 5, 5, 8),
    (2, 6, 3, 5, 5, 8),
    (2, 6, 3, 5, 7, 8),
    (1, 4, 4, 1, 7, 8),
    (1, 4, 2, 9, 9, 16),
    (3, 1, 1, 5, 5, 8),
)
_TRIALS = 900


@dataclass(frozen=True)
class Sizes:
    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    features: int

    def shape(self, role: str, rank: int) -> tuple[int, ...]:
        """The shape of queries, keys or values as the call takes them."""
        heads = self.heads if role == "query" else self.key_heads
        length = self.queries if role == "query" else self.keys
        whole = (self.batch, heads, length, self.features)
        return whole[4 - rank :]

    def by_name(self, name: str) -> list[int]:
        """What a number of this name may be; nothing where the name does not say it."""
        if _BATCH.search(name):
            return [self.batch]
        if _HEADS.search(name):
            return [self.heads, self.key_heads]
        if _FEATURES.search(name):
            return [self.features]
        return [self.queries, self.keys] if _LENGTH.search(name) else []

    def numbers(self) -> list[int]:
        found = [
            self.queries,
            self.keys,
            self.heads,
            self.key_heads,
            self.heads // self.key_heads,
            self.features,
            self.batch,
        ]
        return list(dict.fromkeys(found))


# How sizes are called.
_BATCH = re.compile(r"(^|_)(batch|bsz|bs)(_|$)|^[Bb]$|batch_size")
_HEADS = re.compile(r"(^|[._])(n_|num_)?(attention_|kv_|key_value_)?heads?$|^H$")
_FEATURES = re.compile(r"(^|[._])(head_dim|dim_head|head_size)$")
_LENGTH = re.compile(r"(^|_)(len|length)$|^[LST]$|_ctx$")

ALL_SIZES = tuple(Sizes(*values) for values in _SIZES)


@dataclass(frozen=True)
class Made:
    """How an input is made in any type: `kind` is array, bias, hides, seen, marks, number or
    choice."""

    kind: str
    value: Any = None
    """The values in float64 NumPy-like lists, or the number or choice itself."""


_NO_SIZE = Made("number", 0.37)


@dataclass(frozen=True)
class Case:
    """Inputs on which both versions run, and the shape of the result."""

    inputs: dict[str, Made]
    shape: tuple[int, ...]
    lines: frozenset[int] = frozenset()
    """The lines that they run."""
    copies_heads: bool = False
    """Whether there are fewer heads of keys than of queries."""

    @property
    def branch(self) -> Hashable:
        """What it has in common with the cases that differ in sizes and numbers alone."""
        kinds = frozenset(
            (key, made.kind, made.value if made.kind == "choice" else None)
            for key, made in self.inputs.items()
        )
        return self.lines, kinds


Run = Callable[[dict[str, Made]], Any]


def mask_shapes(sizes: Sizes, rank: int) -> list[tuple[int, ...]]:
    """Shapes that a mask may have before it is brought to that of the scores."""
    batch, heads, rows, columns = sizes.batch, sizes.heads, sizes.queries, sizes.keys
    shapes = [
        (batch, 1, rows, columns),
        (rows, columns),
        (batch, columns),
        (batch, rows, columns),
        (batch, 1, 1, columns),
        (batch, heads, rows, columns),
        (1, 1, rows, columns),
        (1, heads, rows, columns),
        (heads, rows, columns),
        (columns,),
        (1, rows, columns),
        (rows, rows),
    ]
    # In a single column no row can both see a key and hide one.
    return [shape for shape in dict.fromkeys(shapes) if shape[-1] > 1]


class Search:
    """Assigns inputs, one after the other as they are asked for, until both versions run.

    Of the numbers that one may be, the first with which they do is enough, and where that is no
    whole one, it is the size of nothing: `no_sizes` are those of which other searches know it, and
    this one adds its own. With `every_number` all are tried.
    """

    def __init__(
        self,
        sizes: Sizes,
        rank: int,
        kinds: dict[str, set[str]],
        run: Run,
        chance: random.Random,
        no_sizes: set[str],
        every_number: bool,
    ) -> None:
        self.sizes = sizes
        self.rank = rank
        self.kinds = kinds
        self.run = run
        self.chance = chance
        self.no_sizes = no_sizes
        self.every_number = every_number
        self.trials = 0

    def cases(self, given: dict[str, Made]) -> Iterator[dict[str, Made]]:
        """Inputs on which both versions run; `given` are queries, keys and values."""
        if self.trials >= _TRIALS:
            return
        self.trials += 1
        try:
            self.run(given)
        except Missing as missing:
            yield from self._tried(missing.key, given)
        except (NotEvaluable, *UNFIT):
            return
        else:
            yield given

    def _tried(self, key: str, given: dict[str, Made]) -> Iterator[dict[str, Made]]:
        has_number = False
        for made in self._candidates(key):
            is_number = made.kind == "number" and not self.every_number
            if is_number and (has_number or (key in self.no_sizes and made != _NO_SIZE)):
                continue
            for found in self.cases({**given, key: made}):
                has_number = has_number or is_number
                if is_number and made == _NO_SIZE:
                    self.no_sizes.add(key)
                yield found

    def _candidates(self, key: str) -> list[Made]:
        kinds = self.kinds.get(key, set())
        found: list[Made] = []
        if "size" in kinds:  # of a mask
            return [Made("number", size) for size in {self.sizes.queries, self.sizes.keys}]
        if kinds and kinds <= {"lower", "upper"}:  # of a slice: all of it
            whole = {self.sizes.queries, self.sizes.keys} if "upper" in kinds else {0}
            return [Made("number", size) for size in sorted(whole)]
        if kinds == {"typed"}:
            return [Made("bias", (2, 2))]
        if "none" in kinds:
            found.append(Made("choice", None))
        if "test" in kinds:
            found += [Made("choice", True), Made("choice", False)]
        words = sorted(kind.removeprefix("word ") for kind in kinds if kind.startswith("word "))
        found += [Made("choice", word) for word in words]
        numbers = [Made("number", value) for value in self._numbers(key)]
        if kinds & {"array", "added", "condition", "marks"}:
            found += self._masks(kinds)
            found += numbers if "number" in kinds else []
        elif "number" in kinds or (not kinds and self.sizes.by_name(key)):
            found += numbers
        elif "test" not in kinds:
            found += numbers + self._masks(kinds)
        return found

    def _numbers(self, key: str) -> list[float]:
        return list(
            dict.fromkeys(self.sizes.by_name(key) or (_NO_SIZE.value, *self.sizes.numbers()))
        )

    def _masks(self, kinds: set[str]) -> list[Made]:
        made_as = []
        if "condition" not in kinds or "added" in kinds:
            made_as += ["bias", "hides"]
        if "added" not in kinds or "condition" in kinds:
            made_as += ["seen", "marks"]
        if "marks" in kinds:
            made_as = ["marks"]
        if "bool" in kinds:
            made_as = ["seen"]
        shapes = mask_shapes(self.sizes, self.rank)
        found = [Made(kind, shape) for shape in shapes for kind in made_as]
        self.chance.shuffle(found)
        return found


# What MLX and Python say of inputs that do not fit.
UNFIT = (
    ValueError,
    TypeError,
    IndexError,
    ZeroDivisionError,
    KeyError,
    AttributeError,
    OverflowError,
    RuntimeError,
)
