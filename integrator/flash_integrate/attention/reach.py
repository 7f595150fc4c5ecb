"""How a script comes to attention: through what it does itself, or through the functions and
classes it imports.

The question is asked of names, not of files: a script that takes `read_jsonl` from a module which
elsewhere loads a model does not run attention; nor does one that calls a class's `is_local`
because another method of it does.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from flash_integrate.attention.evidence import Evidence, Kind, Link
from flash_integrate.attention.libraries import (
    Use,
    attention_of,
    holds_models,
    use_of,
    use_of_module,
)
from flash_integrate.attention.uses import Uses
from flash_integrate.project.imports import Project
from flash_integrate.project.names import WHOLE, Defined, Outside, Symbols
from flash_integrate.project.scan import ANY, Import
from flash_integrate.project.workspace import FileFacts, Workspace
from flash_integrate.python.syntax import Function, dotted

_ATTENTION = {
    "scaled_dot_product_attention",
    "MultiHeadAttention",
    "Transformer",
    "TransformerEncoder",
    "TransformerDecoder",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
}


@dataclass(frozen=True)
class _Part:
    """A definition of a file, a method of a class (`Model.load`) or the file as a `WHOLE`; and how
    the search came here: from which part, and from which line of it."""

    path: PurePosixPath
    name: str
    before: _Part | None = field(default=None, compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _End:
    """Attention, the line that comes to it, and of a package's how sure that is."""

    line: int
    names: tuple[str, ...]
    kind: Kind
    use: Use = Use.RUNS


@dataclass(frozen=True)
class Reached:
    """What a search came to: the nearest attention that can be routed, or else all that is
    written by hand and the nearest module that is chosen by name, which may have attention."""

    routed: Evidence | None = None
    by_hand: tuple[Evidence, ...] = ()
    by_name: Evidence | None = None

    def __bool__(self) -> bool:
        """Whether there is attention of any kind."""
        return bool(self.routed or self.by_hand or self.by_name)


