"""Options: what --check counts, which do not go together, and reports that can't be written are
known at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SCRIPT, Run


@pytest.mark.parametrize("extra", ["--add-dependency", "--vendor"])
def test_check_counts_what_goes_with_the_scripts(
    flash_integrate: Run, repo: Path, extra: str
) -> None:
    (repo / "requirements.txt").write_text("mlx-lm\n")
    flash_integrate(repo)
    assert flash_integrate(repo, "--check").returncode == 0
    result = flash_integrate(repo, "--check", extra)
    assert (result.returncode, b"would write" in result.stderr) == (1, True)
    flash_integrate(repo, extra)
    assert flash_integrate(repo, "--check", extra).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vendor", "--add-dependency"], "--vendor does not go with --add-dependency"),
        (["--revert", "--skip", "main-guard"], "--revert does not go with --skip"),
        (["--quiet", "--verbose"], "--quiet does not go with --verbose"),
        (["--json", "-", "--sarif", "-"], "--json and --sarif can't both be written to standard"),
        (["--only", "argparse-scripts"], "no codemod is called 'argparse-scripts'; did you mean"),
        (
            ["--explain", "--check", "--json", "report.json"],
            "--explain does not go with --check, --json",
        ),
    ],
)
def test_options_that_can_not_be_heeded_are_refused(
    flash_integrate: Run, repo: Path, options: list[str], message: str
) -> None:
    result = flash_integrate(".", *options, cwd=repo)
    assert (result.returncode, message in result.stderr.decode()) == (2, True)
    assert (repo / "run.py").read_text() == SCRIPT


@pytest.mark.parametrize("report", ["--json", "--sarif", "--markdown", "--html"])
def test_a_report_that_can_not_be_written_stops_the_run_before_it_writes(
    flash_integrate: Run, repo: Path, report: str
) -> None:
    result = flash_integrate(".", report, "nowhere/report", cwd=repo)
    assert (result.returncode, b"there is no folder 'nowhere'" in result.stderr) == (2, True)
    assert (repo / "run.py").read_text() == SCRIPT


@pytest.mark.parametrize("options", [[], ["--revert"], ["--explain"]])
def test_a_pattern_that_is_none_is_refused(
    flash_integrate: Run, repo: Path, options: list[str]
) -> None:
    result = flash_integrate(".", "--exclude", "!", *options, cwd=repo)
    assert result.returncode == 2
    assert result.stderr == b"error: --exclude: '!' is not a pattern of .gitignore\n"
