"""How a script comes to attention: through what it does itself, or through the functions and
classes it imports.

The question is asked of names, not of files: a script that takes `read_jsonl` from a module which
elsewhere loads a model does not run attention; nor does one that calls a class's `is_local`
because another method of it does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from flash_integrate.attention.evidence import Evidence, Kind, Link
from flash_integrate.attention.libraries import (
    Use,
    attention_of,
    holds_models,
    use_of,
    use_of_module,
)
from flash_integrate.attention.methods import node_of, own_method, part_named
from flash_integrate.attention.models import Models
from flash_integrate.attention.uses import Uses
from flash_integrate.attention.ways import End, Part, Ways
from flash_integrate.project.names import WHOLE, Defined, Outside, Symbols
from flash_integrate.project.scan import ANY
from flash_integrate.project.workspace import Workspace
from flash_integrate.python.syntax import last_name

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
    """Answers for the files of one project; what a definition uses and leads to is looked up at
    most once."""

    def __init__(self, workspace: Workspace) -> None:
        self.project = workspace.project
        self.names = workspace.names
        self._module = workspace.module
        self._models = Models(workspace.names, workspace.module)
        self._uses: dict[tuple[PurePosixPath, str], Uses] = {}
        self._has_mlx: dict[PurePosixPath, bool] = {}
        self._found: dict[tuple[PurePosixPath, str, bool], tuple[Part | End, ...]] = {}
        self._leads_nowhere: set[Part] = set()

    def of_script(self, path: PurePosixPath) -> Reached:
        """How the script at `path` comes to attention."""
        return self._search(Part(path, WHOLE))

    def comes_to_attention(self, path: PurePosixPath, node: ast.stmt) -> bool:
        """Whether one definition of the file at `path` comes to attention of any kind, however
        sure: the first that is met answers it, where evidence asks for the surest way."""
        start = self._part_of(path, node)
        seen, todo = {start}, [start]
        while todo:
            for lead in self._leads(todo.pop(), path):
                if isinstance(lead, End):
                    return True
                if lead not in seen and lead not in self._leads_nowhere:
                    seen.add(lead)
                    todo.append(lead)
        self._leads_nowhere |= seen
        return False

    def attends(self, path: PurePosixPath, node: ast.stmt) -> bool:
        """Whether a definition of the file at `path` calls attention itself."""
        return any(isinstance(item, End) for item in self._leads(self._part_of(path, node), path))

    def _part_of(self, path: PurePosixPath, node: ast.stmt) -> Part:
        """A definition as a part; it may be nested, or one of several of a name: its line stands
        for it."""
        name = f"line {node.lineno}"
        if (path, name) not in self._uses:
            self._uses[path, name] = Uses.of(node, self._module(path))
        return Part(path, name)

    def uses(self, path: PurePosixPath, name: str) -> Uses:
        """What a definition of the file at `path` uses, or with the name `WHOLE` the file."""
        if (path, name) not in self._uses:
            module = self._module(path)
            self._uses[path, name] = Uses.of(node_of(module, name), module)
        return self._uses[path, name]

    def by_hand(self, path: PurePosixPath, name: str) -> list[int]:
        """The lines on which a definition of the file at `path` writes attention out, with MLX."""
        symbols = self.names.symbols(path)
        return [
            line
            for softmax, line in self.uses(path, name).by_hand
            if symbols is not None and self._is_mlx(path, symbols, softmax)
        ]

    def _search(self, start: Part) -> Reached:
        """Goes the surest ways first, and of those the shortest."""
        by_hand: dict[Link, Evidence] = {}
        by_name: Evidence | None = None
        seen: set[Part] = set()
        ways = Ways(start)
        for found in ways:
            if isinstance(found, Part):
                if found not in seen and found not in self._leads_nowhere:
                    seen.add(found)
                    for lead in self._leads(found, start.path):
                        if lead not in seen:
                            ways.add(lead.behind(found))
            elif found.kind is Kind.BY_HAND:
                by_hand.setdefault(Link(found.part.path, found.line), found.evidence)
            elif found.kind is Kind.BY_NAME:
                by_name = by_name or found.evidence
            else:
                return Reached(found.evidence)
        if not by_hand and by_name is None:
            self._leads_nowhere |= seen
        return Reached(by_hand=tuple(by_hand.values()), by_name=by_name)

    def _leads(self, part: Part, script: PurePosixPath) -> tuple[Part | End, ...]:
        """What a part of a file leads to, in a search that begins in `script`: other parts, and
        attention. Their ways begin at the part: they are to be put `behind` the one on which the
        search came to it."""
        key = (part.path, part.name, part.path == script)
        if key not in self._found:
            self._found[key] = tuple(self._looked_up(*key))
        return self._found[key]

    def _looked_up(
        self, path: PurePosixPath, name: str, is_in_script: bool
    ) -> Iterator[Part | End]:
        """As `_leads`: in the script itself what is made and does not run leads nowhere."""
        part = Part(path, name)
        symbols = self.names.symbols(part.path)
        if symbols is None:
            return
        uses = self.uses(part.path, part.name)
        for line in self.by_hand(part.path, part.name):
            yield End(part, line, ("attention written by hand",), Kind.BY_HAND)
        for name, line in uses.names.items():
            yield from self._named(part, symbols, name, line, Use.RUNS, is_in_script)
        for name, line in uses.mentioned.items():
            yield from self._named(part, symbols, name, line, Use.MENTIONED, is_in_script)
        if part.name == WHOLE:
            yield from self._star_imports(part, symbols)
        for module, line in uses.loaded.items():
            yield from self._loaded(part, module, line)
        for (module, application), line in uses.served.items():
            home = self.names.application_home(part.path, module, application)
            if home is not None:
                yield part.to(home, WHOLE, line)

    def _named(
        self,
        part: Part,
        symbols: Symbols,
        name: str,
        line: int,
        use: Use,
        is_in_script: bool,
    ) -> Iterator[Part | End]:
        """What a dotted name in a part of a file leads to; `use` is how sure it can be at best."""
        if (own := own_method(self._module(part.path), symbols, part.name, name)) is not None:
            yield part.to(part.path, own, line, use)
            return
        meaning = self.names.meaning(part.path, name)
        if isinstance(meaning, Defined):
            if not (is_in_script and self._makes_in_vain(part, meaning, name)):
                yield part.to(*part_named(self.names, meaning), line, use)
        elif isinstance(meaning, Outside) and holds_models(meaning.name):
            yield from self._of_library(part, name, meaning.name, line, use)
        else:
            full = meaning.name if isinstance(meaning, Outside) else name
            if full.rpartition(".")[2] in _ATTENTION and self._is_mlx(part.path, symbols, name):
                yield End(part, line, (_as_written(full),), Kind.MLX, use)

    def _of_library(
        self, part: Part, name: str, full: str, line: int, at_best: Use
    ) -> Iterator[End]:
        """The attention of a package of models that a name of it comes to: where a model that it
        loads or makes is seen to run, that is the line."""
        if self._is_own(part.path, full):
            return  # compiled code in a package of the project itself
        use = use_of(full)
        runs = self._models.runs(part.path, name) if use in (Use.LOADS, Use.MODEL) else None
        if use is None or runs == ():
            return
        if runs is None or at_best is not Use.RUNS:
            yield End(part, line, *attention_of(full), max(use, at_best))
            return
        for link, further in pairwise(runs):
            part = part.to(further.path, WHOLE, link.line)
        names, kind = attention_of(full)
        yield End(part, runs[-1].line, (f"the model of {full}", *names[1:]), kind)

    def _is_own(self, path: PurePosixPath, full: str) -> bool:
        """Whether a name is of a package of the project itself."""
        return self.names.module_file(path, 0, full.partition(".")[0]) is not None

    def _star_imports(self, part: Part, symbols: Symbols) -> Iterator[End]:
        for item in symbols.stars:
            is_library = not item.dots and holds_models(item.module)
            if is_library and not self._is_own(part.path, item.module):
                yield from _of_module(part, item.line, f"{item.module}.*")

    def _makes_in_vain(self, part: Part, meaning: Defined, name: str) -> bool:
        """Whether a name of the project loads or makes a model that the file does not run."""
        node = self._module(meaning.path).definitions.get(meaning.name)
        if isinstance(node, ast.ClassDef) and not meaning.rest:
            makes = any(last_name(base) == "Module" for base in node.bases)
        else:
            makes = use_of(f"{meaning.path.stem}.{name}") is Use.LOADS
        return makes and self._models.runs(part.path, name) == ()

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

    def _loaded(self, part: Part, module: str, line: int) -> Iterator[Part | End]:
        """What a module that is loaded by its name leads to."""
        if ANY not in module:
            found = self.names.named_module(part.path, module)
            if isinstance(found, Defined):
                yield part.to(found.path, WHOLE, line)
            elif found is not None and holds_models(found.name):
                yield from _of_module(part, line, found.name)
            return
        files = self.project.loaded(module, part.path)
        yield from (part.to(path, WHOLE, line, Use.UNKNOWN) for path in files)
        if not files and self.project.attending:
            yield End(part, line, ("a module that is chosen by name",), Kind.BY_NAME)


def _of_module(part: Part, line: int, name: str) -> Iterator[End]:
    """The attention of a module of a package of models, of which it isn't known what is taken."""
    if (use := use_of_module(name)) is not None:
        yield End(part, line, *attention_of(name), use)


def _as_written(name: str) -> str:
    """A full name of MLX as scripts write it."""
    return name.replace("mlx.core.", "mx.").replace("mlx.nn.", "nn.")