class AttentionReach:
    """Answers for the files of one project; what a definition uses is read at most once."""

    def __init__(self, workspace: Workspace) -> None:
        self.project = workspace.project
        self.names = workspace.names
        self._module = workspace.module
        self._uses: dict[tuple[PurePosixPath, str], Uses] = {}
        self._has_mlx: dict[PurePosixPath, bool] = {}
        self._leads_nowhere: set[_Part] = set()

    def of_script(self, path: PurePosixPath) -> Reached:
        """How the script at `path` comes to attention."""
        return self._search(_Part(path, WHOLE))

    def of_definition(self, path: PurePosixPath, node: ast.stmt) -> Reached:
        """How one definition of the file at `path` comes to attention."""
        return self._search(self._part_of(path, node))

    def attends(self, path: PurePosixPath, node: ast.stmt) -> bool:
        """Whether a definition of the file at `path` calls attention itself."""
        return any(isinstance(item, _End) for item in self._leads(self._part_of(path, node)))

    def _part_of(self, path: PurePosixPath, node: ast.stmt) -> _Part:
        """A definition as a part; it may be nested, or one of several of a name: its line stands
        for it."""
        name = f"line {node.lineno}"
        if (path, name) not in self._uses:
            self._uses[path, name] = Uses.of(node, self._module(path))
        return _Part(path, name)

    def uses(self, path: PurePosixPath, name: str) -> Uses:
        """What a definition of the file at `path` uses, or with the name `WHOLE` the file."""
        if (path, name) not in self._uses:
            module = self._module(path)
            self._uses[path, name] = Uses.of(_node(module.tree, module.definitions, name), module)
        return self._uses[path, name]

    def by_hand(self, path: PurePosixPath, name: str) -> list[int]:
        """The lines on which a definition of the file at `path` writes attention out, with MLX."""
        symbols = self.names.symbols(path)
        return [
            line
            for softmax, line in self.uses(path, name).by_hand
            if symbols is not None and self._is_mlx(path, symbols, softmax)
        ]

    def _search(self, start: _Part) -> Reached:
        """Looks at parts in the order of their distance, so that the shortest chain is found."""
        by_hand: dict[Link, Evidence] = {}
        by_name: Evidence | None = None
        seen = {start}
        todo = deque([start])
        while todo:
            part = todo.popleft()
            for found in self._leads(part):
                if isinstance(found, _Part):
                    if found not in seen and found not in self._leads_nowhere:
                        seen.add(found)
                        todo.append(found)
                elif found.kind is Kind.BY_HAND:
                    chain = _chain(part, found)
                    by_hand.setdefault(chain.links[-1], chain)
                elif found.kind is Kind.BY_NAME:
                    by_name = by_name or _chain(part, found)
                else:
                    return Reached(_chain(part, found))
        if not by_hand and by_name is None:
            self._leads_nowhere |= seen
        return Reached(by_hand=tuple(by_hand.values()), by_name=by_name)

    def _leads(self, part: _Part) -> Iterator[_Part | _End]:
        """What a part of a file leads to: attention first, what is surest of it before all, then
        other parts."""
        symbols = self.names.symbols(part.path)
        if symbols is None:
            return
        uses = self.uses(part.path, part.name)
        less_sure: list[_End] = []
        further: list[_Part] = []
        for name, line in uses.names.items():
            found = self._named(part, symbols, name, line)
            if isinstance(found, _Part):
                further.append(found)
            elif found is not None and found.use is Use.RUNS:
                yield found
            elif found is not None:
                less_sure.append(found)
        yield from sorted(less_sure, key=lambda end: end.use)
        for line in self.by_hand(part.path, part.name):
            yield _End(line, ("attention written by hand",), Kind.BY_HAND)
        if part.name == WHOLE:
            yield from _star_imports(symbols)
        for module, line in uses.loaded.items():
            yield from self._loaded(part, module, line)
        yield from further
        for (module, application), line in uses.served.items():
            home = self.names.application_home(part.path, module, application)
            if home is not None:
                yield _Part(home, WHOLE, part, line)

    def _named(self, part: _Part, symbols: Symbols, name: str, line: int) -> _Part | _End | None:
        """What a dotted name in a part of a file leads to."""
        if (own := self._own_method(part, symbols, name)) is not None:
            return _Part(part.path, own, part, line)
        meaning = self.names.meaning(part.path, name)
        if isinstance(meaning, Defined):
            return self._defined(meaning, part, line)
        if isinstance(meaning, Outside) and holds_models(meaning.name):
            return next(_of_library(line, meaning.name, use_of(meaning.name)), None)
        full = meaning.name if isinstance(meaning, Outside) else name
        if full.rpartition(".")[2] in _ATTENTION and self._is_mlx(part.path, symbols, name):
            return _End(line, (_as_written(full),), Kind.MLX)
        return None

    def _defined(self, meaning: Defined, before: _Part, line: int) -> _Part:
        symbols = self.names.symbols(meaning.path)
        definition = symbols.definitions.get(meaning.name) if symbols is not None else None
        name, method = meaning.name, meaning.rest.partition(".")[0]
        if definition is not None and definition.is_application:
            # What an application does stands in functions that are decorated with it.
            name = WHOLE
        elif definition is not None and method in definition.methods:
            name = f"{name}.{method}"
        return _Part(meaning.path, name, before, line)

    def _own_method(self, part: _Part, symbols: Symbols, name: str) -> str | None:
        """What a name in a method stands for that begins with the method's `self` or `cls`: another
        method, or the class as a whole."""
        owner, _, method = part.name.partition(".")
        if not method:
            return None
        module = self._module(part.path)
        node = _node(module.tree, module.definitions, part.name)
        root, _, rest = name.partition(".")
        if not isinstance(node, Function) or root != _receiver(node):
            return None
        attribute = rest.partition(".")[0]
        is_method = attribute in symbols.definitions[owner].methods
        return f"{owner}.{attribute}" if is_method else owner

    def _is_mlx(self, path: PurePosixPath, symbols: Symbols, name: str) -> bool:
        """Whether a name in a file is of MLX: by the imports on its way or, where those say
        nothing of it, as the file has something of MLX."""
        meaning = self.names.meaning(path, name)
        if isinstance(meaning, Outside):
            return meaning.package == "mlx"
        if path not in self._has_mlx:
            meanings = (self.names.meaning(path, item) for item in symbols.imported)
            packages = {item.package for item in symbols.stars}
            packages |= {found.package for found in meanings if isinstance(found, Outside)}
            self._has_mlx[path] = any(item == "mlx" or holds_models(item) for item in packages)
        return self._has_mlx[path]

    def _loaded(self, part: _Part, module: str, line: int) -> Iterator[_Part | _End]:
        """What a module that is loaded by its name leads to."""
        if ANY not in module:
            found = self.names.named_module(part.path, module)
            if isinstance(found, Defined):
                yield _Part(found.path, WHOLE, part, line)
            elif found is not None and holds_models(found.name):
                yield from _of_library(line, found.name, use_of_module(found.name))
            return
        files = self.project.loaded(module, part.path)
        yield from (_Part(path, WHOLE, part, line) for path in files)
        if not files and self.project.attending:
            yield _End(line, ("a module that is chosen by name",), Kind.BY_NAME)


