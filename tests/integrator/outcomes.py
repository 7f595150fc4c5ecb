"""What the integrator makes of a repo that a test writes."""

from __future__ import annotations

from pathlib import Path

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.run import EVERYTHING, integrate
from flash_integrate.project.config import Config


def run(repo: Path, files: dict[str, str], config: Config = EVERYTHING) -> dict[str, Outcome]:
    """The outcomes of a repo of these files."""
    for name, text in files.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(text)
    outcomes = integrate([repo], (), lambda files, stage: files, config)
    return {str(outcome.name): outcome for outcome in outcomes}


def changed(outcomes: dict[str, Outcome]) -> dict[str, str | None]:
    return {name: outcome.codemod for name, outcome in outcomes.items() if outcome.changes}
