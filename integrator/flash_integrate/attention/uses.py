"""What a piece of code uses: the names that it reads, modules that it loads by name, applications
that it serves, attention that it writes out."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.project.scan import ANY
from flash_integrate.python.module import Module
from flash_integrate.python.syntax import (
    Function,
    assignments,
    dotted,
    is_read,
    is_special,
    last_name,
    walk,
)

_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_LOADERS = {"import_module", "__import__"}
_LOOKING_AT_TYPES = {"isinstance", "issubclass"}
_NAMES = (ast.Attribute, ast.Name)
_COLLECTIONS = (ast.List, ast.Tuple, ast.Set)
_CLASS = re.compile(r"_*[A-Z]\w*[a-z]\w*")


@dataclass(frozen=True)
class Uses:
    """What a piece of code shows by itself, each with the line where it stands first.

    `names` are dotted, with as many attributes as follow; one on the result of a call begins with
    `()`. `mentioned` are those that only say what something is: in annotations, as the class of
    `isinstance`, compared; or that keep a method, as who replaces it does. One whose source or
    signature alone is read is no use at all, nor is a method that is compared. `loaded` are
    modules, with `ANY` for what isn't known. `by_hand` are the softmaxes of attention that is
    written out, by the function that they call.
    """

    names: dict[str, int]
    mentioned: dict[str, int]
    loaded: dict[str, int]
    served: dict[tuple[str, str], int]
    by_hand: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, node: ast.AST, module: Module) -> Uses:
        nodes = module.nodes if node is module.tree else walk(node)
        names, mentioned = _names_read(nodes)
        names |= _taken_of_globals(nodes, module) if "globals" in names else {}
        words = {word for name in names for word in name.split(".")}
        loaded = {} if _LOADERS.isdisjoint(words) else _loaded(nodes, module)
        served = dict(_served(nodes)) if "uvicorn" in words else {}
        softmaxes = handwritten_attention(module, node) if "softmax" in words else ()
        by_hand = tuple((dotted(call.func) or "", call.lineno) for call in softmaxes)
        return cls(names, mentioned, loaded, served, by_hand)


def _names_read(nodes: list[ast.AST]) -> tuple[dict[str, int], dict[str, int]]:
    """The dotted names that nodes read, and those that they only mention, each with the highest
    line and by their lines."""
    inner: set[int] = set()
    mentions: set[int] = set()
    looked_at: set[int] = set()
    used: dict[str, int] = {}
    mentioned: dict[str, int] = {}
    for child in nodes:  # each comes before its parts
        if child.__class__ in _MENTIONING:
            mentions.update(map(id, _mentions(child)))
            looked_at.update(map(id, _looked_at(child)))
        if not isinstance(child, _NAMES) or id(child) in inner:
            continue
        part: ast.expr = child
        parts = []
        while isinstance(part, ast.Attribute):
            parts.append(part.attr)
            part = part.value
            inner.add(id(part))
        if not isinstance(child.ctx, ast.Load) or id(child) in looked_at:
            continue
        parts.append(part.id if isinstance(part, ast.Name) else "()")
        name = ".".join(reversed(parts))
        found = mentioned if id(child) in mentions else used
        found[name] = min(child.lineno, found.get(name, child.lineno))
    for name in used:
        mentioned.pop(name, None)
    return _by_line(used), _by_line(mentioned)


_MENTIONING = {
    ast.arg, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign, ast.Call,
    ast.Compare,
}  # fmt: skip


def _mentions(node: ast.AST) -> list[ast.AST]:
    """The nodes of types, of what is compared and of methods that are kept, in a node."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.Assign):
        return [node.value] if _is_of_class(node.value) else []
    if isinstance(node, ast.Call):
        looks = isinstance(node.func, ast.Name) and node.func.id in _LOOKING_AT_TYPES
        return [part for item in node.args[1:] for part in walk(item)] if looks else []
    annotation = getattr(node, "returns" if isinstance(node, Function) else "annotation", None)
    return walk(annotation) if annotation is not None else []


def _looked_at(node: ast.AST) -> list[ast.AST]:
    """The nodes of what is not run by a node, but read as text or compared as a method."""
    if isinstance(node, ast.Compare):
        return [part for part in [node.left, *node.comparators] if _is_method(part)]
    if isinstance(node, ast.Call):
        name = last_name(node.func)
        if name in ("getattr", "hasattr"):  # a mark on a method, that it was replaced
            return [part for part in node.args[:1] if _is_of_class(part)]
        if not isinstance(name, str) or not hasattr(inspect, name):
            return []
        if name.startswith("getsource") or dotted(node.func) == f"inspect.{name}":
            return [part for part in node.args if isinstance(part, _NAMES)]
    return []


def _is_of_class(node: ast.AST) -> bool:
    """Whether an expression names a method, of a class by its name."""
    if not isinstance(node, ast.Attribute):
        return False
    owner = last_name(node.value)
    is_class = isinstance(owner, str) and _CLASS.fullmatch(owner) is not None
    return _is_method(node) or (is_class and node.attr.islower())


