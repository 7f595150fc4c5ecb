"""The statements that mask scores, turned into statements that make the call's mask."""

from __future__ import annotations

import ast

from flash_codemods.handwritten.values import Binding, Choice, Mask, Step
from flash_codemods.handwritten.writing.draft import Draft
from flash_codemods.handwritten.writing.masks import MaskWriter, masks_of, most_at_once
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.text import Edit, is_outdated

_MASK_NAMES = ("attention_mask", "attn_mask", "fused_mask")
_BIAS_NAMES = ("bias", "attention_bias", "score_bias")


class Masking(Draft):
    """Writes a mask in the place where the scores were masked."""

    def _mask(self, masks: MaskWriter) -> str | None:
        """The call's mask; statements that build it are written on the way."""
        steps = self.scores.steps
        if not steps:
            return None
        if all(isinstance(step, Mask) for step in steps):
            return self._unconditional(masks, [step for step in steps if isinstance(step, Mask)])
        if len(steps) == 1 and isinstance(steps[0], Choice) and most_at_once(steps) == 1:
            return self._chosen(masks, steps[0])
        if isinstance(steps[0], Mask):
            return self._summed(masks, steps)
        if all(_is_optional(step) for step in steps):
            return self._collected(masks, steps)
        raise CannotSay("more than one mask, of which the first may be missing", steps[0].statement)

    def _unconditional(self, masks: MaskWriter, steps: list[Mask]) -> str:
        for step in steps:
            self._require_unchanged(step.names, step.node)
        if len(steps) == 1:
            return masks.of(steps[0])
        text = masks.as_bias(steps[0])
        for step in steps[1:]:
            text = masks.combined(step, text)
        return masks.cast(text)

    def _chosen(self, masks: MaskWriter, choice: Choice) -> str:
        """One mask or none, as a test says."""
        if isinstance(choice.node, ast.IfExp):
            texts = []
            for branch in (choice.then, choice.otherwise):
                if any(not isinstance(step, Mask) for step in branch) or len(branch) > 1:
                    raise CannotSay("masks are chosen twice in an expression", choice.node)
                texts.append(masks.of(branch[0]) if branch else "None")  # type: ignore[arg-type]
            for step in masks_of((choice,)):
                self._require_unchanged(step.names, step.node)
            test = self.text.of(choice.test)
            return f"{texts[0]} if {test} else {texts[1]}"
        name = self._given_by(choice)
        if name is None and (word := self._causal_or_not(masks, choice)) is not None:
            return word
        set_before = name is None
        if name is None:
            name = self._fresh(_MASK_NAMES)
        self._assign_in(masks, choice, name)
        if set_before and not self._always_one(choice):
            self._insert_before(choice.statement, f"{name} = None")
        return name

    def _causal_or_not(self, masks: MaskWriter, choice: Choice) -> str | None:
        """`"causal" if causal else None`, where the `if` does nothing else."""
        steps = choice.then
        if choice.otherwise or len(steps) != 1 or not isinstance(steps[0], Mask):
            return None
        if not masks.is_causal(steps[0]) or not isinstance(choice.node, ast.If):
            return None
        if choice.node.orelse or not isinstance(choice.test, ast.Name | ast.Attribute):
            return None
        for statement in choice.node.body:
            if not isinstance(statement, ast.Assign) or not self._is_local(statement, choice.node):
                return None
        self._remove(choice.node)
        return f'"causal" if {self.text.of(choice.test)} else None'

    def _is_local(self, statement: ast.Assign, inside: ast.If) -> bool:
        """Whether what a statement binds is used nowhere but inside the `if`, or is the scores."""
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if len(names) != len(statement.targets) or not self._is_pure(statement.value):
            return False
        within = set(ast.walk(inside))
        return all(
            use in within
            for binding in self.reader.bound
            if binding.statement is statement and binding not in self.chain
            for use in binding.uses
        )

    def _given_by(self, choice: Choice) -> str | None:
        """The name that holds a mask or None by its test, if it is free to hold the call's."""
        name = _tested_name(choice.test)
        if name is None or self.found.loop is not None:
            return None
        binding = self.found.names.get(name) or self.reader.env.get(name)
        bindings = [item for item in self.reader.bound if item.name == name]
        if binding is None or self._is_used_later(bindings, choice):
            return None
        absent = choice.otherwise if _is_given(choice.test) else choice.then
        present = choice.then if _is_given(choice.test) else choice.otherwise
        if not self._has_mask_always(present):
            return None
        # Where it is None there is no mask, or another one.
        if absent and not self._has_mask_always(absent):
            return None
        if not any(name in step.names for step in masks_of((choice,))):
            derived = masks_of(present)
            if not all(self._derives_from(step, name) for step in derived):
                return None
        return name

    def _derives_from(self, step: Mask, name: str) -> bool:
        return any(name in binding.seen for binding in step.names.values())

    def _is_used_later(self, bindings: list[Binding], choice: Choice) -> bool:
        """Whether a name of a mask is used for something else, or bound anew, below a choice, or
        bound anew in it where the scores are masked already."""
        end = choice.statement.end_lineno or choice.statement.lineno
        anew = [item.statement.lineno for item in bindings if item.statement is not None]
        uses = [use.lineno for binding in bindings for use in binding.uses]
        masking = [step.statement for step in masks_of((choice,))]
        spans = [(item.lineno, self._suite_of(item)[-1].end_lineno or end) for item in masking]
        masked = any(first < line <= last for line in anew for first, last in spans)
        return masked or any(line > end for line in [*anew, *uses])

    def _has_mask_always(self, steps: tuple[Step, ...]) -> bool:
        """Whether steps hold one mask whatever is chosen."""
        if len(steps) != 1:
            return False
        only = steps[0]
        return isinstance(only, Mask) or self._always_one(only)

    def _always_one(self, choice: Choice) -> bool:
        return self._has_mask_always(choice.then) and self._has_mask_always(choice.otherwise)

    def _assign_in(self, masks: MaskWriter, choice: Choice, name: str) -> None:
        """Has every branch set `name` to its mask in the place where it masked the scores."""
        for step in masks_of((choice,)):
            statement = self._masking_statement(step)
            made = self._made_for(step)
            if made is None:
                self._replace(statement, name, self._tested(step, name) or masks.of(step))
            else:
                self._replace(made, name, masks.made(step, made.value))
                self.gone.append(made)

    def _tested(self, step: Mask, name: str) -> str | None:
        """A mask of another name that is a bool array, as the `if` around it asks:
        `mask.dtype == mx.bool_`."""
        branch, seen = self.parents[step.statement], step.seen
        if not isinstance(branch, ast.If) or not isinstance(seen, ast.Name) or step.inverted:
            return None
        test = branch.test
        is_compared = isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq)
        if (
            step.statement not in branch.body
            or not isinstance(test, ast.Compare)
            or not is_compared
        ):
            return None
        asks_own = ast.unparse(test.left) == f"{seen.id}.dtype"
        is_bool = self.names.full(test.comparators[0]) == "mlx.core.bool_"
        return seen.id if asks_own and is_bool and seen.id != name else None

    def _made_for(self, step: Mask) -> ast.Assign | None:
        """The array expression in the same branch that makes a mask for this step alone."""
        statement = self._made_alone(step)
        return statement if statement is not None and self._is_pure(statement.value) else None

    def _made_alone(self, step: Mask) -> ast.Assign | None:
        """The statement in the same branch that makes a mask for this step alone."""
        node = step.bias if step.bias is not None else step.seen
        binding = step.names.get(node.id) if isinstance(node, ast.Name) else None
        statement = binding.statement if binding is not None else None
        if binding is None or not isinstance(statement, ast.Assign) or binding.uses != [node]:
            return None
        plain = len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
        same = statement in self._suite_of(step.statement)
        return statement if plain and same else None

    def _masking_statement(self, step: Mask) -> ast.stmt:
        statement = step.statement
        own = step.node is getattr(statement, "value", None) or isinstance(statement, ast.AugAssign)
        if not own:
            raise CannotSay("a branch does more than mask the scores in one line", statement)
        return statement

    def _replace(self, statement: ast.stmt, name: str, text: str) -> None:
        if text == name:
            return
        start, end = self.text.span(statement)
        self.made = [edit for edit in self.made if not (edit.start <= start < edit.end)]
        line = f"{name} = {text}"
        before = self.text.text[start:end]
        for above, removal in self.text.comments_above(statement):
            if is_outdated(above, before, line):
                self.made.append(removal)
        comment = self.text.rest_of_line(statement)
        if not self.text.fits(statement, start, self.text.line_end(statement), line):
            line = self._broken_as_before(statement, line)
        if comment and is_outdated(comment, before, line):
            end = self.text.line_end(statement)
        elif comment and not self.text.fits(statement, start, end, line):
            line = f"{comment}\n{self.text.indent(statement)}{line}"
            end = self.text.line_end(statement)
        self.made.append(Edit(start, end, line))

    def _broken_as_before(self, statement: ast.stmt, line: str) -> str:
        """A line that is too long, broken where the author broke what it is made of."""
        for node in ast.walk(statement):  # the widest parts come first
            if isinstance(node, ast.expr) and self.text.of(node) in line:
                start, end = self.text.span(node)
                if "\n" in (source := self.text.text[start:end]):
                    return line.replace(self.text.of(node), source, 1)
        return line

    def _summed(self, masks: MaskWriter, steps: tuple[Step, ...]) -> str:
        """A mask that is there in any case, and others that may be added to it."""
        name = self._fresh(_BIAS_NAMES)
        first = steps[0]
        assert isinstance(first, Mask)
        if first.statement is self.found.statement:
            raise CannotSay("masks are chosen after the first one in the same line", first.node)
        if not isinstance(first.statement, ast.Assign | ast.AugAssign):
            raise CannotSay("the first mask is not added in a line of its own", first.node)
        start, end = self.text.span(first.statement)
        self.made = [edit for edit in self.made if not (edit.start <= start < edit.end)]
        text = masks.as_bias(first)
        rest = list(steps[1:])
        while rest and isinstance(rest[0], Mask) and rest[0].statement is first.statement:
            text = masks.combined(rest.pop(0), text)  # type: ignore[arg-type]
        made = self._made_alone(first)
        if made is not None and len(rest) == len(steps) - 1:
            self.made.append(Edit(*self.text.span(made.targets[0]), name))
            self._remove(first.statement)
        else:
            self.made.append(Edit(start, end, f"{name} = {text}"))
        for step in masks_of(tuple(rest)):
            self._replace(self._masking_statement(step), name, masks.combined(step, name))
        return masks.cast(name)

    def _collected(self, masks: MaskWriter, steps: tuple[Step, ...]) -> str:
        """Masks that may be missing, each by itself: None, or the sum of those that are there."""
        name = self._fresh(_MASK_NAMES)
        for number, step in enumerate(masks_of(steps)):
            if step.bias is None:
                order = "follows" if number else "is followed by"
                raise CannotSay(f"a mask that hides {order} one that may be missing", step.node)
            statement, text = self._masking_statement(step), masks.cast(masks.bias(step))
            if number:
                text = self._added(name, text, self.text.indent(statement))
            self._replace(statement, name, text)
        assert isinstance(steps[0], Choice)
        self._insert_before(steps[0].statement, f"{name} = None")
        return name

    def _added(self, name: str, text: str, indent: str) -> str:
        """The mask so far with one more; broken as black does where it is too long for a line."""
        parts = [text, f"if {name} is None", f"else {name} + {text}"]
        line = " ".join(parts)
        if len(f"{indent}{name} = {line}") <= self.text.width:
            return line
        return "(\n" + "".join(f"{indent}    {part}\n" for part in parts) + f"{indent})"

    def _fresh(self, names: tuple[str, ...]) -> str:
        taken = {part.id for part in ast.walk(self.function) if isinstance(part, ast.Name)}
        taken |= {part.arg for part in ast.walk(self.function) if isinstance(part, ast.arg)}
        for name in names:
            if name not in taken:
                return name
        raise CannotSay(f"the names {', '.join(names)} are all taken", self.found.node)


def _is_optional(step: Step) -> bool:
    """Whether it is one mask or none, chosen by an `if`."""
    return (
        isinstance(step, Choice)
        and isinstance(step.node, ast.If)
        and not step.otherwise
        and len(step.then) == 1
        and isinstance(step.then[0], Mask)
    )


def _tested_name(test: ast.expr) -> str | None:
    """`mask` of `mask is not None`, `mask is None` and `mask`."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.left, ast.Name):
        none = test.comparators[0]
        is_none = isinstance(none, ast.Constant) and none.value is None
        if is_none and isinstance(test.ops[0], ast.Is | ast.IsNot):
            return test.left.id
    return None


def _is_given(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)
