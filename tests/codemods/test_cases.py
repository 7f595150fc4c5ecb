"""Each codemod does to its fixtures exactly what the files beside them show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cases import BEFORE, CASES, NOOP, REFUSED, decide, facts_of, name_of

from flash_integrate.inserted.removal import inserted, without
from flash_integrate.notes import Refusal
from flash_integrate.planning.codemod import name_of as codemod_name
from flash_integrate.planning.codemod import registry
from flash_integrate.planning.plan import Status, plan
from flash_integrate.python.rewrite import rewrite
from flash_integrate.python.source import Source

PAGE = Path(__file__).parents[2] / "docs" / "integrator.md"


@pytest.mark.parametrize("path", [*BEFORE, *REFUSED], ids=name_of)
def test_before_becomes_after(path: Path) -> None:
    before = path.read_bytes()
    decision = decide(path)
    if path not in REFUSED:
        assert decision.codemod == path.parent.name.replace("_", "-"), decision.reason
    first = before.decode().splitlines()[0]
    if first.startswith("# note: "):  # why a codemod that is asked earlier refuses the file
        assert first.removeprefix("# note: ") in [note.reason for note in decision.notes]
    after = rewrite(facts_of(path, before).source, decision.edits)
    assert (
        after.decode()
        == path.with_name(path.name.replace(".before.", ".after.")).read_bytes().decode()
    )
    # A second look finds nothing to do, and the way back gives every byte.
    assert plan(facts_of(path, after)).status is Status.INTEGRATED
    result = Source(path, after)
    assert without(result, inserted(result)) == before


@pytest.mark.parametrize("path", REFUSED, ids=name_of)
def test_refused_with_a_reason(path: Path) -> None:
    name = path.parents[1].name.replace("_", "-")
    codemod = next(item for item in registry() if codemod_name(item) == name)
    data = path.read_bytes()
    refusal = codemod.match(facts_of(path, data))
    assert isinstance(refusal, Refusal)
    assert data.decode().startswith(f"# note: no flags: {refusal.reason}\n")


@pytest.mark.parametrize("path", NOOP, ids=name_of)
def test_noop_is_left_alone_with_a_reason(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    decision = decide(path)
    assert decision.status in (Status.SKIPPED, Status.INTEGRATED)
    assert decision.reason == expected


def test_every_codemod_has_cases_and_says_what_it_does() -> None:
    for codemod in registry():
        folder = CASES / codemod_name(codemod).replace("-", "_")
        if getattr(codemod, "SUFFIX", ".py") == ".py":  # notebooks have tests of their own
            assert list(folder.glob("*.before.py")), folder
        assert codemod.SUMMARY
        assert codemod.REVIEW
        assert f"| `{codemod_name(codemod)}` | " in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(CASES.glob("argparse_script/*.after.py")), ids=name_of)
def test_help_of_a_patched_script_shows_the_flags(path: Path, tmp_path: Path) -> None:
    """With stand-ins for the packages it imports, `--help` runs as a process, without the
    runtime."""
    for package in ("mlx_lm", "parakeet_mlx", "mlx_flash_runtime"):
        body = (
            "raise ImportError"
            if package == "mlx_flash_runtime"
            else "load = generate = transcribe = chat = None"
        )
        (tmp_path / f"{package}.py").write_text(body)
    command = [sys.executable, str(path), "--help"]
    result = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert result.returncode == 0, result.stderr
    assert "--disable-flash-attention" in result.stdout
    assert "--flash-block-size N" in result.stdout
