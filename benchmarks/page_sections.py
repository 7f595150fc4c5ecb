"""The sections of docs/performance.md: the tables of each machine, the words in them, and what is
missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import macs
import page_words
from page_columns import columns
from page_marks import in_a_line, measured_with
from suite_commands import MACHINES, commands

from mlx_flash_runtime.tools.bench.columns import tables_of
from mlx_flash_runtime.tools.bench.definitions import CHAOTIC, is_chaotic
from mlx_flash_runtime.tools.bench.machine import described
from mlx_flash_runtime.tools.bench.tables import (
    Document,
    NotAResult,
    Row,
    document_of,
    load,
    make_table,
)

NAMES = {"cpu": "CPU", "h200": "NVIDIA H200"}
NO_MAC = "Mac (Metal)"  # while there is no result of one
# Measurements that the code's constants come from, too long for a page.
UNSHOWN = ("crossover",)

# By machine, one of MACHINES or a Mac's chip, then by the name of the file without .json.
Results = dict[str, dict[str, Document]]


@dataclass(frozen=True)
class Rows:
    """What a script of this folder measured, in the form of `store.Result`."""

    name: str
    title: str
    command: str
    machine: dict[str, Any]
    definitions: list[str]
    rows: list[Row]


def read(folder: Path) -> Results:
    """The results of the suite and of Macs that there are. A file of another form counts as
    none."""
    found: Results = {machine: {} for machine in MACHINES}
    for machine in MACHINES:
        for name in commands(machine):
            try:
                found[machine][name] = load(folder / f"{name}.json")
            except NotAResult:
                continue
    found_macs = macs.read(folder)
    for mac in found_macs:
        found[mac.chip] = {
            f"{name}_{mac.chip}": document_of(data, folder)
            for name, data in mac.results.items()
            if "kind" in data
        }
    return found if found_macs else found | {NO_MAC: {}}


def name_of(machine: str) -> str:
    """The machine as readers see it."""
    return NAMES.get(machine, machine)


def read_rows(folder: Path) -> list[Rows]:
    """What the other scripts of this folder measured."""
    found = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "rows" in data and "kind" not in data and path.stem not in UNSHOWN:
            found.append(_rows(path.stem, data))
    for mac in macs.read(folder):
        for name, data in mac.results.items():
            if "kind" not in data:
                found.append(_rows(f"{name}_{mac.chip}", data))
    return found


def _rows(name: str, data: dict[str, Any]) -> Rows:
    return Rows(
        name=name,
        title=data.get("title") or name.replace("_", " "),
        command=data.get("command", ""),
        machine=data["machine"],
        definitions=data.get("definitions", []),
        rows=data["rows"],
    )


def sections(results: Results, folder: Path) -> list[str]:
    """One section a machine."""
    others = read_rows(folder)
    found = []
    for machine, documents in results.items():
        own = [each for each in others if machine_of(each) == machine]
        if machine != NO_MAC:
            found.append(_section(machine, documents, own, folder))
    return found


def machine_of(measured: Rows) -> str:
    """Which of MACHINES or which Mac it ran on; the CPU for what has no GPU in it."""
    device = str(measured.machine["device"])
    if "H200" in device:
        return "h200"
    return "cpu" if measured.machine["backend"] == "cpu" else device


def _section(machine: str, documents: dict[str, Document], others: list[Rows], folder: Path) -> str:
    parts = [f"## {name_of(machine)}"]
    definitions: dict[str, None] = {}
    wanted = commands(machine) if machine in MACHINES else {}
    for name, document in documents.items():
        whole = wanted.get(name, "")  # with what it has run before
        command = whole if whole.endswith(f"&& {document.command}") else document.command
        parts.append(_headed(name, document.title, command, document.machine))
        tables = tables_of(document)
        for table in tables[:1] if document.kind == "compare" else tables:
            parts.append((f"{table.title}:\n\n" if table.title else "") + table.as_markdown())
        parts += document.findings
        definitions |= dict.fromkeys(document.definitions)
        definitions |= {CHAOTIC: None} if is_chaotic(document.rows) else {}
    definitions |= dict.fromkeys(page_words.of_documents([*documents.values()]))
    definitions |= dict.fromkeys(in_a_line("\n".join(parts)))
    parts += _listed(definitions)
    for measured in others:
        parts.append(_headed(measured.name, measured.title, measured.command, measured.machine))
        bad = [i for i, row in enumerate(measured.rows) if row.get("wrong")]
        shown = columns(measured.name, measured.rows)
        rows = make_table("", shown, measured.rows, bad).as_markdown()
        parts.append(rows)
        if (folder / f"{measured.name}.svg").exists():
            parts.append(f"![{measured.title}](../benchmarks/results/{measured.name}.svg)")
        words = page_words.of_rows(measured.name, measured.command, measured.rows)
        parts += _listed([*measured.definitions, *words, *in_a_line(rows)])
    there = {*documents, *(measured.name for measured in others)}
    missing = [command for name, command in wanted.items() if name not in there]
    if missing:
        listed = "\n".join(missing)
        parts.append(
            f"Not measured yet (`python benchmarks/suite.py {machine}` runs them "
            f"all):\n\n```\n{listed}\n```"
        )
    return "\n\n".join(parts) + "\n"


def _listed(definitions: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {definition}" for definition in definitions)
    return [listed] if listed else []


def _headed(name: str, title: str, command: str, machine: dict[str, Any]) -> str:
    where = f"{described(machine)}. {measured_with(name, machine)}".rstrip()
    return "\n\n".join([f"### {title}", *([f"`{command}`"] if command else []), where])
