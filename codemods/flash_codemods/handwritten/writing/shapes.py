"""What a function asks of its scores: checks of their shape go with them, lengths and the type are
asked of the queries and keys."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.operations import integer
from flash_codemods.handwritten.values import Scores
from flash_codemods.handwritten.writing.draft import Draft
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.text import Edit


class Shapes(Draft):
    """Takes out the uses of `scores.shape` and `scores.dtype`."""

    def _replace_shapes(self, query: Operand, key: Operand) -> None:
        for use in [use for binding in self.chain for use in binding.uses]:
            shape = self.parents.get(use)
            if self._is_gone(use) or not isinstance(shape, ast.Attribute) or shape.attr != "shape":
                continue
            statement = self._statement_of(use)
            if self._only_checks(statement):
                self._remove(statement)
                continue
            taken = self.parents[shape]
            text = self._lengths(taken, query, key)
            if text is not None and isinstance(taken, ast.Subscript):
                self.made.append(Edit(*self.text.span(taken), text))
                self.gone.append(taken)

    def _replace_types(self, query: Operand) -> None:
        """`bias(n, scores.dtype)` asks the queries: theirs is the type of scores that were not
        cast."""
        named = [item for item in self.reader.bound if item.name == query.text]
        if not named or named[-1] is not self.found.names.get(query.text):
            return
        for binding in self.chain:
            if not isinstance(binding.value, Scores) or binding.value.widened:
                continue
            for use in binding.uses:
                asked = self.parents.get(use)
                is_type = isinstance(asked, ast.Attribute) and asked.attr == "dtype"
                if is_type and not self._is_gone(use):
                    self.made.append(Edit(*self.text.span(asked), query.kind))  # type: ignore[arg-type]
                    self.gone.append(asked)  # type: ignore[arg-type]

    def _only_checks(self, statement: ast.stmt) -> bool:
        """`if scores.shape != (B, H, L, S): raise ValueError(...)`."""
        return (
            isinstance(statement, ast.If)
            and isinstance(statement.test, ast.Compare)
            and not statement.orelse
            and [type(part) for part in statement.body] == [ast.Raise]
            and self._is_pure(statement.test)
        )

    def _lengths(self, taken: ast.AST, query: Operand, key: Operand) -> str | None:
        """The numbers of queries and keys, where the last two sizes of the scores are asked for."""
        if not isinstance(taken, ast.Subscript) or self.rank != 4:
            return None
        if not (query.text.isidentifier() and key.text.isidentifier()):
            return None
        lengths = [f"{query.text}.shape[-2]", f"{key.text}.shape[-2]"]
        if isinstance(taken.slice, ast.Slice):
            part = taken.slice
            if integer(part.lower) != -2 or part.upper is not None or part.step is not None:
                return None
            unpacked = isinstance(self.parents[taken], ast.Assign)
            return ", ".join(lengths) if unpacked else f"({', '.join(lengths)})"
        return {-2: lengths[0], -1: lengths[1]}.get(integer(taken.slice) or 0)
