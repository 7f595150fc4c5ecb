"""A rewrite while it is made: what it takes out, and what it writes."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.reading.functions import Reading
from flash_codemods.handwritten.values import Binding, Found, Items, Lost, Scores, Weights
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.text import Edit, Text


class Draft:
    """The edits so far of one attention, with what the function was read to hold."""

    def __init__(self, text: Text, reading: Reading, found: Found) -> None:
        self.text = text
        self.names = reading.reader.names
        self.reader = reading.reader
        self.function = reading.function
        self.found = found
        self.scores = found.weights.scores
        self.chain = self._chain()
        self.chain_names = {binding.name for binding in self.chain}
        self.gone: list[ast.AST] = []
        """Nodes that are no longer there, or whose text is replaced."""
        self.made: list[Edit] = []
        self.keeps_copies = False
        self.without_copies = False
        """Whether the call is given keys and values without the copies of their heads."""
        self.in_groups = False
        """Whether the queries' heads are in groups, a group for each key head, on an axis more."""
        self.result: ast.expr = found.node
        """What is the fused call's result."""
        self.rank = 4
        self.bools: set[str] = set()
        """The names that stand for bool masks."""
        self.makers: list[ast.stmt] = []
        """The statements that make the masks."""
        self.sizes: list[ast.stmt] = []
        """Those that make the sizes of groups."""
        self.call = ""
        """What stands in the place of weights times values."""
        self.alone: set[int] = set()
        """Lines that go with the comments above them."""
        self.parents = {
            child: parent
            for parent in ast.walk(self.function)
            for child in ast.iter_child_nodes(parent)
        }

    def _chain(self) -> list[Binding]:
        """The names that stand for the scores and the weights."""
        product = self.scores.product

        def is_own(binding: Binding) -> bool:
            value = binding.value
            if isinstance(value, Weights):
                value = value.scores
            if isinstance(value, Items):
                return False
            return isinstance(value, Scores | Lost) and value.product is product

        return [binding for binding in self.reader.bound if is_own(binding)]

    def _insert_before(self, statement: ast.stmt, line: str) -> None:
        start = self.text.line_start(statement.lineno)
        self.made.append(Edit(start, start, f"{self.text.indent(statement)}{line}\n"))

    def _suite_of(self, statement: ast.stmt) -> list[ast.stmt]:
        parent = self.parents[statement]
        for name in ("body", "orelse", "finalbody"):
            suite = getattr(parent, name, None)
            if isinstance(suite, list) and statement in suite:
                return suite
        return [statement]

    def _statement_of(self, node: ast.AST) -> ast.stmt:
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def _remove(self, statement: ast.stmt) -> None:
        self.made.append(self._removal(statement))
        self.gone.append(statement)

    def _removal(self, statement: ast.stmt) -> Edit:
        if not self.text.has_lines_alone(statement):
            parent = self.parents[statement]
            if isinstance(parent, ast.If) and parent.body == [statement] and not parent.orelse:
                return self._removal(parent)
            raise CannotSay("a statement of it shares its line with another", statement)
        return self.text.removal(statement)

    def _remove_dead(self) -> None:
        """Takes out what was made for the scores alone, and branches that are empty now."""
        for _ in range(8):
            kept = self._kept_text()
            changed = False
            for binding in self.reader.bound:
                statement = binding.statement
                if statement is None or statement is self.found.statement:
                    continue
                if self._is_gone(statement):
                    continue
                if self._is_dead(binding, kept):
                    self._remove(statement)
                    changed = True
            changed |= self._remove_local_functions()
            changed |= self._remove_empty()
            if not changed:
                return

    def _remove_local_functions(self) -> bool:
        """Removes functions inside the function of which the last use has gone."""
        nodes = list(ast.walk(self.function))
        found = False
        for node in nodes[1:]:
            if not isinstance(node, ast.FunctionDef) or self._is_gone(node) or node.decorator_list:
                continue
            named = [part for part in nodes if isinstance(part, ast.Name) and part.id == node.name]
            if named and all(self._is_gone(part) for part in named):
                self._remove(node)
                found = True
        return found

    def _is_dead(self, binding: Binding, kept: set[str]) -> bool:
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return False
        target = statement.targets[0]
        targets = target.elts if isinstance(target, ast.Tuple) else [target]
        if not all(isinstance(item, ast.Name) for item in targets) or not binding.uses:
            return False
        together = [item for item in self.reader.bound if item.statement is statement]
        if any(item.name in kept for item in together) or not self._is_pure(statement.value):
            return False
        if not self.text.has_lines_alone(statement):
            return False
        return all(self._is_gone(use) for item in together for use in item.uses)

    def _kept_text(self) -> set[str]:
        """The names in what was written."""
        names: set[str] = set()
        for edit in self.made:
            for word in _words(edit.text):
                names.add(word)
        return names

    def _is_gone(self, node: ast.AST) -> bool:
        while True:
            if any(node is part for part in self.gone):
                return True
            if node not in self.parents:
                return False
            node = self.parents[node]

    def _is_pure(self, node: ast.expr) -> bool:
        """Whether nothing but a value comes of an expression."""
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                full = self.names.full(part.func) or ""
                plain = isinstance(part.func, ast.Name) and part.func.id in ("int", "float", "len")
                known = full.startswith(("mlx.core.", "math.", "mlx.nn.MultiHeadAttention."))
                if not (plain or known or self.names.operation(part) is not None):
                    return False
            elif isinstance(part, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
                return False
        return True

    def _remove_empty(self) -> bool:
        """Removes an `if` of which nothing is left."""
        for node in ast.walk(self.function):
            if not isinstance(node, ast.If) or self._is_gone(node) or node.orelse:
                continue
            if all(self._is_removed(part) for part in node.body):
                if not self._is_pure(node.test):
                    raise CannotSay("an `if` would be left without a body", node)
                if self.alone & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)):
                    self.alone.add(node.lineno)
                self._remove(node)
                return True
        for node in ast.walk(self.function):
            for suite in (getattr(node, "body", []), getattr(node, "orelse", [])):
                if not isinstance(suite, list) or not suite or self._is_gone(node):
                    continue
                if all(self._is_removed(part) for part in suite):
                    raise CannotSay("a branch would be left without a statement", suite[0])
        return False

    def _is_removed(self, statement: ast.AST) -> bool:
        if not isinstance(statement, ast.stmt):
            return False
        start, end = self.text.span(statement)
        return any(edit.start <= start and end <= edit.end and not edit.text for edit in self.made)

    def _require_unchanged(self, names: dict[str, Binding], node: ast.AST) -> None:
        for name, binding in names.items():
            at_call = self.found.names.get(name, binding)
            if at_call is not binding or self._rebound(name, binding):
                raise CannotSay(f"`{name}` is bound anew before the result is made", node)

    def _rebound(self, name: str, binding: Binding) -> bool:
        """Whether a name stands for something else where the call is made."""
        # Bindings are kept as they are read: those before it are what it was bound anew from.
        bound = self.reader.bound
        return any(
            item.name == name
            and item.statement is not None
            and binding.statement is not item.statement
            and self._between(item.statement, binding)
            for item in bound[bound.index(binding) + 1 :]
        )

    def _between(self, statement: ast.stmt, binding: Binding) -> bool:
        after = self.scores.product.lineno
        last = self.found.statement.lineno
        if statement in self.gone or any(statement is part for part in self.gone):
            return False
        return after <= statement.lineno < last


def _words(text: str) -> list[str]:
    try:
        tree = ast.parse(text.strip().lstrip("."), mode="exec")
    except SyntaxError:
        import re

        return re.findall(r"\b[A-Za-z_]\w*\b", text)
    return [part.id for part in ast.walk(tree) if isinstance(part, ast.Name)]
