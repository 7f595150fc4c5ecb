"""Tiny models made once per session, and a way to run a script of the ten on them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import Outcome
from scripts import PROMPTS, REPO, Result, Script

from built_kernel import built_kernel  # noqa: F401  # a fixture
from tiny_models import make_models

ROOT = Path(__file__).parents[2]
# How a test runs a script: the folder that holds it, further options, further environment.
Run = Callable[..., tuple[Outcome, Path]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`, keep the tests of a script in one worker."""
    for item in items:
        script = getattr(item, "callspec", None) and item.callspec.params.get("script")
        if isinstance(script, Script):
            item.add_marker(pytest.mark.xdist_group(script.group))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny models `llama` and `gemma`, the data set `data` and a file of
    prompts."""
    out = tmp_path_factory.mktemp("models")
    make_models(out)
    (out / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return out


@pytest.fixture(scope="session")
def kernel_cache(pytestconfig: pytest.Config) -> Path:
    """Where MLX's CPU backend keeps the kernels it compiles, one folder per test worker.

    MLX compiles straight to the final file name in TMPDIR, so processes that share the folder can
    load each other's half-written libraries. Kept between sessions: compiling takes longer than
    the tests.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return Path(pytestconfig.cache.mkdir(f"mlx-kernels-{worker}"))


@pytest.fixture(scope="session")
def environment(kernel_cache: Path) -> dict[str, str]:
    """The environment of every child: the two distributions importable, no settings of theirs."""
    env = {name: value for name, value in os.environ.items() if "MLX_FLASH" not in name}
    sources = [str(ROOT / folder) for folder in ("integrator", "codemods", "runtime")]
    env["PYTHONPATH"] = os.pathsep.join([*sources, *filter(None, [env.get("PYTHONPATH")])])
    nothing_measured = {"MLX_FLASH_CALIBRATION": str(kernel_cache / "no-calibration.json")}
    return {
        **env,
        **nothing_measured,
        "TMPDIR": str(kernel_cache),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
    }


@pytest.fixture(scope="session")
def run(models: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a script: `run(script, repo=..., options=..., env=..., drive=...)` gives its outcome and
    its work folder."""

    def run(script: Script, repo: Path = REPO, options: tuple[str, ...] = (), env=None, drive=None):
        work = tmp_path_factory.mktemp(script.name)
        names = {name: models / name for name in ("llama", "gemma", "data")}
        names |= {"prompts": models / "prompts.txt", "repo": repo, "work": work}
        arguments = [part.format(**names) for part in shlex.split(script.arguments)]
        command = [sys.executable, str(repo / script.path), *options, *arguments]
        own = {name: value.format(**names) for name, value in script.environment.items()}
        outcome = (drive or script.drive)(
            command, {**environment, **own, **(env or {})}, work, script.said
        )
        return outcome, work

    return run


@pytest.fixture(scope="session")
def unpatched(run: Run) -> Callable[[Script], tuple[Outcome, Path, Result]]:
    """The outcome, work folder and result of a script as it was written, run once per session."""
    seen: dict[str, tuple[Outcome, Path, Result]] = {}

    def unpatched(script: Script):
        if script.name not in seen:
            outcome, work = run(script)
            assert outcome.returncode == 0, outcome.stdout + outcome.stderr
            seen[script.name] = outcome, work, script.result(outcome, work)
        return seen[script.name]

    return unpatched
