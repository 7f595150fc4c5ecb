"""The rooms of the integrator and of the codemods: who may import whom, and that the core knows no
style of script."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import flash_codemods
import flash_integrate

CORE = Path(flash_integrate.__file__).parent
CODEMODS = Path(flash_codemods.__path__[0])
# From the ground floor up: a room imports those before it, and modules of its own.
FLOORS = {
    "flash_integrate": (
        "__init__",
        "errors",
        "notes",
        "quoting",
        "disk",
        "python",
        "inserted",
        "project",
        "attention",
        "notebook",
        "planning",
        "report",
        "review",
        "vendor",
        "cli",
        "__main__",
    ),
    # The codemods of entry points look at whether those with flags take a file.
    "flash_codemods": (
        "__init__",
        "enable",
        "argparse",
        "commands",
        "handwritten",
        "notebooks",
        "entry_points",
    ),
}


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for base in (CORE, CODEMODS):
        for path in base.rglob("*.py"):
            parts = path.relative_to(base.parent).with_suffix("").parts
            inner = parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts
            found[".".join(inner)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """The modules of both packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flash_"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = whole if whole in MODULES else node.module or ""
                yield known if known in MODULES else f"{known}.__init__"


def room(name: str) -> str:
    return name.split(".")[1]


ARROWS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def test_every_room_has_its_floor() -> None:
    for package, floors in FLOORS.items():
        mine = {room(name) for name in MODULES if name.startswith(f"{package}.")}
        assert mine <= set(floors)


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_upwards(name: str) -> None:
    package = name.partition(".")[0]
    for other in ARROWS[name]:
        if other.partition(".")[0] == package:
            floors = FLOORS[package]
            assert floors.index(room(other)) <= floors.index(room(name)), f"{name}: {other}"


def test_the_core_knows_no_codemod() -> None:
    """It finds them by their folder, and asks each what it matches."""
    for name, others in ARROWS.items():
        if name.startswith("flash_integrate."):
            assert not [other for other in others if other.startswith("flash_codemods")], name


def test_modules_import_each_other_in_no_circle() -> None:
    left = dict(ARROWS)
    while left:
        ground = [name for name, others in left.items() if not others & left.keys()]
        assert ground, f"a circle among {sorted(left)}"
        for name in ground:
            del left[name]