def _node(tree: ast.Module, definitions: dict[str, ast.stmt], name: str) -> ast.Module | ast.stmt:
    if name == WHOLE:
        return tree
    owner, _, method = name.partition(".")
    node = definitions[owner]
    body = node.body if method and isinstance(node, ast.ClassDef) else []
    found = [item for item in body if isinstance(item, Function) and item.name == method]
    return found[-1] if found else node


def _receiver(method: Function) -> str | None:
    """The name that a method has for its object or class: `self`, `cls`; none of a static one."""
    decorators = {dotted(item) for item in method.decorator_list}
    arguments = [*method.args.posonlyargs, *method.args.args]
    return None if "staticmethod" in decorators or not arguments else arguments[0].arg


def _star_imports(symbols: Symbols) -> Iterator[_End]:
    for item in symbols.stars:
        if not item.dots and holds_models(item.module):
            yield from _of_library(item.line, f"{item.module}.*", use_of_module(item.module))


def _of_library(line: int, name: str, use: Use | None) -> Iterator[_End]:
    if use is not None:
        yield _End(line, *attention_of(name), use)


def _as_written(name: str) -> str:
    """A full name of MLX as scripts write it."""
    return name.replace("mlx.core.", "mx.").replace("mlx.nn.", "nn.")


def _chain(part: _Part, end: _End) -> Evidence:
    """The links on the way to an end: of each file the line that leads out of it."""
    links = [Link(part.path, end.line)]
    at: _Part | None = part
    while at is not None:
        if at.before is not None and at.before.path != links[0].path:
            links.insert(0, Link(at.before.path, at.line))
        at = at.before
    return Evidence(tuple(links), end.names, end.kind)


def reached(facts: FileFacts) -> Reached:
    """How a file comes to attention, with its own lines as a person sees them."""
    found = facts.workspace.get(AttentionReach).of_script(facts.name)
    by_hand = tuple(_as_shown(facts, evidence) for evidence in found.by_hand)
    routed, by_name = (
        _as_shown(facts, evidence) if evidence is not None else None
        for evidence in (found.routed, found.by_name)
    )
    return Reached(routed, by_hand, by_name)


def _as_shown(facts: FileFacts, evidence: Evidence) -> Evidence:
    first, *others = evidence.links
    line = facts.source.shown_line(first.line) or first.line
    return replace(evidence, links=(Link(first.path, line), *others))


def imports_models(project: Project, path: PurePosixPath, item: Import) -> bool:
    """Whether an import in a file of the project is of a package of MLX models: not of a folder of
    the project itself that is named like one."""
    return not item.dots and holds_models(item.module) and not project.resolve(item, path)


def runs_attention(facts: FileFacts, name: str) -> bool:
    """Whether a call of `name` runs attention: of a function or class of the module, or one that
    holds a model."""
    is_own = facts.module.defines(name) is not None
    return (is_own and leads_to_attention(facts, name)) or name in facts.get(model_functions)


def leads_to_attention(facts: FileFacts, name: str) -> bool:
    """Whether what a file defines by a name comes to attention."""
    node = facts.module.defines(name) or facts.module.definitions.get(name)
    reach = facts.workspace.get(AttentionReach)
    return node is not None and bool(reach.of_definition(facts.name, node))


def has_attention(facts: FileFacts, node: ast.stmt) -> bool:
    """Whether a definition of a file calls attention itself, and not through another one."""
    return facts.workspace.get(AttentionReach).attends(facts.name, node)


def model_functions(facts: FileFacts) -> set[str]:
    """The names under which a file imports functions (not classes) of packages that hold models,
    without those that run none; of a package of the project itself those that come to attention."""
    found = set()
    for item in facts.module.imports:
        is_function = item.name is not None and item.name.islower()
        if not is_function or item.dots or not holds_models(item.module):
            continue
        own = facts.workspace.definition(facts.name, item.bound)
        is_installed = imports_models(
            facts.workspace.project, facts.name, Import(0, item.module, (item.name or "",))
        )
        runs = is_installed and use_of(f"{item.module}.{item.name}") is not None
        if runs or (own is not None and leads_to_attention(*own)):
            found.add(item.bound)
    return found
