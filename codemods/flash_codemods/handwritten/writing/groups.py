"""Heads of queries in groups, a group for each key head, on an axis of their own: the call takes
four axes, and groups them itself."""

from __future__ import annotations

import ast
import dataclasses

from flash_codemods.handwritten.reading.copies import Heads, copies_in, joins_heads
from flash_codemods.handwritten.values import Array, Binding, Number
from flash_codemods.handwritten.writing.causal import CausalMasks, made_of
from flash_codemods.handwritten.writing.makers import read, size_makers
from flash_codemods.handwritten.writing.masks import masks_of
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.operands import Operands
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.text import Edit

_MASK = "it can't be told which axes of the mask are heads, as those of the queries are in groups"
_NOT_JOINED = "the groups of query heads are not joined in the result"


class Groups(Operands):
    """Takes out the fifth axis."""

    def _is_grouped(self) -> bool:
        """Whether the function splits the queries' heads into groups."""
        node = self.scores.query
        while isinstance(node, ast.BinOp) and (parts := self._scaled(node)) is not None:
            node = parts[0]
        copies = copies_in(self._cast_name(node) or node, self.scores.names, self.reader)
        return copies is not None and copies.heads is Heads.SPLIT

    def _join(self, operands: tuple[Operand, ...]) -> None:
        """Takes the fifth axis out of the result, which the function joins again."""
        self._check_masks()
        joining = self._joining(self.found.node)
        if joining is not None:
            self.found = dataclasses.replace(self.found, node=joining)
        else:
            joining = self._take_out_joining(operands[0])
        self.result = joining
        undone = [node for operand in operands for node in operand.gone]
        arrays = [operand.copies.of for operand in operands if operand.copies is not None]
        for node in (joining, *undone):
            self.sizes += size_makers(self.reader_names(node).values(), arrays)

    def _joining(self, node: ast.expr) -> ast.Call | None:
        """The call that joins the groups of an array: `out.reshape(B, H, L, D)`."""
        parent = self.parents[node]
        call = self.parents[parent] if isinstance(parent, ast.Attribute) else parent
        if not isinstance(call, ast.Call) or (operation := self.names.operation(call)) is None:
            return None
        return call if operation.arguments[:1] == (node,) and joins_heads(operation) else None

    def _take_out_joining(self, query: Operand) -> ast.Call:
        """Takes out the call that joins the groups of the result further down."""
        statement = self.found.statement
        made = [item for item in self.reader.bound if item.statement is statement]
        is_named = isinstance(statement, ast.Assign) and statement.value is self.found.node
        uses = made[0].uses if is_named and len(made) == 1 else []
        joining = [use for use in uses if self._joining(use) is not None]
        if len(joining) != 1:
            raise CannotSay(_NOT_JOINED, self.found.node)
        used, call = joining[0], self._joining(joining[0])
        assert call is not None
        below = self._statement_of(call)
        joined = [item for item in self.reader.bound if item.statement is below]
        # Where groups are made by a test, the result is joined by the same one, and so goes on.
        met = [item for item in self.reader.bound if {made[0], *joined} == set(item.parents)]
        afterwards = [use for item in met for use in item.uses]
        if any(use is not used and use not in afterwards for use in uses):
            raise CannotSay(_NOT_JOINED, self.found.node)
        if below not in self._suite_of(statement) and not self._are_together(below, query):
            raise CannotSay(_NOT_JOINED, self.found.node)
        is_whole = isinstance(below, ast.Assign) and below.value is call
        if is_whole and [item.name for item in joined] == [used.id]:
            self._remove(below)
        else:
            self.made.append(Edit(*self.text.span(call), used.id))
            self.gone.append(call)
        return call

    def _are_together(self, joining: ast.stmt, query: Operand) -> bool:
        """Whether groups are joined by the test by which the queries are split into them."""
        split = [node for node in query.gone if isinstance(node, ast.stmt)]
        branches = [self.parents[statement] for statement in (joining, *split)]
        tests = [ast.dump(item.test) for item in branches if isinstance(item, ast.If)]
        return len(tests) == len(branches) > 1 and len(set(tests)) == 1

    def _check_masks(self) -> None:
        """Masks of two axes are the same for every head; of others that is not known."""
        causal = CausalMasks(self.text, self.names)
        for step in masks_of(self.scores.steps):
            mask = step.bias if step.bias is not None else step.seen
            is_flat = mask is not None and self._is_flat(mask, step.names)
            if not is_flat and not causal.is_causal(step):
                raise CannotSay(_MASK, step.node)

    def _is_flat(self, node: ast.expr, names: dict[str, Binding]) -> bool:
        """Whether an array has no more than two axes, nor has anything that it is made of."""
        value = self._value(node, names)
        flat = isinstance(value, Array) and value.rank in (1, 2) and self._is_pure(node)
        arrays = [item for item in read(node, names) if not isinstance(item.value, Number)]
        made = [made_of(item) for item in arrays]
        return flat and all(item is not None and self._is_flat(*item) for item in made)
