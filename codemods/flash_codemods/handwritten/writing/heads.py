"""Keys and values whose heads were copied, queries whose heads were split into groups for them: the
call takes them as they were."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.operations import integer
from flash_codemods.handwritten.reading.copies import Heads, copies_in
from flash_codemods.handwritten.values import Array, Binding
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.ranks import Ranks


class CopiedHeads(Ranks):
    """Finds what heads were before they were copied or split."""

    def _named(self, node: ast.Name, names: dict[str, Binding], role: str) -> Operand:
        """An operand by its name, or by that of what it is copies of."""
        return self._bare(node, names, role) or Operand(node.id, f"{node.id}.dtype")

    def _bare(self, node: ast.expr, names: dict[str, Binding], role: str) -> Operand | None:
        """What an operand is copies of."""
        copies = copies_in(node, names, self.reader)
        if copies is None or self.keeps_copies or self.rank != 4:
            return None
        if copies.heads not in self._undone(role) or not self._is_free_of(copies.of, copies.made):
            return None
        of = copies.of.value if isinstance(copies.of.value, Array) else Array()
        if of.rank != 4 and (of.rank is not None or role == "query"):
            return None
        if of.transposed and role == "query":
            return None
        made = {item.statement: None for item in copies.made if item.statement is not None}
        edits = [self._removal(statement) for statement in made]
        name = copies.of.name
        return Operand(name, f"{name}.dtype", edits, [node, *made], copies=copies)

    def _undone(self, role: str) -> set[Heads]:
        """What the call does itself to the heads of an operand."""
        if self.in_groups:
            return {Heads.SPLIT} if role == "query" else {Heads.APART, Heads.COPIED}
        return set() if role == "query" else {Heads.JOINED}

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

    def _are_needless(self, operands: tuple[Operand, ...]) -> bool:
        """Whether all are without copies, nothing but the attention uses those, and no statement
        that made them makes anything else."""
        copies = [operand.copies for operand in operands if operand.copies is not None]
        if len(copies) < len(operands):
            return False
        made = [binding for item in copies for binding in item.made]
        gone = [node for operand in operands for node in operand.gone]
        if any(item.statement in gone and item not in made for item in self.reader.bound):
            return False
        read = {part for node in gone for part in ast.walk(node)}
        names = {item.of.name for item in copies}
        return all(
            use in read or (use.id in names and self._asks_what_stays(use))
            for binding in made
            for use in binding.uses
        )

    def _asks_what_stays(self, use: ast.Name) -> bool:
        """Whether a use asks for the type, or a length that copying does not change."""
        asked = self.parents[use]
        if not isinstance(asked, ast.Attribute) or asked.attr != "shape":
            return isinstance(asked, ast.Attribute) and asked.attr == "dtype"
        taken = self.parents[asked]
        index = integer(taken.slice) if isinstance(taken, ast.Subscript) else None
        return index in ((0, -1, -2) if self.in_groups else (0, -1, -2, 2, 3))

    def _binding_of(self, node: ast.Name) -> Binding | None:
        """The binding that a name reads: the innermost of those that know of the use."""
        for binding in reversed(self.reader.bound):
            if any(use is node for use in binding.uses):
                return binding
        return None

    def _at_call(self, name: str) -> Binding | None:
        return self.found.names.get(name)
