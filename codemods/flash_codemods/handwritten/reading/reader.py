"""Reads a function statement by statement: which names are bound to what, in every branch."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Sequence

from flash_codemods.handwritten.operations import Names, is_as_written
from flash_codemods.handwritten.reading.classes import ClassFacts, is_number_parameter
from flash_codemods.handwritten.reading.expressions import Expressions
from flash_codemods.handwritten.reading.loops import counts, one_of
from flash_codemods.handwritten.values import (
    Array,
    Binding,
    Each,
    Items,
    Lost,
    Number,
    Other,
    Scores,
    Shape,
    Value,
    Weights,
)


class Reader(Expressions):
    """One function as it runs from above to below; where branches meet, what both know is kept."""

    def __init__(
        self,
        names: Names,
        owner: ClassFacts,
        constants: dict[str, ast.expr],
        functions: dict[str, ast.FunctionDef],
        depth: int = 0,
    ) -> None:
        super().__init__(names, owner, constants, depth)
        self.functions = dict(functions)
        self.results: list[Value] = []

    def read(self, function: ast.FunctionDef, given: Sequence[Value] = ()) -> None:
        """Reads the body; `given` are the values of the parameters, where a call gives them."""
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: dict[str, ast.expr | None] = {}
        for item, default in zip(reversed(positional), reversed(arguments.defaults), strict=False):
            defaults[item.arg] = default
        for keyword, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            defaults[keyword.arg] = value
        for index, item in enumerate([*positional, *arguments.kwonlyargs]):
            known: Value = Array()
            if is_number_parameter(item, defaults.get(item.arg)):
                known = Number()
            if index < len(given):
                known = given[index]
            self._bind(item.arg, known, None)
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                self._bind(rest.arg, Other(), None)
        self.suite(function.body)

    def suite(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.statement = statement
            method = getattr(self, f"_{type(statement).__name__.lower()}", self._children)
            method(statement)

    def returned(self, function: ast.FunctionDef, given: list[Value]) -> Value:
        """What a function of the file gives, of which the axes are asked."""
        results = self.of_function(function, given).results
        if not results:
            return Other()
        if all(isinstance(result, Items) for result in results):
            return results[0]
        ranks = {result.rank for result in results if isinstance(result, Array)}
        arrays = [result for result in results if isinstance(result, Array)]
        if len(ranks) != 1 or len(arrays) != len(results):
            return Array()
        return Array(ranks.pop(), any(result.transposed for result in arrays))

    def of_function(self, function: ast.FunctionDef, given: Sequence[Value] = ()) -> Reader:
        """A reader that has read a function of the file."""
        inner = Reader(self.names, self.owner, self.constants, self.functions, depth=self.depth + 1)
        inner.read(function, given)
        return inner

    # Bindings

    def _assign_to(self, target: ast.expr, value: Value, statement: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value, statement)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value, statement)
        elif isinstance(target, ast.Starred):
            self._assign_to(target.value, Other(), statement)
        else:
            self.value(target)

    def _unpack(self, target: ast.Tuple | ast.List, value: Value, statement: ast.stmt) -> None:
        count = len(target.elts)
        starred = any(isinstance(item, ast.Starred) for item in target.elts)
        values: Sequence[Value] = [Other()] * count
        if isinstance(value, Items) and len(value.values) >= count and not starred:
            values = value.values[:count]  # `q, k = rope(q, k, cos)` gives back the first ones
        elif isinstance(value, Each):
            values = [value.value] * count
        elif isinstance(value, Shape) or (isinstance(value, Items) and starred):
            values = [Number()] * count
        elif isinstance(value, Array):
            values = [self._part(value, statement)] * count
        for item, part in zip(target.elts, values, strict=True):
            self._assign_to(item, part, statement)

    def _part(self, value: Array, statement: ast.stmt) -> Value:
        """One of the arrays into which another is cut: by `mx.split` along an axis, or by going
        over its first one."""
        given = getattr(statement, "value", None)
        operation = self.names.operation(given) if given is not None else None
        if operation is not None and operation.name == "split":
            return dataclasses.replace(value, single=False)
        if isinstance(given, ast.Call):
            return Array()
        return Array(value.rank - 1 if value.rank else None)

    def _generatorexp(self, node: ast.GeneratorExp) -> Value:
        """`(part.reshape(B, L, H, -1) for part in mx.split(qkv, 3, axis=-1))`."""
        loop, before = node.generators[0], dict(self.env)
        of = self.value(loop.iter)
        self._assign_to(loop.target, one_of(of, loop.iter, self.names), self.statement)
        value = self.value(node.elt)
        self.env = before
        if len(node.generators) > 1 or loop.ifs or isinstance(value, Scores | Weights | Lost):
            return self._children(node)
        return Each(value)

    _listcomp = _generatorexp

    # Statements

    def _assign(self, statement: ast.Assign) -> None:
        value = self.value(statement.value)
        for target in statement.targets:
            self._learn_rank(target, statement.value, value)
            self._assign_to(target, value, statement)

    def _learn_rank(self, target: ast.expr, node: ast.expr, value: Value) -> None:
        """`B, H, L, D = q.shape` says how many axes q has."""
        if not isinstance(value, Shape) or not isinstance(target, ast.Tuple):
            return
        of = node.value if isinstance(node, ast.Attribute) else None
        plain = not any(isinstance(item, ast.Starred) for item in target.elts)
        if isinstance(of, ast.Name) and of.id in self.env and plain:
            known = self.env[of.id].value
            if isinstance(known, Array):
                self.env[of.id].value = dataclasses.replace(known, rank=len(target.elts))

    def _annassign(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self._assign_to(statement.target, self.value(statement.value), statement)

    def _augassign(self, statement: ast.AugAssign) -> None:
        if not isinstance(statement.target, ast.Name):
            self._children(statement)
            return
        before = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement.target)
        whole = ast.copy_location(ast.BinOp(before, statement.op, statement.value), statement)
        self._bind(statement.target.id, self.value(whole), statement)

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for item in statement.names:
            self._change(item.asname or item.name.partition(".")[0], statement)

    _importfrom = _import

    def _return(self, statement: ast.Return) -> None:
        if statement.value is not None:
            self.results.append(self.value(statement.value))
            self.returned_nodes.append((statement.value, self.bindings(statement.value)))

    def _functiondef(self, statement: ast.FunctionDef) -> None:
        self.functions.pop(statement.name, None)
        if is_as_written(statement, self.names):
            self.functions[statement.name] = statement
        self._classdef(statement)

    def _classdef(self, statement: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A definition uses the names that it reads of the function around it, and may change
        those that it declares not to be its own."""
        self._change(statement.name, statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Nonlocal | ast.Global):
                for name in node.names:
                    self._change(name, statement)
            if isinstance(node, ast.Name) and node.id in self.env:
                self.env[node.id].used(node)
            for factor in self.multiplied(node):
                value = self.env[factor.id].value if factor.id in self.env else None
                if isinstance(value, Weights):
                    reason = f"are multiplied in the inner `{statement.name}`"
                    self.refuse(self._lose(value, value.softmax, reason))

    _asyncfunctiondef = _classdef

    def _if(self, statement: ast.If) -> None:
        self.value(statement.test)
        before = dict(self.env)
        self.suite(statement.body)
        after_body = self.env
        self.env = dict(before)
        self.suite(statement.orelse)
        self.statement = statement
        if ends(statement.body):
            return
        if ends(statement.orelse):
            self.env = after_body
            return
        self._merge(after_body, self.env, statement)

    def _merge(self, one: dict[str, Binding], other: dict[str, Binding], node: ast.If) -> None:
        self.env = {}
        for name in one.keys() | other.keys():
            first, second = one.get(name), other.get(name)
            if first is second and first is not None:
                self.env[name] = first
                continue
            parents = tuple(item for item in (first, second) if item is not None)
            value: Value = Other()
            if first is not None and second is not None:
                value = self.meet(first.value, second.value, node)
            elif isinstance(parents[0].value, Array):
                value = parents[0].value
            self._bind(name, value, None, parents)

    def _for(self, statement: ast.For) -> None:
        self.value(statement.iter)
        self._loop(statement, statement.target)

    def _while(self, statement: ast.While) -> None:
        self._loop(statement, None)
        self.value(statement.test)

    def _loop(self, statement: ast.For | ast.While, target: ast.expr | None) -> None:
        before = dict(self.env)
        self._forget(statement)
        outer, self.loop = self.loop, self.loop or statement
        if target is not None:
            self._assign_to(target, Number() if counts(statement) else Other(), statement)
        self.suite(statement.body)
        self.suite(statement.orelse)
        self.loop = outer
        for name, binding in before.items():
            after = self.env[name]
            if after is not binding:
                # Where it was changed in place, and no more, it is what it was.
                value = after.value if after.value is binding.value else Array()
                self._bind(name, value, None, (binding, after))

    def _forget(self, statement: ast.stmt) -> None:
        """Before a loop, or where it is not known how far a block ran: the names that it binds may
        be bound to anything."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                old = self.env.get(node.id)
                if old is not None:
                    self._bind(node.id, Array(), None, (old,))

    def _with(self, statement: ast.With) -> None:
        for item in statement.items:
            self.value(item.context_expr)
            if item.optional_vars is not None:
                self._assign_to(item.optional_vars, Other(), statement)
        self.suite(statement.body)

    def _try(self, statement: ast.Try) -> None:
        self.suite(statement.body)
        after = self.env
        for handler in statement.handlers:
            self.env = dict(after)
            for part in statement.body:
                self._forget(part)
            self._change(handler.name, handler)
            self.suite(handler.body)
        self.env = after
        self._forget(statement)
        self.suite(statement.orelse)
        self.suite(statement.finalbody)

    def _match(self, statement: ast.Match) -> None:
        self.value(statement.subject)
        before = dict(self.env)
        for case in statement.cases:
            self.env = dict(before)
            for part in ast.walk(case.pattern):
                self._change(getattr(part, "name", None), case.pattern)
            self.suite(case.body)
        self.env = before
        self._forget(statement)


def ends(body: list[ast.stmt]) -> bool:
    """Whether nothing that stands below a suite runs after it."""
    return bool(body) and isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
