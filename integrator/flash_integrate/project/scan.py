"""The first look at a file: what its bytes show of its imports, and whether it may concern MLX.

They are read by regular expressions: it has to be cheap enough for every file of a tree, and a file
that does not parse still takes part. Each begins with a word, or is tried where a word is: Python
finds a word in bytes ten times as fast as it tries a choice at every place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FROM = re.compile(rb"from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)")
_IMPORT = re.compile(rb"import[ \t]+([\w., \t]+)")
_NAME = re.compile(rb"(\w+|\*)(?:\s+as\s+\w+)?")
_APPLICATION = re.compile(rb"[\"']([A-Za-z_][\w.]*):([A-Za-z_]\w*)[\"']")
_MODULE = re.compile(rb"([\"'])(\.?[A-Za-z_](?:[\w.]|\{[\w.]+\})*)\1")
_LEFT_OPEN = re.compile(r"\{[^}]*\}")
ANY = "*"
"""Stands in the name of a module for a part that is known only when the program runs."""
_ADDS_FOLDER = re.compile(rb"\bsys\.path\.(?:insert|append)\(\s*([^\r\n]*)")
_FOLDER = re.compile(rb"[\"']/?((?:[\w.-]+/)*[\w.-]+)/?[\"']")
# A package of models for MLX whose name does not say so is named too.
_MLX = re.compile(rb"mlx|mflux")
_ALL = re.compile(rb"\n__all__\b[^=\n]*=\s*[\[(]([^\])]*)")
_TEXT = re.compile(rb"[\"'](\w+)[\"']")
_BOUND = re.compile(
    rb"\bmlx(?:\.[\w.]*)?[ \t]+as[ \t]+(\w+)"
    rb"|\bfrom[ \t]+mlx(?:\.[\w.]*)?[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)"
)
_ATTENTION = (b"scaled_dot_product_attention", b"MultiHeadAttention")
_TRANSFORMER = re.compile(rb"\bTransformer(?:Encoder|Decoder)?(?:Layer)?\b")
_LOADERS = (b"import_module", b"__import__", b"def __getattr__")
_BY_NAME = re.compile(rb"\b(?:import_module|__import__)\b|^def __getattr__\b", re.MULTILINE)
_LIBRARY_BY_NAME = re.compile(
    rb"\b(?:import_module|__import__)\(\s*f?[\"'](\w*(?:mlx|mflux)\w*)(?=[.{\"'])"
)
_COMMENT = re.compile(rb"#[^\r\n]*")


@dataclass(frozen=True)
class Import:
    """`from {dots}{module} import {names}`, or `import {module}` without names."""

    dots: int
    module: str
    names: tuple[str, ...] = ()


def imported_by(node: ast.AST) -> list[Import]:
    """What a statement imports; nothing if it is no import."""
    if isinstance(node, ast.ImportFrom):
        names = tuple(item.name for item in node.names)
        return [Import(node.level, node.module or "", names)]
    return [Import(0, item.name) for item in node.names] if isinstance(node, ast.Import) else []


def plain_lines(data: bytes) -> bytes:
    """`data` without a byte order mark and with line feeds alone between its lines, as Python reads
    them: a lone return ends a line too. (A form feed is a blank, to be allowed for.)"""
    data = data.removeprefix(b"\xef\xbb\xbf")
    return data.replace(b"\r", b"\n") if b"\r" in data else data


def scan_imports(data: bytes) -> Iterator[Import]:
    """The imports that a file's bytes show, wherever they stand; also of the application that it
    has uvicorn import."""
    data = plain_lines(data)
    if b"uvicorn" in data:
        for module, name in _APPLICATION.findall(data):
            yield Import(0, module.decode(), (name.decode(),))
    for match in _statements(_FROM, data):
        dots, module, names = match.groups()
        bare = _COMMENT.sub(b"", names).strip(b"()")
        yield Import(
            len(dots), module.decode(), tuple(name.decode() for name in _NAME.findall(bare))
        )
    for match in _statements(_IMPORT, data):
        for part in match.group(1).split(b","):
            if words := part.split():
                yield Import(0, words[0].decode())


def _statements(pattern: re.Pattern[bytes], data: bytes) -> Iterator[re.Match[bytes]]:
    """The matches that begin a line or follow a `;` or `:`, blanks apart."""
    place = 0
    while match := pattern.search(data, place):
        before = match.start() - 1
        while before >= 0 and data[before] in b" \t\f":
            before -= 1
        begins = before < 0 or data[before] in b"\n;:"
        if begins:
            yield match
        # What only looks like a statement, in a text say, may have one behind it in its line.
        place = match.end() if begins else match.start() + 1


def scan_folders(data: bytes) -> Iterator[str]:
    """The folders that a file adds to `sys.path`, as far as its text says: `sys.path.insert(0,
    str(HERE / "lib"))` gives lib. Where that stands is left open."""
    for match in _ADDS_FOLDER.finditer(data) if b"sys.path" in data else ():
        parts = [
            part.decode()
            for folder in _FOLDER.findall(match.group(1))
            for part in folder.split(b"/")
        ]
        if named := [part for part in parts if part not in (".", "..")]:
            yield "/".join(named)


def scan_loaded(data: bytes) -> Iterator[str]:
    """What may be names of modules in a file that loads some by name: its texts of such a form,
    with `ANY` for what an f-string leaves open, or what is added to a text."""
    for name in {name for _, name in _MODULE.findall(data)}:
        text = _LEFT_OPEN.sub(ANY, name.decode())
        yield text + ANY if text.endswith(".") else text


def scan_bound(data: bytes) -> Iterator[str]:
    """The names that a file's imports bind to something of MLX, and perhaps some more: `mx` for
    `import mlx.core as mx`."""
    for match in _BOUND.finditer(plain_lines(data)):
        bare = _COMMENT.sub(b"", match[1] or match[2])
        yield from (word.decode() for word in re.findall(rb"\w+|\*", bare))


def scan_exported(data: bytes) -> Iterator[str]:
    """The names in a module's `__all__`, as far as its text says."""
    # A line's beginning is looked for as the line feed before it, see above.
    for match in _ALL.finditer(b"\n" + plain_lines(data)) if b"__all__" in data else ():
        yield from (word.decode() for word in _TEXT.findall(match[1]))


