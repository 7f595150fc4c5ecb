"""Writes the fused call in the place of attention by hand, and takes out what it makes needless."""

from __future__ import annotations

import ast
import re

from flash_codemods.handwritten.operations import CORE
from flash_codemods.handwritten.reading.reader import ends
from flash_codemods.handwritten.values import Binding, Choice, Lost, Weights
from flash_codemods.handwritten.writing.call import FAST, Call
from flash_codemods.handwritten.writing.groups import Groups
from flash_codemods.handwritten.writing.keys import Keys
from flash_codemods.handwritten.writing.makers import makers
from flash_codemods.handwritten.writing.masks import MaskWriter
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.ranks import FIVE_AXES
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.shapes import Shapes
from flash_codemods.handwritten.writing.text import Edit, speaks_of_scores

# How a test asks for the fused call: `hasattr(mx.fast, ...)`, `_HAS_SDPA`, `self.use_flash`.
_FUSED = re.compile(r"fast\b|sdpa|scaled_dot|fused|flash", re.IGNORECASE)


class Rewriting(Keys, Groups, Call, Shapes):
    """The edits that make one attention a fused call.

    Raises, from `edits`:
        CannotSay: why it can't be one.
    """

    def edits(self) -> list[Edit]:
        core = self.names.core()
        if core is None:
            raise CannotSay("the file does not import mlx.core", self.found.node)
        self.in_groups = self._is_grouped()
        rank = self.rank = 4 if self.in_groups else self._rank()
        self._check_same_suite()
        self._check_alternatives()
        for statement in self._chain_statements():
            if statement is not self.found.statement:
                self._remove(statement)
        operands = query, key, _ = self._given()
        if self.in_groups:
            self._join(operands)
        self.gone.append(self.found.node)
        self.without_copies = key.copies is not None
        for operand in operands:
            self.gone += operand.gone
            self.made += operand.edits
            if operand.copies is not None:
                self.alone.update(
                    part.lineno for part in operand.gone if isinstance(part, ast.stmt)
                )
        self._replace_shapes(query, key)
        self._replace_types(query)
        kind = query.kind
        masks = MaskWriter(self.text, self.names, self.chain_names, kind)
        mask = self._mask(masks)
        self.bools = masks.bools
        self.makers += makers(self.scores.steps, self.found.names.values(), self._is_pure)
        scale = self._scale([*self.scores.factors, *query.factors, *key.factors])
        self._write(core, rank, operands, scale, mask)
        self._remove_dead()
        self._remove_comments()
        self._check_uses()
        self._check_names()
        return self.text.tidied(self.made, self.alone)

    def _given(self) -> tuple[Operand, Operand, Operand]:
        """Queries, keys and values: without copies of heads, unless those are needed elsewhere."""
        query = self._operand(self.scores.query, self.scores.names, "query")
        key = self._key()
        value = self._operand(self.found.value, self.found.names, "value")
        given = (query, key, value)
        if self.in_groups and not self._are_needless(given):
            raise CannotSay(FIVE_AXES, self.found.node)
        if self.in_groups or self.keeps_copies or self._are_needless((key, value)):
            return given
        self.keeps_copies = True
        return self._given()

    def _chain_statements(self) -> list[ast.stmt]:
        found = [binding.statement for binding in self.chain if binding.statement is not None]
        for statement in found:
            plain = isinstance(statement, ast.AugAssign) or (
                isinstance(statement, ast.Assign)
                and len(statement.targets) == 1
                and isinstance(statement.targets[0], ast.Name)
            )
            if not plain:
                raise CannotSay("the scores or weights are bound together with others", statement)
        return found

    def _remove_comments(self) -> None:
        """Takes out what is said of scores and weights right above the lines that made them."""
        branches = [step.node for step in self.scores.steps if isinstance(step, Choice)]
        above = [branch for branch in branches if isinstance(branch, ast.If)]
        for statement in [*self._chain_statements(), *above, self.found.statement]:
            for comment, removal in self.text.comments_above(statement):
                if speaks_of_scores(comment):
                    self.made.append(removal)

    def _check_same_suite(self) -> None:
        """The product, the softmax and the call stand in one suite: what runs once, runs once."""
        above: ast.AST = self.found.statement
        while above in self.parents:
            above = self.parents[above]
            if isinstance(above, ast.ExceptHandler):
                raise CannotSay("it stands in for a call that failed", self.found.node)
        suite = self._suite_of(self.found.statement)
        for node in (self.scores.product, self.found.weights.softmax):
            if self._statement_of(node) not in suite:
                raise CannotSay("the scores are made in another branch than they are used in", node)

    def _check_alternatives(self) -> None:
        """It is not what runs where the fused call is missing, or not wanted."""
        below: ast.AST = self.found.statement
        while isinstance(below, ast.stmt) and below is not self.function:
            suite, above = self._suite_of(below), self.parents[below]
            before = suite[: suite.index(below)]
            ended = [item for item in before if isinstance(item, ast.If) and ends(item.body)]
            others = [(item.test, item.body) for item in ended]
            if isinstance(above, ast.If):
                others.append((above.test, above.orelse if suite is above.body else above.body))
            for test, other in others:
                if _FUSED.search(ast.unparse(test)) and any(map(self._calls_fused, other)):
                    reason = "it stands in for the fused call where a test does without that"
                    raise CannotSay(reason, self.found.node)
            below = above

    def _calls_fused(self, statement: ast.stmt) -> bool:
        return any(
            isinstance(part, ast.Call) and self.names.full(part.func) == f"{CORE}.{FAST}"
            for part in ast.walk(statement)
        )

    def _check_names(self) -> None:
        """The names in the call stand for what they stood for when the scores were made."""
        for name, binding in [*self.scores.names.items(), *self.factor_names.items()]:
            if self._rebound(name, binding):
                raise CannotSay(
                    f"`{name}` is bound anew before the result is made", self.found.node
                )

    def _check_uses(self) -> None:
        """Scores and weights are used for nothing but the result."""
        gone = {part for node in self.gone for part in ast.walk(node)}
        for binding in self.chain:
            for use in binding.uses:
                if use in gone or self._is_stand_in(use):
                    continue
                raise CannotSay(self._use(binding, use), use)
        if self.found.loop is not None:
            self._check_loop(gone)

    def _is_stand_in(self, use: ast.Name) -> bool:
        """Whether a use is the target of `scores += mask`, read as a name of its own."""
        return use not in self.parents

    def _check_loop(self, gone: set[ast.AST]) -> None:
        assert self.found.loop is not None
        names = {binding.name for binding in self.chain}
        for part in ast.walk(self.found.loop):
            reads = isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
            again = reads and part.id in names and part not in gone  # type: ignore[attr-defined]
            if again and part.lineno < self.scores.product.lineno:  # type: ignore[attr-defined]
                raise CannotSay("the scores are used again in the loop's next turn", part)

    def _use(self, binding: Binding, use: ast.Name) -> str:
        if isinstance(binding.value, Lost):
            return binding.value.reason
        what = "weights" if isinstance(binding.value, Weights) else "scores"
        statement = self._statement_of(use)
        parent = self.parents.get(use)
        if isinstance(parent, ast.Attribute) and parent.attr == "shape":
            return f"the {what} `{use.id}` are asked for their shape"
        if isinstance(statement, ast.Return):
            return f"the {what} `{use.id}` are returned"
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Attribute | ast.Subscript) for target in statement.targets
        ):
            return f"the {what} `{use.id}` are stored"
        return f"the {what} `{use.id}` are used again"
