"""What the decorators of commands stand for: those of click and typer, and those that only hand
arguments on."""

from __future__ import annotations

import ast

from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import Function, assignments, dotted, walk

CLICK = {"click", "rich_click", "asyncclick"}
GROUPS = {"group", "callback"}
_COMMANDS = {"command", *GROUPS}


def in_library(facts: FileFacts, name: str | None) -> tuple[str, str] | None:
    """The library, `click` or `typer`, and the name in it, for which a dotted name of the file
    stands."""
    package, _, inner = (facts.module.qualified(name) or "").partition(".")
    if not inner or package not in {*CLICK, "typer"}:
        return None
    return "click" if package in CLICK else "typer", inner


def imports_library(facts: FileFacts) -> bool:
    return any(item.package in {*CLICK, "typer"} for item in facts.module.imports)


def name_of(decorator: ast.expr) -> str | None:
    """The dotted name of a decorator, of `@click.option("--model")` too."""
    return dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)


def command_role(facts: FileFacts, decorator: ast.expr, depth: int = 4) -> tuple[str, str] | None:
    """The library of a decorator that makes a command, and whether it says `command`, `group` or
    `callback`."""
    name = name_of(decorator) or ""
    if (own := in_library(facts, name)) is not None:
        return own if own[1] in _COMMANDS else None
    owner, _, role = name.rpartition(".")
    library = _library_of_object(facts, owner, depth) if role in _COMMANDS and owner else None
    return (library, role) if library else None


def _library_of_object(facts: FileFacts, name: str, depth: int) -> str | None:
    """The library whose group or application a name is bound to, here or in the file of the
    project that it is from."""
    if not depth:  # a group of a group of a group; it also ends a circle
        return None
    for node in facts.module.bound.get(name, []):
        if isinstance(node, Function):
            roles = (command_role(facts, decorator, depth - 1) for decorator in node.decorator_list)
            return next((role[0] for role in roles if role is not None and role[1] in GROUPS), None)
        for bound, value in assignments(node):
            made = in_library(facts, dotted(value.func)) if isinstance(value, ast.Call) else None
            if bound == name and made is not None and made[1].rpartition(".")[2][:1].isupper():
                return made[0]
    elsewhere = facts.workspace.definition(facts.name, name)
    return _library_of_object(*elsewhere, depth - 1) if elsewhere is not None else None


def unknown_decorator(facts: FileFacts, decorators: list[ast.expr]) -> str | None:
    """The first of a function's decorators that may not hand on arguments of which it does not
    know."""
    return next(
        (name_of(item) or "a call" for item in decorators if not _hands_on(facts, item)), None
    )


def _hands_on(facts: FileFacts, decorator: ast.expr) -> bool:
    name = name_of(decorator)
    if in_library(facts, name) is not None or command_role(facts, decorator) is not None:
        return True
    for node in facts.module.bound.get(name or "", []):
        if isinstance(node, Function) and not isinstance(decorator, ast.Call):
            return _wraps_plainly(node) or _adds_options(facts, node)
        for bound, value in assignments(node):  # model_option = click.option("--model")
            if bound == name and isinstance(value, ast.Call):
                return in_library(facts, dotted(value.func)) is not None
    return False


def _wraps_plainly(decorator: Function) -> bool:
    """Whether it returns a function that calls the given one with its `*args, **kwargs`, and looks
    at neither."""
    given = _only_parameter(decorator.args)
    inner = next((node for node in decorator.body if isinstance(node, Function)), None)
    if (
        given is None
        or inner is None
        or any(_last(item) != "wraps" for item in inner.decorator_list)
    ):
        return False
    rest = [item.arg for item in (inner.args.vararg, inner.args.kwarg) if item is not None]
    if len(rest) < 2 or len([node for node in walk(inner.args) if isinstance(node, ast.arg)]) > 2:
        return False
    handed: list[ast.expr] = []
    for call in (node for node in walk(decorator) if isinstance(node, ast.Call)):
        passed = [
            *(item.value for item in call.args if isinstance(item, ast.Starred)),
            *(k.value for k in call.keywords),
        ]
        if dotted(call.func) == given and [dotted(item) for item in passed] == rest:
            handed += [call.func, *passed]
        elif _last(call) == "wraps":
            handed += call.args
    returned = [dotted(node.value) for node in decorator.body if isinstance(node, ast.Return)]
    return returned == [inner.name] and _reads_only(decorator, {given, *rest}, handed)


def _adds_options(facts: FileFacts, decorator: Function) -> bool:
    """Whether it only puts options of click above the given function: `return
    click.option("--model")(function)`."""
    given = _only_parameter(decorator.args)
    handed: list[ast.expr] = []
    for node in walk(decorator):
        if isinstance(node, ast.Return) and node.value is not None:
            handed.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Call):
            handed += node.args if in_library(facts, dotted(node.func.func)) else []
    return given is not None and _reads_only(decorator, {given}, handed)


def _reads_only(function: Function, names: set[str], places: list[ast.expr]) -> bool:
    """Whether a function reads these names nowhere else."""
    known = set(map(id, places))
    reads = (
        node
        for node in walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
    return all(id(node) in known for node in reads if node.id in names)


def _only_parameter(arguments: ast.arguments) -> str | None:
    names = [node.arg for node in walk(arguments) if isinstance(node, ast.arg)]
    return names[0] if len(names) == len(arguments.args) == 1 else None


def _last(decorator: ast.expr) -> str:
    return (name_of(decorator) or "").rpartition(".")[2]
