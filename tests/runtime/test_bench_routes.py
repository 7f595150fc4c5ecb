"""`mlx-flash bench routes`: named calls, each on every route that there is for it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from backends import cpu_only
from click.testing import CliRunner, Result

from mlx_flash_runtime import explain
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench import cases
from mlx_flash_runtime.tools.cli.group import mlx_flash

SMALL = Problem(1, 4, 2, 64, 64, 16, 16, mask="causal")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(mlx_flash, ["bench", "routes", "--seconds", "0.01", *arguments])


@pytest.fixture(autouse=True)
def _small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    window = cases.masked(SMALL, Window(9))
    softcapped = replace(SMALL, softcap=2.0)
    monkeypatch.setattr(
        cases, "inference", lambda: {"causal": SMALL, "window": window, "softcap": softcapped}
    )
    monkeypatch.setattr(cases, "training", lambda: {"window": replace(window, training=True)})


@cpu_only
def test_every_route_is_beside_mlx() -> None:
    done = command()
    assert done.exit_code == 0, done.output
    _, *lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "causal",
        "window",
        "training: window",
    ]
    assert len(re.findall(r"^  MLX's own [\d.]+ ms", done.stdout, re.M)) == 3
    pattern = r"^  blockwise ([\d.]+) ms, ([\d.]+) × MLX's own"
    assert len(re.findall(pattern, done.stdout, re.M)) == 3
    route = explain(SMALL).route
    assert re.search(rf"^  {route} .*taken$", done.stdout, re.M)


@cpu_only
def test_some_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("--only", "training")
    assert "\ntraining: window\n" in done.stdout
    assert "\nwindow\n" not in done.stdout
    none = command("--only", "prompt")
    assert none.exit_code == 2
    assert "no call has that in its name: causal; window; training: window" in none.output


@cpu_only
def test_a_route_that_is_wrong_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args: lambda call: right(*args)(call) * 1.01)
    done = command("--only", "causal")
    assert done.exit_code == 1
    assert "  wrong: blockwise\n" in done.stdout


def test_the_calls_of_the_page_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names that it has."""
    monkeypatch.undo()
    assert "window 128, prompt of 16,384" in command("--only", "nothing").output
