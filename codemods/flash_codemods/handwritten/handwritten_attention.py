"""Attention written by hand becomes a fused call: what is offered of a file, and why the rest is
not.

Unlike the other codemods it changes the model's own code, wherever that stands: also in a file
that no program starts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from flash_codemods.handwritten.operations import statements_of
from flash_codemods.handwritten.proving.prover import begin_proof
from flash_codemods.handwritten.proving.question import Question, Verdict
from flash_codemods.handwritten.reading.functions import Reading, read_functions
from flash_codemods.handwritten.reading.measured import measured_functions
from flash_codemods.handwritten.values import Found, Number
from flash_codemods.handwritten.writing.reasons import CannotSay
from flash_codemods.handwritten.writing.rewriting import Rewriting
from flash_codemods.handwritten.writing.text import Text, apply
from flash_integrate.attention.handwritten import handwritten_attention
from flash_integrate.attention.rewrites import Rewrite, occurrences
from flash_integrate.notes import Refusal
from flash_integrate.python.module import Module
from flash_integrate.python.processes import OwnProcesses
from flash_integrate.python.source import Source

NAME = "handwritten-attention"
SUMMARY = "turns attention written by hand into mx.fast.scaled_dot_product_attention"
REVIEW = "this changes the model's own code: the call has the same queries, keys, scale and mask"
KEEP = re.compile(r"#\s*flash-integrate:\s*keep(?![\w-])")
_PRODUCT = re.compile(r"\S[ \t]*@|@ |matmul|einsum|addmm")  # a decorator has neither


@dataclass(frozen=True)
class Match:
    """Attention whose form is known, and the lines that would stand in its place."""

    function: str
    line: int
    first: int
    last: int
    """The lines that are replaced, from 1."""
    lines: bytes
    question: Question


def examine(source: Source, width: int = 88) -> tuple[list[Match], list[Refusal]]:
    """The attention written by hand in a file: what could be rewritten, in lines of `width`
    columns, and what could not, with the reason.

    Raises:
        UnreadableSource: the file can't be decoded or parsed.
    """
    text = source.text.replace("\r\n", "\n")
    if "softmax" not in text or not _PRODUCT.search(text) or "\r" in text or "\f" in text:
        return [], []
    try:
        tree = source.parsed
    except (SyntaxError, ValueError):
        reason = "the file is in a newer Python's syntax than the one that runs this tool"
        module = Module(source)
        lines = {call.lineno for call in handwritten_attention(module, module.tree)}
        return [], [Refusal(reason, line) for line in sorted(lines)]
    try:
        readings = read_functions(tree, text)
    except RecursionError:
        return [], [Refusal("a function is nested too deeply to be followed")]
    matches: list[Match] = []
    refusals: list[Refusal] = []
    measured = measured_functions(tree) if readings else {}
    for reading in readings:
        if (line := _kept_at(text, reading.function)) is not None:
            refusals.append(Refusal("a comment keeps it as it is", line))
            continue
        refusals += [Refusal(refused.reason, refused.line) for refused in reading.refused]
        if (timer := _measured_by(measured, reading)) is not None:
            reason = f"it is measured as it is, beside others, by `{timer}`"
            refusals += [Refusal(reason, found.node.lineno) for found in reading.found]
            continue
        for found in reading.found:
            result = _match(source, Text(text, tree, width), reading, found)
            (matches if isinstance(result, Match) else refusals).append(result)  # type: ignore[arg-type]
    return _apart(matches, refusals), refusals


def begin(
    source: Source, *, width: int = 88, processes: OwnProcesses | None = None
) -> Callable[[], tuple[list[Rewrite], list[Refusal]]]:
    """Has the proofs of a file's rewrites made, in one of `processes` if they are given; what it
    returns waits for them, and gives what `rewrites_of` does.

    Raises:
        UnreadableSource: the file can't be decoded or parsed.
    """
    matches, refusals = examine(source, width)
    folders = tuple({str(parent) for parent in source.path.absolute().parents})
    proofs = [begin_proof(match.question, folders, processes) for match in matches]

    def rewrites() -> tuple[list[Rewrite], list[Refusal]]:
        found = zip(matches, proofs, strict=True)
        return [_rewrite(source, match, proof()) for match, proof in found], refusals

    return rewrites


def rewrites_of(source: Source, *, width: int = 88) -> tuple[list[Rewrite], list[Refusal]]:
    """The rewrites of a file's attention whose form is known, proved or not, in lines of `width`
    columns, and why the rest of its attention stays.

    Raises:
        UnreadableSource: the file can't be decoded or parsed.
    """
    return begin(source, width=width)()


def _match(source: Source, text: Text, reading: Reading, found: Found) -> Match | Refusal:
    rewriting = Rewriting(text, reading, found)
    try:
        edits = rewriting.edits()
    except CannotSay as reason:
        return Refusal(str(reason), reason.line or found.node.lineno)
    edits = [edit for edit in edits if edit.start < edit.end or edit.text]
    new = apply(text.text, edits)
    try:
        ast.parse(new)
    except SyntaxError:
        return Refusal("the rewritten function would not be valid", found.node.lineno)
    first = text.text.count("\n", 0, min(edit.start for edit in edits)) + 1
    end = max(max(edit.end - 1, edit.start) for edit in edits)
    last = text.text.count("\n", 0, end) + 1
    lines = text.text.split("\n")
    after = new.split("\n")[first - 1 : len(new.split("\n")) - (len(lines) - last)]
    node = rewriting.result
    question = Question(
        text.text,
        new,
        (reading.function.name,),
        _index(text.tree, reading.function),
        (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0),
        rewriting.call,
        rewriting.rank,
        tuple(sorted(rewriting.bools)),
        tuple(_numbers(reading)),
        tuple(statement.lineno for statement in rewriting.makers),
        tuple(statement.lineno for statement in rewriting.sizes),
        rewriting.without_copies,
    )
    newline = "\r\n" if b"\r\n" in source.data else "\n"
    replaced = "".join(f"{line}{newline}" for line in after)
    if not source.lines()[last - 1].endswith(b"\n"):
        replaced = replaced.removesuffix(newline)
    encoded = replaced.encode(source.encoding.removesuffix("-sig"))
    line = found.weights.softmax.lineno
    return Match(_qualified(text.tree, reading.function), line, first, last, encoded, question)


def _rewrite(source: Source, match: Match, verdict: Verdict) -> Rewrite:
    lines = source.lines()
    before = b"".join(lines[match.first - 1 : match.last])
    start = sum(map(len, lines[: match.first - 1]))
    index = occurrences(source.data, before).index(start)
    return Rewrite(
        match.function,
        match.line,
        match.first,
        before,
        match.lines,
        index,
        verdict.text(),
        verdict.proved,
        verdict.unseen,
        verdict.differs,
    )


def _apart(matches: list[Match], refusals: list[Refusal]) -> list[Match]:
    """The matches that share no line with another one."""
    kept = []
    for match in matches:
        others = [
            other
            for other in matches
            if other is not match and other.first <= match.last and match.first <= other.last
        ]
        if others:
            reason = f"it shares lines with the attention on line {others[0].line}"
            refusals.append(Refusal(reason, match.line))
        else:
            kept.append(match)
    return kept


def _measured_by(measured: dict[str, str], reading: Reading) -> str | None:
    """What compares the time of a function with that of others; methods go by other names."""
    function = reading.function
    is_method = reading.owner.methods.get(function.name) is function
    return None if is_method else measured.get(function.name)


def _kept_at(text: str, function: ast.FunctionDef) -> int | None:
    """The line of a function on which a comment asks to keep its attention."""
    lines = text.split("\n")
    for number in range(function.lineno, (function.end_lineno or function.lineno) + 1):
        if KEEP.search(lines[number - 1]):
            return number
    return None


def _numbers(reading: Reading) -> list[str]:
    """The parameters of a function that are numbers, and stay so."""
    bound = reading.reader.bound
    parameters = [item for item in bound if item.statement is None and not item.parents]
    return [
        item.name
        for item in parameters
        if isinstance(item.value, Number) and [other.name for other in bound].count(item.name) == 1
    ]


def _functions(tree: ast.Module, name: str) -> list[ast.FunctionDef]:
    found = [
        node
        for node in statements_of(tree)
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return sorted(found, key=lambda node: node.lineno)


def _index(tree: ast.Module, function: ast.FunctionDef) -> int:
    return _functions(tree, function.name).index(function)


def _qualified(tree: ast.Module, function: ast.FunctionDef) -> str:
    """`Attention.__call__`."""
    todo: list[tuple[ast.AST, str]] = [(tree, "")]
    while todo:
        node, prefix = todo.pop()
        for child in ast.iter_child_nodes(node):
            if child is function:
                return f"{prefix}{function.name}"
            if isinstance(child, ast.expr):
                continue
            named = isinstance(child, ast.ClassDef | ast.FunctionDef)
            todo.append((child, f"{prefix}{child.name}." if named else prefix))  # type: ignore[attr-defined]
    return function.name
