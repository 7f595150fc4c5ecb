"""What a piece of code uses: attention itself, names that lead further, applications that it
serves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.python.syntax import dotted, walk

_ATTENTION = {
    "scaled_dot_product_attention",
    "MultiHeadAttention",
    "Transformer",
    "TransformerEncoder",
    "TransformerDecoder",
    "TransformerEncoderLayer",
    "TransformerDecoderLayer",
}
_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Uses:
    """What a piece of code shows by itself, what it names, and the applications that it serves by
    their names.

    `attention` is what looks like MLX's, or is written by hand: in a file without MLX it is
    PyTorch's, say.
    """

    attention: str | None
    loads_by_name: bool
    names: tuple[str, ...]
    served: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, node: ast.AST) -> Uses:
        nodes = walk(node)
        attributes = {child.attr for child in nodes if isinstance(child, ast.Attribute)}
        names = attributes | {child.id for child in nodes if isinstance(child, ast.Name)}
        # Who loads a module by name and calls its main() hands over to a script that is looked at
        # for itself.
        loads_by_name = "import_module" in names and "main" not in attributes
        return cls(
            _attention(node, names),
            loads_by_name,
            tuple(sorted(_names_used(node))),
            tuple(_served(node)),
        )


def _attention(node: ast.AST, names: set[str]) -> str | None:
    """Attention by the name of what is called, or written by hand."""
    if used := sorted(names & _ATTENTION):
        return f"uses {used[0]}"
    by_hand = "softmax" in names and next(handwritten_attention(node), None) is not None
    return "has attention written by hand" if by_hand else None


def _names_used(node: ast.AST) -> set[str]:
    """The dotted names that a node reads, each with as many attributes as follow it."""
    inner: set[int] = set()
    names: set[str] = set()
    for child in walk(node):
        if isinstance(child, ast.Attribute | ast.Name) and id(child) not in inner:
            name = dotted(child)
            if name is not None:
                names.add(name)
                part: ast.AST = child
                while isinstance(part, ast.Attribute):
                    part = part.value
                    inner.add(id(part))
    return names


def _served(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The modules and names of `uvicorn.run("server.app:app")`."""
    for call in walk(node):
        if (
            isinstance(call, ast.Call)
            and call.args
            and (dotted(call.func) or "").partition(".")[0] == "uvicorn"
        ):
            value = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
            if isinstance(value, str) and (match := _APPLICATION.fullmatch(value)):
                yield match[1], match[2]
