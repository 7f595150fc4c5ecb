"""Writes the fused call in the place of attention by hand, and takes out what it makes needless."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from flash_codemods.handwritten import products
from flash_codemods.handwritten.masks import CannotSay, MaskWriter, masks_of, most_at_once
from flash_codemods.handwritten.operations import Names, Operation, permutation, swaps_last_two
from flash_codemods.handwritten.reading import Reading
from flash_codemods.handwritten.text import Edit, Text
from flash_codemods.handwritten.values import (
    Array,
    Binding,
    Choice,
    Factor,
    Found,
    Items,
    Lost,
    Mask,
    Scores,
    Step,
    Weights,
)

FAST = "fast.scaled_dot_product_attention"
_MASK_NAMES = ("attention_mask", "attn_mask", "fused_mask")
_BIAS_NAMES = ("bias", "attention_bias", "score_bias")


@dataclass
class Operand:
    """Queries, keys or values as the call is given them, and the edits which that needs."""

    text: str
    kind: str
    """An expression that has their type."""
    edits: list[Edit] = field(default_factory=list)
    gone: list[ast.AST] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    repeats: bool = False
    """Whether its heads are no longer repeated."""


class Rewriting:
    """The edits that make one attention a fused call.

    Raises, from `edits`:
        CannotSay: why it can't be one.
    """

    def __init__(self, text: Text, names: Names, reading: Reading, found: Found) -> None:
        self.text = text
        self.names = names
        self.reader = reading.reader
        self.function = reading.function
        self.found = found
        self.scores = found.weights.scores
        self.chain = self._chain()
        self.chain_names = {binding.name for binding in self.chain}
        self.gone: list[ast.AST] = []
        """Nodes that are no longer there, or whose text is replaced."""
        self.made: list[Edit] = []
        self.keeps_repeats = False
        self.call = ""
        """What stands in the place of weights times values."""
        self.alone: set[int] = set()
        """Lines that go with the comments above them."""
        self.parents = {
            child: parent
            for parent in ast.walk(self.function)
            for child in ast.iter_child_nodes(parent)
        }

    def edits(self) -> list[Edit]:
        core = self.names.core()
        if core is None:
            raise CannotSay("the file does not import mlx.core", self.found.node)
        rank = self._rank()
        self._check_same_suite()
        for statement in self._chain_statements():
            if statement is not self.found.statement:
                self._remove(statement)
        self.gone.append(self.found.node)
        query = self._operand(self.scores.query, self.scores.names, "query")
        key = self._key()
        value = self._operand(self.found.value, self.found.names, "value")
        if key.repeats != value.repeats:
            self.keeps_repeats = True
            key = self._key()
            value = self._operand(self.found.value, self.found.names, "value")
        operands = (query, key, value)
        for operand in operands:
            self.gone += operand.gone
            self.made += operand.edits
            if operand.repeats:
                self.alone.update(part.lineno for part in operand.gone if isinstance(part, ast.stmt))
        kind = query.kind
        masks = MaskWriter(self.text, self.names, self.chain_names, kind)
        mask = self._mask(masks)
        scale = self._scale([*self.scores.factors, *query.factors, *key.factors])
        self._check_uses()
        self._write(core, rank, operands, scale, mask)
        self._remove_dead()
        self._check_names()
        return self.text.tidied(self.made, self.alone)

    # What belongs to it

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
                raise CannotSay(
                    "the scores are made in another branch than they are used in", node
                )

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
            uses = [
                part
                for part in ast.walk(self.function)
                if isinstance(part, ast.Name) and part.id == named and part.lineno > node.lineno
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
        names = [
            part.id
            for part in (query, inner if inner is not None else key, value)
            if isinstance(part, ast.Name)
        ]
        given = {item.arg for item in self.function.args.args}
        return len(names) == 3 and set(names) <= given

    # Operands

    def _operand(self, node: ast.expr, names: dict[str, Binding], role: str) -> Operand:
        """What is multiplied, without a scale: that becomes the call's."""
        if role != "value" and isinstance(node, ast.BinOp):
            if (parts := self._scaled(node)) is not None:
                inner = self._operand(parts[0], names, role)
                inner.factors.append(parts[1])
                return inner
        layout = self._layout(role)
        if isinstance(node, ast.Name):
            binding = names.get(node.id)
            if binding is not None and role != "value":
                if (peeled := self._scaled_before(node, binding)) is not None:
                    return self._ordered(peeled, layout)
            if binding is not None and (bare := self._unrepeated(node, binding)) is not None:
                return self._ordered(bare, layout)
            return self._ordered(Operand(node.id, f"{node.id}.dtype"), layout)
        if not self._is_movable(node):
            raise CannotSay(f"the {_PLURALS[role]} have no name", node)
        text = self.text.of(node)
        return self._ordered(Operand(_atom(text), f"{self._kind_of(node)}"), layout)

    def _layout(self, role: str) -> list[int] | None:
        """How an einsum's operand is transposed to what the call takes."""
        if self.scores.layout is not None and role != "value":
            query, key, scores = self.scores.layout
            own = query if role == "query" else key
            batch = scores[:-2]
            rest = [letter for letter in own if letter not in batch]
            positions = scores[-2] if role == "query" else scores[-1]
            features = next(letter for letter in rest if letter != positions)
            return products.order(own, batch + positions + features)
        if self.found.layout is not None and role == "value":
            weights, values, _ = self.found.layout
            features = next(letter for letter in values if letter not in weights)
            return products.order(values, weights[:-2] + weights[-1] + features)
        return None

    def _ordered(self, operand: Operand, order: list[int] | None) -> Operand:
        if order is not None:
            operand.text = f"{operand.text}.transpose({', '.join(map(str, order))})"
        return operand

    def _scaled(self, node: ast.BinOp) -> tuple[ast.expr, Factor] | None:
        """An operand and the number by which it is multiplied or divided."""
        if not isinstance(node.op, ast.Mult | ast.Div):
            return None
        divides = isinstance(node.op, ast.Div)
        if self._is_number(node.right):
            return node.left, Factor(node.right, divides, self.reader_names(node.right))
        if not divides and self._is_number(node.left):
            return node.right, Factor(node.left, False, self.reader_names(node.left))
        return None

    def reader_names(self, node: ast.expr) -> dict[str, Binding]:
        """What the names in a number stand for where the product is made."""
        return {
            part.id: binding
            for part in ast.walk(node)
            if isinstance(part, ast.Name)
            for binding in self.reader.bound
            if part in binding.uses and binding.name == part.id
        }

    def _is_number(self, node: ast.expr) -> bool:
        from flash_codemods.handwritten.values import Number

        before = self.reader.env
        self.reader.env = {**before, **self._all_names(node)}
        counts = {id(binding): len(binding.uses) for binding in self.reader.bound}
        value = self.reader.value(node)
        for binding in self.reader.bound:
            del binding.uses[counts[id(binding)] :]
        self.reader.env = before
        return isinstance(value, Number)

    def _all_names(self, node: ast.expr) -> dict[str, Binding]:
        return self.reader_names(node)

    def _scaled_before(self, node: ast.Name, binding: Binding) -> Operand | None:
        """Queries or keys that a statement of its own, used for nothing else, has scaled."""
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.BinOp):
            return None
        if statement not in self._suite_of(self.found.statement) or binding.uses != [node]:
            return None
        if len(statement.targets) != 1 or (parts := self._scaled(statement.value)) is None:
            return None
        inner, factor = parts
        gone: list[ast.AST] = [factor.node]
        if isinstance(inner, ast.Name):
            if inner.id != node.id and self._binding_of(inner) is not self._at_call(inner.id):
                return None
            edits = [self._removal(statement)]
            name = inner.id
            gone = [statement]
            return Operand(name, f"{name}.dtype", edits, gone, [factor])
        start, end = self.text.span(statement.value)
        inner_start, inner_end = self.text.with_brackets(inner)
        edits = [
            Edit(*_rest(start, inner_start, self.text)),
            Edit(*_rest(inner_end, end, self.text)),
        ]
        edits = [edit for edit in edits if edit.start < edit.end]
        return Operand(node.id, f"{node.id}.dtype", edits, gone, [factor])

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

    def _key(self) -> Operand:
        """The keys as the call takes them, features last."""
        node = self.scores.key
        factors: list[Factor] = []
        while isinstance(node, ast.BinOp) and (parts := self._scaled(node)) is not None:
            node = parts[0]
            factors.append(parts[1])
        if self.scores.layout is not None:
            key = self._operand(node, self.scores.names, "key")
        elif (inner := self.reader.swapped(node)) is not None:
            key = self._operand(inner, self.scores.names, "key")
        elif isinstance(node, ast.Name):
            key = self._key_made_transposed(node)
        else:
            raise CannotSay("the keys have no name", node)
        key.factors += factors
        return key

    def _key_made_transposed(self, node: ast.Name) -> Operand:
        """Keys whose name stands for them transposed."""
        binding = self.scores.names.get(node.id)
        statement = binding.statement if binding is not None else None
        plain = Operand(f"{node.id}.swapaxes(-1, -2)", f"{node.id}.dtype")
        if binding is None or not isinstance(statement, ast.Assign) or binding.uses != [node]:
            return plain
        if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
            return plain
        made, factors = statement.value, []
        edits: list[Edit] = []
        if isinstance(made, ast.BinOp) and (parts := self._scaled(made)) is not None:
            end = self.text.span(made)[1]
            edits = [Edit(*_rest(self.text.with_brackets(parts[0])[1], end, self.text))]
            if not edits[0].start < edits[0].end or parts[0] is not made.left:
                return plain
            made, factors = parts[0], [parts[1]]
        operation = self.names.operation(made)
        if operation is None:
            return plain
        inner = self.reader.swapped(made)
        gone: list[ast.AST] = [factor.node for factor in factors]
        if isinstance(inner, ast.Name) and not factors:
            if self._binding_of(inner) is self._at_call(inner.id) or inner.id == node.id:
                removal = [self._removal(statement)]
                return Operand(inner.id, f"{inner.id}.dtype", removal, [statement])
        order = self._reordered(operation)
        if order is None:
            return plain
        edits.append(order)
        return Operand(node.id, f"{node.id}.dtype", edits, gone, factors)

    def _reordered(self, operation: Operation) -> Edit | None:
        """The edit that leaves features last in `transpose(0, 2, 3, 1)`."""
        axes = operation.axes("axes")
        order = permutation(operation, len(axes))
        if operation.name != "transpose" or order is None or len(order) < 3:
            return None
        order = [*order[:-2], order[-1], order[-2]]
        if not all(isinstance(axis, ast.Constant) for axis in axes):
            return None
        start, end = self.text.span(axes[0])[0], self.text.span(axes[-1])[1]
        return Edit(start, end, ", ".join(map(str, order)))

    def _is_movable(self, node: ast.expr) -> bool:
        """Whether an expression gives the same a few lines further down."""
        if isinstance(node, ast.Name | ast.Constant):
            return True
        if isinstance(node, ast.Attribute):
            return self._is_movable(node.value)
        if isinstance(node, ast.Subscript):
            return self._is_movable(node.value)
        operation = self.names.operation(node)
        return operation is not None and all(
            self._is_movable(argument)
            for argument in operation.arguments
            if not isinstance(argument, ast.Starred | ast.UnaryOp | ast.BinOp | ast.Tuple)
        )

    def _kind_of(self, node: ast.expr) -> str:
        """An expression that has the type of an operand."""
        operation = self.names.operation(node)
        if operation is not None and operation.name == "astype":
            kind = operation.argument(1, "dtype")
            return self.text.of(kind) if kind is not None else ""
        if operation is not None and operation.arguments:
            return self._kind_of(operation.arguments[0])
        if isinstance(node, ast.Subscript):
            return self._kind_of(node.value)
        return f"{_atom(self.text.of(node))}.dtype"

    # Scale and mask

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
            return f"{parts[0]}**2" if isinstance(only, ast.Name | ast.Attribute) else (
                f"({parts[0]}) ** 2"
            )
        if len(parts) == 1:
            return _without_brackets(parts[0])
        return " * ".join(_factor_text(part) for part in parts)

    def _factor(self, factor: Factor) -> str:
        text = self.text.of(factor.node)
        operation = self.names.operation(factor.node)
        if operation is not None and operation.name == "sqrt":
            of = _atom(self.text.of(operation.arguments[0]))
            return f"{of} ** {'-0.5' if factor.divides else '0.5'}"
        if factor.divides:
            node = factor.node
            plain = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Constant)
            return f"1 / {text}" if plain else f"1 / ({text})"
        return text

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
        if binding is None or not bindings or self._is_used_later(bindings, choice):
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
        end = choice.statement.end_lineno or choice.statement.lineno
        return any(use.lineno > end for binding in bindings for use in binding.uses)

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
                self._replace(statement, name, masks.of(step))
            else:
                self._replace(made, name, masks.made(step, made.value))
                self.gone.append(made)


    def _made_for(self, step: Mask) -> ast.Assign | None:
        """The statement in the same branch that makes a mask for this step alone."""
        node = step.bias if step.bias is not None else step.seen
        binding = step.names.get(node.id) if isinstance(node, ast.Name) else None
        statement = binding.statement if binding is not None else None
        if binding is None or not isinstance(statement, ast.Assign) or binding.uses != [node]:
            return None
        plain = len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
        same = statement in self._suite_of(step.statement)
        return statement if plain and same and self._is_pure(statement.value) else None

    def _masking_statement(self, step: Mask) -> ast.stmt:
        statement = step.statement
        own = step.node is getattr(statement, "value", None) or isinstance(
            statement, ast.AugAssign
        )
        if not own:
            raise CannotSay("a branch does more than mask the scores in one line", statement)
        return statement

    def _replace(self, statement: ast.stmt, name: str, text: str) -> None:
        if text == name:
            return
        start, end = self.text.span(statement)
        self.made = [edit for edit in self.made if not (edit.start <= start < edit.end)]
        self.made.append(Edit(start, end, f"{name} = {text}"))

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
        self.made.append(Edit(start, end, f"{name} = {text}"))
        for step in masks_of(tuple(rest)):
            self._replace(self._masking_statement(step), name, masks.combined(step, name))
        return masks.cast(name)

    def _fresh(self, names: tuple[str, ...]) -> str:
        taken = {part.id for part in ast.walk(self.function) if isinstance(part, ast.Name)}
        taken |= {part.arg for part in ast.walk(self.function) if isinstance(part, ast.arg)}
        for name in names:
            if name not in taken:
                return name
        raise CannotSay(f"the names {', '.join(names)} are all taken", self.found.node)

    def _insert_before(self, statement: ast.stmt, line: str) -> None:
        start = self.text.line_start(statement.lineno)
        self.made.append(Edit(start, start, f"{self.text.indent(statement)}{line}\n"))

    # Uses

    def _require_unchanged(self, names: dict[str, Binding], node: ast.AST) -> None:
        for name, binding in names.items():
            at_call = self.found.names.get(name, binding)
            if at_call is not binding or self._rebound(name, binding):
                raise CannotSay(f"`{name}` is bound anew before the result is made", node)

    def _rebound(self, name: str, binding: Binding) -> bool:
        """Whether a name stands for something else where the call is made."""
        later = [
            item
            for item in self.reader.bound
            if item.name == name
            and item is not binding
            and item.statement is not None
            and binding.statement is not item.statement
            and self._between(item.statement, binding)
        ]
        return bool(later)

    def _between(self, statement: ast.stmt, binding: Binding) -> bool:
        after = self.scores.product.lineno
        last = self.found.statement.lineno
        if statement in self.gone or any(statement is part for part in self.gone):
            return False
        return after <= statement.lineno < last

    def _check_names(self) -> None:
        """The names in the call stand for what they stood for when the scores were made."""
        used = {**self.scores.names, **getattr(self, "factor_names", {})}
        for name, binding in used.items():
            if self._rebound(name, binding):
                raise CannotSay(f"`{name}` is bound anew before the result is made", self.found.node)

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
            if reads and part.id in names and part not in gone:  # type: ignore[attr-defined]
                if part.lineno < self.scores.product.lineno:  # type: ignore[attr-defined]
                    raise CannotSay("the scores are used again in the loop's next turn", part)

    def _use(self, binding: Binding, use: ast.Name) -> str:
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

    # The call

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
            order = products.order(weights[:-1] + features, result)
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
        if self.names.full(cast) == "mlx.core.float32" and not widened:
            return f".astype({self.names.core()}.float32)"
        raise CannotSay(f"the weights are cast to `{ast.unparse(cast)}`", cast)

    def _place(self, called: str, arguments: list[str], after: str) -> None:
        statement = self.found.statement
        start, end = self.text.with_brackets(self.found.node)
        one_line = f"{called}({', '.join(arguments)}){after}"
        self.call = one_line
        limit = self.text.longest_line()
        first, last = self.text.span(statement)
        line = self.text.text[first:start] + one_line + self.text.text[end:last]
        longest = max(len(part) for part in line.split("\n"))
        indent = self.text.indent(statement)
        if longest + len(indent) <= limit:
            self.made.append(Edit(start, end, one_line))
            return
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        rest = self.text.text[end:last]
        if isinstance(target, ast.Name) and rest.strip() and self._is_free(target.id):
            own = f"{target.id} = {called}({', '.join(arguments)}){after}"
            if len(own) + len(indent) > limit:
                own = f"{target.id} = {self._broken(called, arguments, after, indent, limit)}"
            self._insert_before(statement, own)
            self.made.append(Edit(start, end, target.id))
            return
        self.made.append(Edit(start, end, self._broken(called, arguments, after, indent, limit)))

    def _is_free(self, name: str) -> bool:
        """Whether the statement that makes the result reads nothing of the name that it binds."""
        made = self.found.statement.value  # type: ignore[attr-defined]
        inside = set(ast.walk(self.found.node))
        return not any(
            isinstance(part, ast.Name) and part.id == name
            for part in ast.walk(made)
            if part not in inside
        )

    def _broken(
        self, called: str, arguments: list[str], after: str, indent: str, limit: int
    ) -> str:
        step = indent + "    "
        together = f"{step}{', '.join(arguments)}"
        if len(together) <= limit:
            return f"{called}(\n{together}\n{indent}){after}"
        lines = "".join(f"{step}{argument},\n" for argument in arguments)
        return f"{called}(\n{lines}{indent}){after}"

    # Taking out

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
                if statement is None or self._is_gone(statement):
                    continue
                if self._is_dead(binding, kept):
                    self._remove(statement)
                    changed = True
            changed |= self._remove_empty()
            if not changed:
                return

    def _is_dead(self, binding: Binding, kept: set[str]) -> bool:
        statement = binding.statement
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return False
        if not isinstance(statement.targets[0], ast.Name) or not binding.uses:
            return False
        if binding.name in kept or not self._is_pure(statement.value):
            return False
        if not self.text.has_lines_alone(statement):
            return False
        return all(self._is_gone(use) for use in binding.uses)

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
            for suite in (getattr(node, "body", None), getattr(node, "orelse", None)):
                if isinstance(suite, list) and suite and not self._is_gone(node):
                    if all(self._is_removed(part) for part in suite):
                        raise CannotSay("a branch would be left without a statement", suite[0])
        return False

    def _is_removed(self, statement: ast.AST) -> bool:
        if not isinstance(statement, ast.stmt):
            return False
        start, end = self.text.span(statement)
        return any(
            edit.start <= start and end <= edit.end and not edit.text for edit in self.made
        )


_PLURALS = {"query": "queries", "key": "keys", "value": "values"}


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


def _atom(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    return text if plain else f"({text})"


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


def _words(text: str) -> list[str]:
    try:
        tree = ast.parse(text.strip().lstrip("."), mode="exec")
    except SyntaxError:
        import re

        return re.findall(r"\b[A-Za-z_]\w*\b", text)
    return [part.id for part in ast.walk(tree) if isinstance(part, ast.Name)]


def _rest(start: int, end: int, text: Text) -> tuple[int, int, str]:
    return start, end, ""
