"""What an evaluation may lack."""

from __future__ import annotations

import ast
import re
from functools import lru_cache


@lru_cache(maxsize=1 << 12)
def text_of(node: ast.expr) -> str:
    """The text of an expression, written out once for the many times that it is evaluated.

    `self.bias(n, scores.dtype)` is said without the array: where the scores are gone, it is asked
    for the queries' type.
    """
    return re.sub(r"\b\w+\.dtype\b", "dtype", ast.unparse(node))


class NotEvaluable(Exception):
    """An expression that is not one of those that are evaluated here."""


class Missing(Exception):
    """Something that the function does not make itself: an array, a number, a choice. `key` is its
    text."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key
