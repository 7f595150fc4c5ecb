"""One of queries, keys and values, as the call is given it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from flash_codemods.handwritten.reading.copies import Copies
from flash_codemods.handwritten.values import Factor
from flash_codemods.handwritten.writing.text import Edit


@dataclass
class Operand:
    """Queries, keys or values as the call is given them, and the edits which that needs."""

    text: str
    kind: str
    """An expression that has their type."""
    edits: list[Edit] = field(default_factory=list)
    gone: list[ast.AST] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    copies: Copies | None = None
    """What is no longer done to its heads."""
