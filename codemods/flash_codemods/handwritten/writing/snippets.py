"""Texts of expressions, made fit to stand in others."""

from __future__ import annotations

import ast


def atom(text: str) -> str:
    """A text after which a dot may follow."""
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    return text if plain else f"({text})"


def term(text: str) -> str:
    """A text that may stand behind a plus."""
    node = ast.parse(text, mode="eval").body
    return f"({text})" if isinstance(node, ast.IfExp | ast.Compare | ast.Lambda) else text
