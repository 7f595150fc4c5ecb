"""Queries, keys and values as a fused call takes them: without scale, transposition and repeated
heads, which the call does itself."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from flash_codemods.handwritten import products
from flash_codemods.handwritten.draft import Draft
from flash_codemods.handwritten.masks import CannotSay, atom
from flash_codemods.handwritten.operations import Operation, permutation
from flash_codemods.handwritten.text import Edit
from flash_codemods.handwritten.values import Binding, Factor, Number

_PLURALS = {"query": "queries", "key": "keys", "value": "values"}


@dataclass
class Operand:
    """Queries, keys or values as the call is given them, and the edits which that needs."""

    text: str
    kind: str
    """An expression that has their type."""
    edits: list[Edit] = field(default_factory=list)
    gone: list[ast.AST] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    repeats: bool = False
    """Whether its heads are no longer repeated."""


class Operands(Draft):
    """Finds what the call is given."""

    def _operand(self, node: ast.expr, names: dict[str, Binding], role: str) -> Operand:
        """What is multiplied, without a scale: that becomes the call's."""
        parts = self._scaled(node) if role != "value" and isinstance(node, ast.BinOp) else None
        if parts is not None:
            inner = self._operand(parts[0], names, role)
            inner.factors.append(parts[1])
            return inner
        layout = self._layout(role)
        if isinstance(node, ast.Name):
            binding = names.get(node.id)
            scaled = binding if role != "value" else None
            if scaled is not None and (bare := self._scaled_before(node, scaled)) is not None:
                return self._ordered(bare, layout)
            if binding is not None and (bare := self._unrepeated(node, binding)) is not None:
                return self._ordered(bare, layout)
            return self._ordered(Operand(node.id, f"{node.id}.dtype"), layout)
        if role == "query" and isinstance(node, ast.BinOp) and self._is_scaled_name(node):
            # By something that may be an array: the queries stay scaled by it.
            text = (
                self.text.of(node)
                if layout is None and self.rank == 4
                else atom(self.text.of(node))
            )
            return self._ordered(Operand(text, self._kind_of(node.left)), layout)
        if not self._is_movable(node):
            raise CannotSay(f"the {_PLURALS[role]} have no name", node)
        text = self.text.of(node)
        return self._ordered(Operand(atom(text), f"{self._kind_of(node)}"), layout)

    def _is_scaled_name(self, node: ast.BinOp) -> bool:
        """`queries * self.scale`."""
        return (
            isinstance(node.op, ast.Mult)
            and isinstance(node.left, ast.Name)
            and isinstance(node.right, ast.Name | ast.Attribute)
        )

    def _layout(self, role: str) -> list[int] | None:
        """How an einsum's operand is transposed to what the call takes."""
        if self.scores.layout is not None and role != "value":
            query, key, scores = self.scores.layout
            own = query if role == "query" else key
            batch = scores[:-2]
            rest = [letter for letter in own if letter not in batch]
            positions = scores[-2] if role == "query" else scores[-1]
            features = next(letter for letter in rest if letter != positions)
            return products.order(own, batch + positions + features)
        if self.found.layout is not None and role == "value":
            weights, values, _ = self.found.layout
            features = next(letter for letter in values if letter not in weights)
            return products.order(values, weights[:-2] + weights[-1] + features)
        return None

    def _ordered(self, operand: Operand, order: list[int] | None) -> Operand:
        if order is not None:
            operand.text = f"{operand.text}.transpose({', '.join(map(str, order))})"
        return operand

    def _scaled(self, node: ast.BinOp) -> tuple[ast.expr, Factor] | None:
        """An operand and the number by which it is multiplied or divided."""
        if not isinstance(node.op, ast.Mult | ast.Div):
            return None
        divides = isinstance(node.op, ast.Div)
        if self._is_number(node.right):
            return node.left, Factor(node.right, divides, self.reader_names(node.right))
        if not divides and self._is_number(node.left):
            return node.right, Factor(node.left, False, self.reader_names(node.left))
        return None

    def reader_names(self, node: ast.expr) -> dict[str, Binding]:
        """What the names in a number stand for where the product is made."""
        return {
            part.id: binding
            for part in ast.walk(node)
            if isinstance(part, ast.Name)
            for binding in self.reader.bound
            if part in binding.uses and binding.name == part.id
        }

    def _is_number(self, node: ast.expr) -> bool:
        before = self.reader.env
        self.reader.env = {**before, **self.reader_names(node)}
        counts = {id(binding): len(binding.uses) for binding in self.reader.bound}
        value = self.reader.value(node)
        for binding in self.reader.bound:
            del binding.uses[counts[id(binding)] :]
        self.reader.env = before
        return isinstance(value, Number)

    def _scaled_before(self, node: ast.Name, binding: Binding) -> Operand | None:
        """Queries or keys that a statement of its own, used for nothing else, has scaled."""
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.BinOp):
            return None
        if statement not in self._suite_of(self.found.statement) or binding.uses != [node]:
            return None
        if len(statement.targets) != 1 or (parts := self._scaled(statement.value)) is None:
            return None
        inner, factor = parts
        gone: list[ast.AST] = [factor.node]
        if isinstance(inner, ast.Name):
            if inner.id != node.id and self._binding_of(inner) is not self._at_call(inner.id):
                return None
            edits = [self._removal(statement)]
            name = inner.id
            gone = [statement]
            return Operand(name, f"{name}.dtype", edits, gone, [factor])
        start, end = self.text.span(statement.value)
        inner_start, inner_end = self.text.with_brackets(inner)
        edits = [
            Edit(start, inner_start, ""),
            Edit(inner_end, end, ""),
        ]
        edits = [edit for edit in edits if edit.start < edit.end]
        return Operand(node.id, f"{node.id}.dtype", edits, gone, [factor])

    def _unrepeated(self, node: ast.Name, binding: Binding) -> Operand | None:
        """Keys or values before their heads were repeated: the call repeats them itself."""
        if self.keeps_repeats:
            return None
        repeat = self._repeat(binding)
        if repeat is None:
            for parent in binding.parents:
                if (inner := self._repeat(parent)) is not None:
                    others = [other for other in binding.parents if other is not parent]
                    if len(others) == 1 and self._is_before(inner[1], others[0]):
                        repeat = inner
                        binding_of_repeat = parent
                        break
            else:
                return None
        else:
            binding_of_repeat = binding
        statement, of = repeat
        if not isinstance(of, ast.Name) or any(use is not node for use in binding.uses):
            return None
        if any(use is not node for use in binding_of_repeat.uses):
            return None
        gone: list[ast.AST] = [statement]
        removal = [self._removal(statement)]
        return Operand(of.id, f"{of.id}.dtype", removal, gone, repeats=True)

    def _repeat(self, binding: Binding) -> tuple[ast.Assign, ast.expr] | None:
        """`k = mx.repeat(k, n, axis=1)`, by which each head is followed by its copies."""
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return None
        if not isinstance(statement.targets[0], ast.Name):
            return None
        operation = self.names.operation(statement.value)
        if operation is None or operation.name != "repeat" or self._rank() != 4:
            return None
        axis = operation.argument(2, "axis")
        if axis is None or ast.unparse(axis) not in ("1", "-3"):
            return None
        return statement, operation.arguments[0]

    def _is_before(self, of: ast.expr, binding: Binding) -> bool:
        return isinstance(of, ast.Name) and self._binding_of(of) is binding

    def _binding_of(self, node: ast.Name) -> Binding | None:
        """The binding that a name reads: the innermost of those that know of the use."""
        for binding in reversed(self.reader.bound):
            if any(use is node for use in binding.uses):
                return binding
        return None

    def _at_call(self, name: str) -> Binding | None:
        return self.found.names.get(name)

    def _key(self) -> Operand:
        """The keys as the call takes them, features last."""
        node = self.scores.key
        factors: list[Factor] = []
        while isinstance(node, ast.BinOp) and (parts := self._scaled(node)) is not None:
            node = parts[0]
            factors.append(parts[1])
        if self.scores.layout is not None:
            key = self._operand(node, self.scores.names, "key")
        elif (inner := self.reader.swapped(node)) is not None:
            key = self._operand(inner, self.scores.names, "key")
        elif isinstance(node, ast.Name):
            key = self._key_made_transposed(node)
        else:
            key = self._key_transposed_here(node)
        key.factors += factors
        return key

    def _key_transposed_here(self, node: ast.expr) -> Operand:
        """`keys.transpose(0, 2, 3, 1)`, of keys [B, L, H, D], in the product."""
        operation = self.names.operation(node)
        order = permutation(operation, 4) if operation is not None else None
        if operation is None or operation.name != "transpose" or order is None:
            raise CannotSay("the keys have no name", node)
        inner = operation.arguments[0]
        if len(order) != 4 or not self._is_movable(inner):
            raise CannotSay("the keys have no name", node)
        order = [*order[:-2], order[-1], order[-2]]
        text = f"{atom(self.text.of(inner))}.transpose({', '.join(map(str, order))})"
        return Operand(text, self._kind_of(inner))

    def _key_made_transposed(self, node: ast.Name) -> Operand:
        """Keys whose name stands for them transposed."""
        binding = self.scores.names.get(node.id)
        statement = binding.statement if binding is not None else None
        plain = Operand(f"{node.id}.swapaxes(-1, -2)", f"{node.id}.dtype")
        if binding is None or not isinstance(statement, ast.Assign) or binding.uses != [node]:
            return plain
        if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
            return plain
        made, factors = statement.value, []
        edits: list[Edit] = []
        if isinstance(made, ast.BinOp) and (parts := self._scaled(made)) is not None:
            end = self.text.span(made)[1]
            edits = [Edit(self.text.with_brackets(parts[0])[1], end, "")]
            if not edits[0].start < edits[0].end or parts[0] is not made.left:
                return plain
            made, factors = parts[0], [parts[1]]
        operation = self.names.operation(made)
        if operation is None:
            return plain
        inner = self.reader.swapped(made)
        gone: list[ast.AST] = [factor.node for factor in factors]
        if isinstance(inner, ast.Name) and not factors and self._is_there(inner, node.id):
            removal = [self._removal(statement)]
            return Operand(inner.id, f"{inner.id}.dtype", removal, [statement])
        order = self._reordered(operation)
        if order is None:
            return plain
        edits.append(order)
        return Operand(node.id, f"{node.id}.dtype", edits, gone, factors)

    def _is_there(self, node: ast.Name, rebound: str) -> bool:
        """Whether a name means the same where the call is made, `rebound` no longer bound anew."""
        binding = self._binding_of(node)
        last = [item for item in self.reader.bound if item.name == node.id][-1]
        return node.id == rebound or binding in (self._at_call(node.id), last)

    def _reordered(self, operation: Operation) -> Edit | None:
        """The edit that leaves features last in `transpose(0, 2, 3, 1)`."""
        axes = operation.axes("axes")
        order = permutation(operation, len(axes))
        if operation.name != "transpose" or order is None or len(order) < 3:
            return None
        order = [*order[:-2], order[-1], order[-2]]
        if order == sorted(order) or not all(isinstance(axis, ast.Constant) for axis in axes):
            return None
        start, end = self.text.span(axes[0])[0], self.text.span(axes[-1])[1]
        return Edit(start, end, ", ".join(map(str, order)))

    def _is_movable(self, node: ast.expr) -> bool:
        """Whether an expression gives the same a few lines further down."""
        if isinstance(node, ast.Name | ast.Constant):
            return True
        if isinstance(node, ast.Attribute):
            return self._is_movable(node.value)
        if isinstance(node, ast.Subscript):
            return self._is_movable(node.value)
        operation = self.names.operation(node)
        return operation is not None and all(
            self._is_movable(argument)
            for argument in operation.arguments
            if not isinstance(argument, ast.Starred | ast.UnaryOp | ast.BinOp | ast.Tuple)
        )

    def _kind_of(self, node: ast.expr) -> str:
        """An expression that has the type of an operand."""
        operation = self.names.operation(node)
        if operation is not None and operation.name == "astype":
            kind = operation.argument(1, "dtype")
            return self.text.of(kind) if kind is not None else ""
        if operation is not None and operation.arguments:
            return self._kind_of(operation.arguments[0])
        if isinstance(node, ast.Subscript):
            return self._kind_of(node.value)
        return f"{atom(self.text.of(node))}.dtype"

    def _rank(self) -> int:
        """The number of axes of queries, keys and values, which has to be known, and the same."""
        ranks = self.found.ranks
        known = {rank for rank in ranks if rank is not None}
        if len(known) > 1:
            told = ", ".join(str(rank) if rank else "unknown" for rank in ranks)
            raise CannotSay(
                f"queries, keys and values have not the same number of axes ({told})",
                self.found.node,
            )
        after = self._rank_afterwards()
        if None in ranks and not (known == {4} and (after == 4 or self._are_parameters())):
            which = ("queries", "keys", "values")[ranks.index(None)]
            raise CannotSay(f"how many axes the {which} have can't be known", self.found.node)
        rank = known.pop()
        if after is not None and after != rank:
            raise CannotSay("the result has not as many axes as the queries", self.found.node)
        if rank not in (2, 3, 4):
            raise CannotSay(
                f"queries, keys and values have {rank} axes; the fused call takes 4",
                self.found.node,
            )
        return rank

    def _rank_afterwards(self) -> int | None:
        """How many axes the result has, by how it is transposed next."""
        node: ast.AST = self.found.node
        if isinstance(self.parents[node], ast.Assign) and self.found.layout is None:
            target = self.parents[node].targets[0]  # type: ignore[attr-defined]
            named = getattr(target, "id", None)
            below = self.found.node.lineno
            uses = [
                part
                for part in ast.walk(self.function)
                if isinstance(part, ast.Name) and part.id == named and part.lineno > below
            ]
            uses.sort(key=lambda part: (part.lineno, part.col_offset))
            loads = [part for part in uses if isinstance(part.ctx, ast.Load)]
            if not loads:
                return None
            node = loads[0]
        parent = self.parents[node]
        call = self.parents.get(parent) if isinstance(parent, ast.Attribute) else parent
        operation = self.names.operation(call) if isinstance(call, ast.Call) else None
        if operation is None or operation.name != "transpose" or operation.arguments[0] is not node:
            return None
        return len(operation.axes("axes")) or None

    def _are_parameters(self) -> bool:
        """Whether all three are what the function is given: then they are alike."""
        query, key, value = self.scores.query, self.scores.key, self.found.value
        inner = self.reader.swapped(key)
        given = {item.arg for item in self.function.args.args}
        return all(
            isinstance(part, ast.Name) and part.id in given
            for part in map(self._uncast, (query, inner if inner is not None else key, value))
        )

    def _uncast(self, node: ast.expr) -> ast.expr:
        operation = self.names.operation(node)
        cast = operation is not None and operation.name == "astype"
        return operation.arguments[0] if operation is not None and cast else node
