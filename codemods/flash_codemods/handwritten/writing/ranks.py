"""How many axes the operands of a call have."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.values import Binding
from flash_codemods.handwritten.writing.causal import made_of
from flash_codemods.handwritten.writing.factors import Factors
from flash_codemods.handwritten.writing.reasons import CannotSay

_AXES = "queries, keys and values have"
FIVE_AXES = f"{_AXES} 5 axes; the fused call takes 4"
_KEEPS_RANK = ("astype", "transpose", "swapaxes", "moveaxis")


class Ranks(Factors):
    """Makes sure that queries, keys and values have the same number of axes."""

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
        if known - {2, 3, 4}:
            raise CannotSay(f"{_AXES} {known.pop()} axes; the fused call takes 4", self.found.node)
        after = self._rank_afterwards()
        if None in ranks and not (known == {4} and (after == 4 or self._are_parameters())):
            which = ("queries", "keys", "values")[ranks.index(None)]
            raise CannotSay(f"how many axes the {which} have can't be known", self.found.node)
        rank = known.pop()
        if after is not None and after != rank:
            raise CannotSay("the result has not as many axes as the queries", self.found.node)
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
        given = {item.arg for item in self.function.args.args}
        operands = (
            (self.scores.query, self.scores.names),
            (self.scores.key, self.scores.names),
            (self.found.value, self.found.names),
        )
        return all(self._comes_from(given, node, names) for node, names in operands)

    def _comes_from(self, given: set[str], node: ast.expr, names: dict[str, Binding]) -> bool:
        """Whether an operand is one of the names, but for casts, transpositions and a scale."""
        for _ in range(8):
            if isinstance(node, ast.Name) and node.id in given:
                return True
            operation = self.names.operation(node)
            made = made_of(names.get(node.id)) if isinstance(node, ast.Name) else None
            if operation is not None and operation.name in _KEEPS_RANK:
                node = operation.arguments[0]
            elif isinstance(node, ast.Attribute) and node.attr == "T":
                node = node.value
            elif isinstance(node, ast.BinOp) and (parts := self._scaled(node)) is not None:
                node = parts[0]
            elif made is not None:
                node, names = made
            else:
                break
        return False
