"""Keys and values whose heads were repeated: the call takes them as they were."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.values import Binding
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.ranks import Ranks


class Heads(Ranks):
    """Finds what the heads of keys and values were before they were copied."""

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
