"""Why attention stays as it is."""

from __future__ import annotations

import ast


class CannotSay(Exception):
    """A mask, or a scale, that a fused call can't be given; the message is the reason."""

    def __init__(self, reason: str, node: ast.AST) -> None:
        super().__init__(reason)
        self.line: int = getattr(node, "lineno", 0)
