"""What is asked of a file: how it comes to attention, and what it does with models."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import PurePosixPath

from flash_integrate.attention.evidence import Evidence, Link
from flash_integrate.attention.libraries import holds_models, use_of
from flash_integrate.attention.reach import AttentionReach, Reached
from flash_integrate.project.imports import Project
from flash_integrate.project.names import WHOLE
from flash_integrate.project.scan import Import
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.syntax import dotted

FAST_ATTENTION = "fast.scaled_dot_product_attention"
# What scripts call to run a model, as a word of the function's name.
_RUNS = re.compile(r"(^|_)(generate|train|evaluate|chat|transcribe|stream)(_|$)")
# What those words do not run: `generate_readme`, `apply_chat_template`.
_WRITES = re.compile(r"(^|_)(readme|card|config|content|template|index|report)(_|$)")


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
    return node is not None and reach.comes_to_attention(facts.name, node)


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
