"""What becomes of a model that a file makes: one that is called runs; one that is only quantized,
saved or printed does not."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from flash_integrate.attention.evidence import Link
from flash_integrate.attention.libraries import (
    holds_models,
    is_of_something_else,
    says_that_it_runs,
    use_of,
)
from flash_integrate.project.names import Defined, Names, Outside
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import Function, dotted, name_read, walk

# What runs nothing of a model: methods of it, and functions that are given it.
_METHODS = {
    "apply", "apply_to_modules", "astype", "children", "freeze", "leaf_modules", "load_weights",
    "modules", "named_modules", "parameters", "sanitize", "save_weights", "set_dtype",
    "trainable_parameters", "unfreeze", "update", "update_modules",
}  # fmt: skip
_FUNCTIONS = {
    "hasattr", "id", "isinstance", "len", "print", "repr", "str", "type",
    "mlx.core.eval", "mlx.nn.quantize", "mlx.utils.tree_flatten", "mlx.utils.tree_map",
}  # fmt: skip
_MODES = {"eval", "train"}
_GRADIENT = "mlx.nn.value_and_grad"

Runs = tuple[Link, ...]
"""The line on which a model runs, behind those that hand it on to a function; empty where it does
not run."""


@dataclass(frozen=True)
class _Piece:
    """Nodes of a file, and of each node of the file the one that it is a part of."""

    path: PurePosixPath
    nodes: list[ast.AST]
    parents: dict[ast.AST, ast.AST]

    @cached_property
    def reads(self) -> dict[str, list[ast.AST]]:
        """The nodes that read each dotted name."""
        found: dict[str, list[ast.AST]] = {}
        for node in self.nodes:
            if name := name_read(node):
                found.setdefault(name, []).append(node)
        return found


class Models:
    """Follows models through the files of a project, of which `module` gives the syntax."""

    def __init__(self, names: Names, module: Callable[[PurePosixPath], Module]) -> None:
        self._names = names
        self._module = module
        self._found: dict[tuple[PurePosixPath, str], Runs | None] = {}

    def runs(self, path: PurePosixPath, maker: str) -> Runs | None:
        """Where the models run that calls of `maker` make in a file; None where that can't be said.
        Variables of one name are taken for the same model, as scripts hand it from function to
        function."""
        if (path, maker) not in self._found:
            self._found[path, maker] = self._made_by(path, maker)
        return self._found[path, maker]

    def _made_by(self, path: PurePosixPath, maker: str) -> Runs | None:
        module = self._module(path)
        is_imported = path in self._names.project.importers
        piece = _Piece(path, module.nodes, module.parents)
        variables: set[str] = set()
        for node in piece.reads.get(maker, ()):
            call = module.parents[node]
            is_called = isinstance(call, ast.Call) and call.func is node
            given = _given_to(call, module.parents) if is_called else None
            if given is None:
                return None
            variables |= given
        runs = self._of_variables(piece, variables, frozenset())
        # Other files may run what they reach as an attribute, or import; and who loads a model for
        # nothing that can be seen may run it by other means.
        is_shared = any("." in name or (is_imported and name in module.bound) for name in variables)
        is_read_nowhere = piece.reads.keys().isdisjoint(variables)
        may = is_shared or (bool(variables) and is_read_nowhere)
        return None if runs == () and may else runs

    def _of_variables(self, piece: _Piece, names: set[str], seen: frozenset[object]) -> Runs | None:
        """As `runs`, of the model that variables of these names hold in a piece of a file."""
        todo, done = set(names), set[str]()
        found: list[Runs | None] = []
        while todo:
            name = todo.pop()
            done.add(name)
            for node in piece.reads.get(name, ()):
                given = _given_to(node, piece.parents)
                todo |= (given or set()) - done
                if given is None:
                    found.append(self._of_use(piece, node, seen))
        ways = [way for way in found if way]
        if ways:
            return min(ways, key=lambda way: way[0].line)
        return None if None in found else ()

    def _of_use(self, piece: _Piece, node: ast.AST, seen: frozenset[object]) -> Runs | None:
        """As `runs`, by what is done with the model where `node` reads its variable."""
        parent = piece.parents[node]
        outer = piece.parents[parent]
        if isinstance(parent, ast.Call):
            if parent.func is node:
                return (Link(piece.path, parent.lineno),)
            place = [item is node for item in parent.args].index(True)
            return self._of_argument(piece.path, parent, place, seen)
        if isinstance(parent, ast.keyword) and isinstance(outer, ast.Call):
            return self._of_argument(piece.path, outer, parent.arg, seen)
        if isinstance(parent, ast.Attribute):
            if not isinstance(parent.ctx, ast.Load):
                return ()
            if isinstance(outer, ast.Call) and outer.func is parent:
                return _of_method(piece.path, outer, parent.attr)
            # A part of the model may run; its arguments and the like do not.
            return () if is_of_something_else(parent.attr) else self._of_use(piece, parent, seen)
        if isinstance(parent, ast.Subscript) and parent.value is node:
            return self._of_use(piece, parent, seen)
        return () if isinstance(parent, ast.FormattedValue | ast.Compare) else None

    def _of_argument(
        self, path: PurePosixPath, call: ast.Call, place: int | str | None, seen: frozenset[object]
    ) -> Runs | None:
        """As `runs`, of a model that is an argument, by its position or name."""
        name = dotted(call.func)
        meaning = self._names.meaning(path, name) if name else None
        here = (Link(path, call.lineno),)
        if isinstance(meaning, Defined):
            further = self._of_parameter(meaning, place, seen)
            return (*here, *further) if further else further
        full = meaning.name if isinstance(meaning, Outside) else name
        if full in _FUNCTIONS:
            return ()
        if full == _GRADIENT:
            return here
        if isinstance(meaning, Outside) and holds_models(meaning.name):
            # One that runs it is evidence by itself.
            return () if use_of(meaning.name) is None else None
        return None

    def _of_parameter(
        self, function: Defined, place: int | str | None, seen: frozenset[object]
    ) -> Runs | None:
        """As `runs`, of a model that a function of the project is given."""
        module = self._module(function.path)
        node = module.definitions.get(function.name)
        if not isinstance(node, Function) or function.rest:
            return None
        names = [item.arg for item in [*node.args.posonlyargs, *node.args.args]]
        if isinstance(place, int):
            place = names[place] if place < len(names) else None
        names += [item.arg for item in node.args.kwonlyargs]
        if place not in names:
            return None
        step = (function.path, function.name, place)
        if step in seen:
            return ()
        piece = _Piece(function.path, walk(node), module.parents)
        return self._of_variables(piece, {place}, seen | {step})


def _of_method(path: PurePosixPath, call: ast.Call, method: str) -> Runs | None:
    """Where a model runs by the call of a method of it."""
    if method in _MODES and not call.args:  # `train(True)` is rare, and runs nothing either
        return ()
    if says_that_it_runs(method):
        return (Link(path, call.lineno),)
    return () if method in _METHODS else None


def _given_to(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> set[str] | None:
    """The variables to which an assignment gives an expression, or a part of what it is: none that
    are named after something else, as the tokenizer beside a model. None if it does something else
    with it."""
    parent = parents[node]
    while isinstance(parent, ast.Await) or (
        isinstance(parent, ast.Subscript) and parent.value is node
    ):
        node, parent = parent, parents[parent]
    targets: list[ast.expr]
    if isinstance(parent, ast.AnnAssign | ast.NamedExpr):
        targets = [parent.target]
    elif isinstance(parent, ast.Assign):
        targets = parent.targets
    else:
        return None
    found = set()
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        for part in parts:
            name = dotted(part.value if isinstance(part, ast.Starred) else part)
            if name is None:
                return None
            if name != "_" and not is_of_something_else(name.rpartition(".")[2]):
                found.add(name)
    return found
