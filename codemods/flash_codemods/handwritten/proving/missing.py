"""What an evaluation may lack."""

from __future__ import annotations

import ast
from functools import lru_cache


@lru_cache(maxsize=1 << 12)
def text_of(node: ast.expr) -> str:
    """The text of an expression, written out once for the many times that it is evaluated."""
    return ast.unparse(node)


class NotEvaluable(Exception):
    """An expression that is not one of those that are evaluated here."""


class Missing(Exception):
    """Something that the function does not make itself: an array, a number, a choice. `key` is its
    text."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key
