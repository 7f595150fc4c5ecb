"""The text of the fused call, in the lines where the result was made."""

from __future__ import annotations

import ast

from flash_codemods.handwritten import layouts
from flash_codemods.handwritten.values import Binding, Factor
from flash_codemods.handwritten.writing.causal import made_of
from flash_codemods.handwritten.writing.masking import Masking
from flash_codemods.handwritten.writing.operand import Operand
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.text import Edit, joined

FAST = "fast.scaled_dot_product_attention"
_RUNS_AT_TIMES = (
    ast.IfExp,
    ast.BoolOp,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


class Call(Masking):
    """Writes the call: its scale, its arguments, what is left to do with its result."""

    factor_names: dict[str, Binding]

    def _scale(self, factors: list[Factor]) -> str:
        """All factors as one number."""
        self.factor_names = {name: b for factor in factors for name, b in factor.names.items()}
        parts: list[str] = []
        for factor in factors:
            text = self._factor(factor)
            parts.append(text)
        if not parts:
            return "1.0"
        if len(parts) == 2 and parts[0] == parts[1]:
            only = ast.parse(parts[0], mode="eval").body
            return (
                f"{parts[0]}**2"
                if isinstance(only, ast.Name | ast.Attribute)
                else (f"({parts[0]}) ** 2")
            )
        if len(parts) == 1:
            return _without_brackets(parts[0])
        return " * ".join(_factor_text(part) for part in parts)

    def _factor(self, factor: Factor) -> str:
        text = factor.text or self.text.of(factor.node)
        if not factor.divides:
            return text
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and factor.text:
            return ast.unparse(ast.BinOp(node.left, node.op, _negated(node.right)))
        plain = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Constant)
        return f"1 / {text}" if plain else f"1 / ({text})"

    def _write(
        self,
        core: str,
        rank: int,
        operands: tuple[Operand, Operand, Operand],
        scale: str,
        mask: str | None,
    ) -> None:
        new = {2: "[None, None]", 3: "[None]", 4: ""}[rank]
        arguments = [f"{operand.text}{new}" for operand in operands]
        arguments.append(f"scale={scale}")
        if mask is not None:
            arguments.append(f"mask={mask}")
        after = {2: "[0, 0]", 3: "[0]", 4: ""}[rank]
        if self.found.layout is not None:
            weights, values, result = self.found.layout
            features = next(letter for letter in values if letter not in weights)
            order = layouts.order(weights[:-1] + features, result)
            if order is not None:
                after += f".transpose({', '.join(map(str, order))})"
        after += self._cast_back(operands)
        self._place(f"{core}.{FAST}", arguments, after)

    def _cast_back(self, operands: tuple[Operand, Operand, Operand]) -> str:
        """The cast that gives the result the type which it had."""
        query, key, _ = operands
        widened = "float32" in query.kind or "float32" in key.kind
        cast = self.found.weights.cast
        if cast is None:
            if self.scores.widened and not widened:
                return f".astype({self.names.core()}.float32)"
            return ""
        if isinstance(cast, ast.Attribute) and cast.attr == "dtype":
            of = cast.value
            if isinstance(of, ast.Name) and of.id in self.chain_names:
                return ""
            text = self.text.of(cast)
            return "" if text == query.kind and not widened else f".astype({text})"
        if self.names.full(cast) == "mlx.core.float32":
            return "" if widened else f".astype({self.names.core()}.float32)"
        made = None
        if isinstance(cast, ast.Name):
            made = made_of(self.found.weights.cast_names.get(cast.id))
        if made is None or not isinstance(made[0], ast.Attribute) or made[0].attr != "dtype":
            raise CannotSay(f"the weights are cast to `{ast.unparse(cast)}`", cast)
        # `dtype = queries.dtype`, perhaps before they were cast themselves.
        self._require_unchanged(self.found.weights.cast_names, cast)
        of = made[0].value
        unchanged = isinstance(of, ast.Name) and made[1].get(of.id) is self.found.names.get(of.id)
        same = unchanged and self.text.of(made[0]) == query.kind and not widened
        return "" if same else f".astype({self.text.of(cast)})"

    def _place(self, called: str, arguments: list[str], after: str) -> None:
        """Writes the call in the place of the attention, or above it where that gets too long."""
        statement = self.found.statement
        start, end = self.text.with_brackets(self.found.node)
        self.call = f"{called}({', '.join(arguments)}){after}"
        if self.text.fits(statement, start, end, self.call):
            self.made.append(Edit(start, end, self.call))
            return
        made = getattr(statement, "value", None)
        if (
            made is None
            or self.text.with_brackets(made) == (start, end)
            or not self._is_movable_up()
        ):
            line = self.text.text.rfind("\n", 0, start) + 1
            before = self.text.text[line:start]
            self.made.append(Edit(start, end, self._broken(before, called, arguments, after)))
            return
        name = self._name_of_result(statement)
        before = f"{self.text.indent(statement)}{name} = "
        text = self.call
        if len(before) + len(text) > self.text.width:
            text = self._broken(before, called, arguments, after)
        self._insert_before(statement, f"{name} = {text}")
        self.made.append(self._with_result(made, name))

    def _is_movable_up(self) -> bool:
        """Whether a line above the statement that makes the result runs when, and as often as, the
        attention does."""
        part: ast.AST = self.found.node
        while part is not self.found.statement:
            part = self.parents[part]
            if isinstance(part, _RUNS_AT_TIMES):
                return False
        return self.text.has_lines_alone(self.found.statement)

    def _name_of_result(self, statement: ast.stmt) -> str:
        """The name that the statement binds, where that is free, or a new one."""
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and self._is_free(target.id):
            return target.id
        return self._fresh(("output", "attended", "attention_output"))

    def _with_result(self, made: ast.expr, name: str) -> Edit:
        """Has `name` stand for the result in what is done with it: on one line where that fits
        now, since the name is shorter than the attention was."""
        start, end = self.text.with_brackets(self.found.node)
        plain = Edit(start, end, name)
        whole = self.text.with_brackets(made)
        has_other_edits = any(whole[0] <= edit.start and edit.end <= whole[1] for edit in self.made)
        if "\n" not in self.text.text[slice(*whole)] or has_other_edits:
            return plain
        first, last = self.text.span(made)
        line = joined(self.text.text[first:start] + name + self.text.text[end:last])
        if line is None or not self.text.fits(self.found.statement, *whole, line):
            return plain
        return Edit(*whole, line)

    def _is_free(self, name: str) -> bool:
        """Whether the statement that makes the result reads nothing of the name that it binds."""
        made = self.found.statement.value  # type: ignore[attr-defined]
        inside = set(ast.walk(self.found.node))
        return not any(
            isinstance(part, ast.Name) and part.id == name
            for part in ast.walk(made)
            if part not in inside
        )

    def _broken(self, before: str, called: str, arguments: list[str], after: str) -> str:
        """The call over several lines, as black breaks it behind `before`."""
        indent = before[: len(before) - len(before.lstrip())]
        step = indent + "    "
        together = ", ".join(arguments)
        method, bracket, given = after.partition("(")  # `.astype(mx.float32)`
        line = f"{called}({together}){method}("
        if bracket and len(before) + len(line) <= self.text.width:
            return f"{line}\n{step}{given[:-1]}\n{indent})"
        if len(step) + len(together) <= self.text.width:
            return f"{called}(\n{step}{together}\n{indent}){after}"
        lines = "".join(f"{step}{argument},\n" for argument in arguments)
        return f"{called}(\n{lines}{indent}){after}"


def _negated(node: ast.expr) -> ast.expr:
    value = ast.literal_eval(node)
    return ast.Constant(-value)


def _factor_text(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    low = isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Pow | ast.Mult)
    return f"({text})" if low or isinstance(node, ast.IfExp) else text


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("(") and _balanced(text[1:-1]) else text


def _balanced(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True