def is_library(item: Import) -> bool:
    """Whether a package is imported that may hold models for MLX."""
    package = item.module.partition(".")[0]
    return is_named_after_mlx(item) and package not in ("mlx", "mlx_flash_runtime")


def is_named_after_mlx(item: Import) -> bool:
    """Whether an import is of MLX, or of a package whose name holds it."""
    return not item.dots and bool(_MLX.search(item.module.partition(".")[0].encode()))


@dataclass(frozen=True)
class Scan:
    """What the first look at a file's bytes gives, before any file is parsed.

    `names_mlx`: whether the bytes name MLX; `folders` are those besides its own in which its
    imports are looked for, `exported` what `from it import *` takes. `mlx` are the names that it
    has of MLX; `may_attend`, `has_softmax` and `loads_by_name` say whether there is a word in
    it by which attention is called, or written by hand, or a module is loaded; `loaded` are texts
    that may be names of such modules, `packages` those that are named after MLX.
    """

    names_mlx: bool
    imports: tuple[Import, ...]
    folders: tuple[str, ...]
    exported: tuple[str, ...]
    mlx: frozenset[str]
    may_attend: bool
    has_softmax: bool
    loads_by_name: bool
    loaded: tuple[str, ...]
    packages: tuple[str, ...]

    @staticmethod
    def of(data: bytes) -> Scan:
        names_mlx = b"mlx" in data or b"mflux" in data
        has_softmax = b"softmax" in data
        loads_by_name = _holds(_LOADERS, data) and _BY_NAME.search(data) is not None
        return Scan(
            names_mlx,
            tuple(scan_imports(data)),
            tuple(scan_folders(data)),
            tuple(scan_exported(data)),
            frozenset(scan_bound(data)) if names_mlx else frozenset(),
            has_softmax
            or _holds(_ATTENTION, data)
            or (b"Transformer" in data and _TRANSFORMER.search(data) is not None),
            has_softmax,
            loads_by_name,
            tuple(sorted(set(scan_loaded(data)))) if loads_by_name else (),
            tuple(item.decode() for item in _LIBRARY_BY_NAME.findall(data)) if names_mlx else (),
        )


def _holds(words: Iterable[bytes], data: bytes) -> bool:
    return any(word in data for word in words)