def _is_method(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "__call__"


def _by_line(names: dict[str, int]) -> dict[str, int]:
    return dict(sorted(names.items(), key=lambda item: item[1]))


def _taken_of_globals(nodes: list[ast.AST], module: Module) -> dict[str, int]:
    """The names of the module that `globals()[name]` may stand for: those that are texts in it too,
    as where commands are listed by the names of their functions."""
    calls = (node for node in nodes if isinstance(node, ast.Call))
    lines = [call.lineno for call in calls if dotted(call.func) == "globals"]
    if not lines:
        return {}
    texts = {node.value for node in module.of_kind(ast.Constant) if isinstance(node.value, str)}
    bound = module.definitions.keys() | {item.bound for item in module.imports}
    return dict.fromkeys(sorted(texts & bound), min(lines))


# Modules that are loaded by name


def _loaded(nodes: list[ast.AST], module: Module) -> dict[str, int]:
    """The modules that nodes load by name, with the line."""
    if any(isinstance(node, ast.Attribute) and node.attr == "main" for node in nodes):
        # Who calls the main() of a module hands over to a script that is looked at for itself.
        return {}
    values = _Values(nodes, module)
    calls = [node for node in nodes if isinstance(node, ast.Call) and _loads(node)]
    if calls:
        parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        calls = [call for call in calls if not _is_asked_where_it_is(call, parents)]
    return {name: call.lineno for call in calls for name in _modules(call, values)}


def _is_asked_where_it_is(call: ast.Call, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether of a module that is loaded nothing is read but what every module has: `__file__`,
    `__path__`, `__version__`."""
    parent = parents.get(call)
    if not isinstance(parent, ast.Assign) or not isinstance(parent.targets[0], ast.Name):
        return False
    scope: ast.AST = parent
    while scope in parents and not isinstance(scope, Function):
        scope = parents[scope]
    reads = [node for node in walk(scope) if is_read(node, parent.targets[0].id)]
    return bool(reads) and all(_is_of_every_module(node, parents[node]) for node in reads)


def _is_of_every_module(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a module is read for `module.__file__`, or `getattr(module, "__file__", None)`."""
    name: object = parent.attr if isinstance(parent, ast.Attribute) else None
    if isinstance(parent, ast.Call) and dotted(parent.func) in ("getattr", "hasattr"):
        given = parent.args[1] if len(parent.args) > 1 and parent.args[0] is node else None
        name = given.value if isinstance(given, ast.Constant) else None
    return isinstance(name, str) and is_special(name)


def _loads(call: ast.Call) -> bool:
    return bool(call.args) and (dotted(call.func) or "").rpartition(".")[2] in _LOADERS


class _Values:
    """What names are bound to: by the assignments and loops among some nodes, and by the
    assignments at a module's level."""

    def __init__(self, nodes: list[ast.AST], module: Module) -> None:
        self._nodes = nodes
        self._module = module

    def of(self, name: str) -> list[ast.expr]:
        found = self._assigned(name)
        for node in self._nodes:
            if isinstance(node, ast.For | ast.comprehension) and dotted(node.target) == name:
                found = found + self._items(node)
        return found

    def _assigned(self, name: str) -> list[ast.expr]:
        own = [value for node in self._nodes for to, value in assignments(node) if to == name]
        outer = self._module.definitions.get(name)
        if own or outer is None:
            return own
        return [value for to, value in assignments(outer) if to == name]

    def _items(self, loop: ast.For | ast.comprehension) -> list[ast.expr]:
        """What a loop goes over, where that is written out; else it is not known."""
        written = [loop.iter, *self._assigned(dotted(loop.iter) or "")]
        found = next((node for node in written if isinstance(node, _COLLECTIONS)), None)
        return found.elts if found is not None else [loop.iter]


def _modules(call: ast.Call, values: _Values) -> set[str]:
    """The modules that `importlib.import_module(...)` may load: a literal, one of a dictionary's or
    of those that a loop goes over, or a text with parts that aren't known."""
    found = set()
    todo = [call.args[0]]
    seen: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, ast.IfExp):
            todo += [node.body, node.orelse]
        elif isinstance(node, ast.Name) and node.id not in seen and values.of(node.id):
            seen.add(node.id)
            todo += values.of(node.id)
        elif (table := _table(node, values)) is not None:
            found |= table
        else:
            found.add(_text(node))
    package = _package(call)
    return {f"{package}{name}" if name.startswith(".") else name for name in found}


def _package(call: ast.Call) -> str:
    """The package of `import_module(".llama", package="net")`, where it is a text; one that the
    call takes from its file (`__package__`) is that of the file, as without."""
    given = [*call.args[1:2], *(item.value for item in call.keywords if item.arg == "package")]
    return next((text for text in map(_text, given) if ANY not in text), "")


def _table(node: ast.expr, values: _Values) -> set[str] | None:
    """The texts of the dictionary from which `NAMES[key]` or `NAMES.get(key)` takes one."""
    if isinstance(node, ast.Subscript):
        owner = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value if node.func.attr == "get" else node
    else:
        return None
    given = values.of(dotted(owner) or "")
    for table in [owner, *given]:
        if isinstance(table, ast.Dict):
            texts = {_text(value) for value in table.values}
            return texts if ANY not in texts else None
    return None


def _text(node: ast.expr) -> str:
    """The text that an expression makes, with `ANY` for what isn't known of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ANY


def _served(nodes: list[ast.AST]) -> Iterator[tuple[tuple[str, str], int]]:
    """The modules and names of `uvicorn.run("server.app:app")`."""
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if call.args and (dotted(call.func) or "").partition(".")[0] == "uvicorn":
            value = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
            if isinstance(value, str) and (match := _APPLICATION.fullmatch(value)):
                yield (match[1], match[2]), call.lineno
