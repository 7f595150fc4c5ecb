"""Evaluates the array expressions of a function, and nothing else of the file that holds it.

A name stands for an operation of MLX that is listed here, for an array or number of our own
choice, or for nothing: no module is imported, no function of the file's is called but those that
are read here in turn. Arrays and numbers that grow out of all proportion end the evaluation.
"""

from __future__ import annotations

import ast
from typing import Any

from flash_codemods.handwritten.proving.calls import Calls
from flash_codemods.handwritten.proving.expressions import Reached, Returned
from flash_codemods.handwritten.proving.missing import NotEvaluable


class Evaluator(Calls):
    """Runs statements until the expression `target` has a value.

    `inputs` are what stands in for the rest of the program, by its text; `types` in what type the
    floats of the function are taken, by MLX's name.
    """

    def run(self, suite: list[ast.stmt], target: ast.expr) -> Any:
        """The value of `target`, which one of the statements holds.

        Raises:
            Missing: an input is not there yet.
            NotEvaluable: there is something that is not evaluated here.
        """
        self.target = target
        try:
            self._suite(suite)
        except Returned:
            pass
        except Reached as reached:
            return reached.value
        raise NotEvaluable("the result is not reached")

    def _suite(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._steps += 1
            if self._steps > 2000:
                raise NotEvaluable("too many steps")
            self.ran.add(statement.lineno)
            self._statement(statement)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            value = self._assigned(statement)
            for target in statement.targets:
                self._bind(target, value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._bind(statement.target, self.value(statement.value))
        elif isinstance(statement, ast.AugAssign):
            self._augment(statement)
        elif isinstance(statement, ast.If):
            self._suite(statement.body if self._truth(statement.test) else statement.orelse)
        elif isinstance(statement, ast.FunctionDef):
            self.functions[statement.name] = statement
        elif isinstance(statement, ast.Return):
            raise Returned(None if statement.value is None else self.value(statement.value))
        elif isinstance(statement, ast.Expr):
            self.value(statement.value)
        elif isinstance(statement, ast.Raise):
            raise NotEvaluable("an error is raised")
        elif not isinstance(statement, ast.Pass | ast.Assert):
            raise NotEvaluable(type(statement).__name__)

    def _assigned(self, statement: ast.Assign) -> Any:
        """The value of an assignment; one that is not evaluable, and leads nowhere, is none."""
        count = 1
        target = statement.targets[0]
        if isinstance(target, ast.Tuple):
            count = len(target.elts)
        if isinstance(statement.value, ast.Call) and self._is_foreign(statement.value):
            return self._stand_in(statement.value, count)
        return self.value(statement.value)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.env[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            values = list(value)
            if len(values) != len(target.elts):
                raise NotEvaluable("unpacks another number of values")
            for item, part in zip(target.elts, values, strict=True):
                self._bind(item, part)
        elif isinstance(target, ast.Subscript):
            self._change(target, value)
        elif not isinstance(target, ast.Attribute):
            raise NotEvaluable("binds something else than a name")

    def _change(self, target: ast.Subscript, value: Any) -> None:
        """Assigns to a part of an array, for all its names; an input stays as it is."""
        name = target.value.id if isinstance(target.value, ast.Name) else ""
        array = self.env.get(name, self.inputs.get(name))
        if not isinstance(array, self.mx.array):
            return
        changed = self.mx.array(array)
        changed[self._index(target.slice)] = value
        names = [other for other, known in self.env.items() if known is array]
        self.env |= dict.fromkeys([name, *names], changed)

    def _augment(self, statement: ast.AugAssign) -> None:
        if isinstance(statement.target, ast.Attribute):
            raise NotEvaluable("changes a part of something")
        whole = ast.BinOp(statement.target, statement.op, statement.value)
        self._bind(statement.target, self.value(ast.copy_location(whole, statement)))
