"""The rooms of the runtime: who may import whom, what a program loads, and what a new route
touches."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from arithmetic import agree

import mlx_flash_runtime
from mlx_flash_runtime import explain, flash_attention_enabled, report
from mlx_flash_runtime.planning import choice, planner
from mlx_flash_runtime.problem import Attend, Call, Device, Problem
from mlx_flash_runtime.routes import ROUTES, Route, reference

PACKAGE = Path(mlx_flash_runtime.__file__).parent
# From the ground floor up: a room imports those before it, and modules of its own.
FLOORS = (
    "version",
    "environment",
    "problem",
    "stock",
    "ops",
    "kernels",
    "lowerings",
    "routes",
    "settings",
    "planning",
    "patching",
    "report",
    "control",
    "attention",
    "explanation",
    "masks",
    "__init__",
    "__main__",
    "tools",
)


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [] if name == "__init__" else package
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                yield whole if whole in MODULES else ".".join(base) or "__init__"


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_upwards(name: str) -> None:
    for other in imported(name, MODULES[name]):
        assert FLOORS.index(room(other)) <= FLOORS.index(room(name)), f"{name} imports {other}"


def test_modules_import_each_other_in_no_circle() -> None:
    arrows = {name: set(imported(name, path)) - {name} for name, path in MODULES.items()}
    left = dict(arrows)
    while left:
        ground = [name for name, others in left.items() if not others & left.keys()]
        assert ground, f"a circle among {sorted(left)}"
        for name in ground:
            del left[name]


@pytest.mark.parametrize("folder", ["routes", "lowerings"])
def test_no_route_and_no_rewriting_imports_another(folder: str) -> None:
    shared = {folder, f"{folder}.route"}
    for name, path in MODULES.items():
        if room(name) == folder and name not in shared:
            others = {other for other in imported(name, path) if room(other) == folder}
            assert others <= shared, name


def test_a_program_loads_nothing_of_the_command() -> None:
    code = (
        "import sys, mlx_flash_runtime as m; m.enable_flash_attention(); m.report()\n"
        "print(*(name for name in sys.modules if name.startswith('mlx_flash_runtime.tools')))\n"
        "print(*(name for name in ('click', 'rich', 'mlx_lm') if name in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


class Toy(Route):
    """What CONTRIBUTING says a route has to have, and no more."""

    name = "toy"

    def holds(self, problem: Problem, device: Device) -> tuple[bool, str]:
        return problem.head_dim == 24, "it is a toy for head dim 24"

    def pays(self, problem: Problem, device: Device) -> tuple[bool, str]:
        return True, "toys always pay"

    def attend(self, problem: Problem, device: Device, block_size: int | None) -> Attend:
        def attend(call: Call) -> mx.array:
            return reference.run(call, device)

        return attend


def test_a_route_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choice, planner):  # the line, which is one of `routes/__init__.py`
        monkeypatch.setattr(module, "ROUTES", (Toy(), *ROUTES))
    planner.forget_plans()
    q, k, v = (mx.random.normal((1, 2, 40, 24), key=mx.random.key(i)) for i in range(3))
    stock = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2, mask="causal")
    with flash_attention_enabled():
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.2, mask="causal")
        told = report().as_dict()
    planner.forget_plans()
    assert agree(out, stock, rtol=1e-4, atol=1e-5)
    assert told["reasons"] == [
        {"route": "toy", "reason": "it is a toy for head dim 24", "calls": 1}
    ]
    assert explain(q, k, v).route == "toy"
