"""How many axes the operands of a call have."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.writing.draft import Draft
from flash_codemods.handwritten.writing.reasons import CannotSay


class Ranks(Draft):
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
