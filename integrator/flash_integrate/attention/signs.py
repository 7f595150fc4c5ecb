"""What a file does with attention and models by itself, told from names."""

from __future__ import annotations

import ast
import re

from flash_integrate.attention.reach import AttentionReach
from flash_integrate.project.names import WHOLE
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import dotted

FAST_ATTENTION = "fast.scaled_dot_product_attention"
# What scripts call to run a model, as a word of the function's name.
_RUNS = re.compile(r"(^|_)(generate|train|evaluate|chat|transcribe|stream)(_|$)")
# What those words do not run: `generate_readme`, `apply_chat_template`.
_WRITES = re.compile(r"(^|_)(readme|card|config|content|template|index|report)(_|$)")


def replaces_attention_at(facts: FileFacts) -> int | None:
    """The line on which the file sets `mx.fast.scaled_dot_product_attention` itself."""
    for node in facts.module.of_kind(ast.Assign):
        if any((dotted(target) or "").endswith(FAST_ATTENTION) for target in node.targets):
            return node.lineno
    return None


def runs_models(facts: FileFacts) -> bool:
    """Whether the file calls something that generates, trains or evaluates, by the name of what it
    calls."""
    calls = (dotted(node.func) or "" for node in facts.module.of_kind(ast.Call))
    names = {call.rpartition(".")[2] for call in calls}
    return any(_RUNS.search(name) and not _WRITES.search(name) for name in names)


def handwritten_lines(facts: FileFacts) -> list[int]:
    """The lines of functions that compute `softmax(q @ k.T) @ v` from its parts, with MLX: no patch
    can reach those."""
    if "softmax" not in facts.source.text:
        return []
    return sorted(set(facts.workspace.get(AttentionReach).by_hand(facts.name, WHOLE)))
