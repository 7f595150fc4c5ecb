"""Keys and values whose heads were copied: the call takes them as they were."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.operations import integer
from flash_codemods.handwritten.reading.copies import Heads, copies_of
from flash_codemods.handwritten.values import Binding
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.ranks import Ranks


class CopiedHeads(Ranks):
    """Finds what the heads of keys and values were before they were copied."""

    def _named(self, node: ast.Name, names: dict[str, Binding]) -> Operand:
        """Keys or values by their name, or by that of what they are copies of."""
        plain = Operand(node.id, f"{node.id}.dtype")
        binding = names.get(node.id)
        if binding is None or self.keeps_copies or self.rank != 4:
            return plain
        copies = copies_of(binding, self.reader)
        if copies.heads is not Heads.JOINED or not self._is_free_of(copies.of, copies.made):
            return plain
        made = {item.statement: None for item in copies.made if item.statement is not None}
        edits = [self._removal(statement) for statement in made]
        name = copies.of.name
        return Operand(name, f"{name}.dtype", edits, [node, *made], copies=copies.made)

    def _is_free_of(self, of: Binding, made: tuple[Binding, ...]) -> bool:
        """Whether a name stands for the same where the call is made, once the copies are gone, and
        they leave no branch of an `if` empty of which the other one stays."""
        later = self.reader.bound[self.reader.bound.index(of) + 1 :]
        bound = [item.statement for item in later if item.name == of.name and item not in made]
        last = self.found.statement.lineno
        if any(statement is not None and statement.lineno < last for statement in bound):
            return False
        branches = [self.parents[item.statement] for item in made if item.statement is not None]
        return not any(isinstance(branch, ast.If) and branch.orelse for branch in branches)

    def _are_needless(self, key: Operand, value: Operand) -> bool:
        """Whether nothing but the attention uses the copies of both, and no statement that made
        them makes anything else."""
        copies = (*key.copies, *value.copies)
        gone = [*key.gone, *value.gone]
        if not key.copies or not value.copies:
            return False
        if any(item.statement in gone and item not in copies for item in self.reader.bound):
            return False
        read = {part for node in gone for part in ast.walk(node)}
        names = {_base_of(key.text), _base_of(value.text)}
        return all(
            use in read or (use.id in names and self._asks_what_stays(use))
            for item in copies
            for use in item.uses
        )

    def _asks_what_stays(self, use: ast.Name) -> bool:
        """Whether a use asks for the type, or a length that copying does not change."""
        asked = self.parents[use]
        if not isinstance(asked, ast.Attribute) or asked.attr != "shape":
            return isinstance(asked, ast.Attribute) and asked.attr in ("dtype", "ndim")
        taken = self.parents[asked]
        index = integer(taken.slice) if isinstance(taken, ast.Subscript) else None
        return index is not None and index not in (1, -3)

    def _binding_of(self, node: ast.Name) -> Binding | None:
        """The binding that a name reads: the innermost of those that know of the use."""
        for binding in reversed(self.reader.bound):
            if any(use is node for use in binding.uses):
                return binding
        return None

    def _at_call(self, name: str) -> Binding | None:
        return self.found.names.get(name)


def _base_of(text: str) -> str:
    return text.partition(".")[0]
