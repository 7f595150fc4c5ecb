"""What is known of a value while a function is read."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field


@dataclass(eq=False)
class Binding:
    """A name as one statement binds it; where ways meet, a binding without a statement stands for
    its `parents`."""

    name: str
    statement: ast.stmt | None
    value: Value
    parents: tuple[Binding, ...] = ()
    uses: list[ast.Name] = field(default_factory=list)
    seen: dict[str, Binding] = field(default_factory=dict)
    """What the names in the statement stood for when it ran."""

    def used(self, node: ast.Name) -> None:
        todo = [self]
        while todo:
            binding = todo.pop()
            if not binding.uses or binding.uses[-1] is not node:
                binding.uses.append(node)
                todo += binding.parents


@dataclass(frozen=True)
class Other:
    """Anything that is neither an array nor a number, or is not known."""


@dataclass(frozen=True)
class Number:
    """A number of Python's, not an array."""


@dataclass(frozen=True)
class Shape:
    """The shape of an array; `rank` is its length where that is known."""

    rank: int | None = None


@dataclass(frozen=True)
class Array:
    """An array, as far as its axes are known.

    `transposed` means that its features stand before its positions, as keys do that were transposed
    when they were made; `single` that its first axis has the length 1.
    """

    rank: int | None = None
    transposed: bool = False
    single: bool = False
    product: ast.expr | None = None
    """Where it is a product of two arrays, but not of queries and keys."""


@dataclass(frozen=True)
class Items:
    """A tuple or list written out."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Each:
    """What a generator gives, one like the other."""

    value: Value


@dataclass(frozen=True)
class Mask:
    """Scores hidden or shifted: `bias` is added to them, or where `seen` is false they are `fill`
    (`inverted`: where it is true).

    `names` are the bindings that the expression reads; `node` is what would take the scores and
    gives them masked.
    """

    node: ast.expr
    statement: ast.stmt
    names: dict[str, Binding]
    bias: ast.expr | None = None
    seen: ast.expr | None = None
    inverted: bool = False
    fill: ast.expr | None = None


@dataclass(frozen=True)
class Choice:
    """Masks of which a test chooses: in an `if` statement, or inside an expression."""

    test: ast.expr
    statement: ast.stmt
    node: ast.If | ast.IfExp
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = Mask | Choice


@dataclass(frozen=True)
class Factor:
    """What the scores are multiplied with, or divided by."""

    node: ast.expr
    divides: bool
    names: dict[str, Binding]
    text: str = ""
    """How Python says it, where the function has it in an array."""


@dataclass(frozen=True)
class Scores:
    """The product of queries and keys, scaled and masked."""

    product: ast.expr
    query: ast.expr
    key: ast.expr
    names: dict[str, Binding]
    layout: tuple[str, str, str] | None = None
    """The letters of queries, keys and result, where an einsum multiplies them."""
    factors: tuple[Factor, ...] = ()
    steps: tuple[Step, ...] = ()
    widened: bool = False
    """Whether they were cast to float32."""


@dataclass(frozen=True)
class Weights:
    """The softmax of scores; `cast` is the type that they were cast to afterwards."""

    scores: Scores
    softmax: ast.expr
    cast: ast.expr | None = None
    cast_names: dict[str, Binding] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """Scores or weights after something that no fused call does."""

    product: ast.expr
    reason: str
    line: int
    is_weights: bool = False


Value = Other | Number | Shape | Array | Items | Each | Scores | Weights | Lost


@dataclass(frozen=True)
class Found:
    """Attention in a function: weights multiplied by values at `node`, in `statement`."""

    weights: Weights
    value: ast.expr
    node: ast.expr
    statement: ast.stmt
    names: dict[str, Binding]
    ranks: tuple[int | None, int | None, int | None]
    """The axes of queries, keys and values."""
    layout: tuple[str, str, str] | None = None
    loop: ast.stmt | None = None


@dataclass(frozen=True)
class Refused:
    """Attention that stays as it is, and why."""

    reason: str
    line: int
    product: ast.expr
