"""The reports, made from real runs: what they say is what the run found, and their formats are
what they claim."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import pytest
from conftest import SCRIPT, Run
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as SarifLog

from flash_integrate.planning.codemod import name_of, registry
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.planning.run import integrate
from flash_integrate.report.json_report import STATUSES, as_json
from flash_integrate.report.markdown import as_markdown
from flash_integrate.report.sarif import as_sarif
from flash_integrate.report.text import diff_of

CASES = Path(__file__).parents[2] / "fixtures" / "codemods"
# Of attention by hand two: one that ends its file, and one with lines of its own in between.
BY_HAND = {"local_function.before.py", "keys_made_transposed.before.py"}
SHOWN = [
    path
    for path in CASES.glob("*/*.before.py")
    if path.parent.name != "handwritten-attention" or path.name in BY_HAND
]
NOTEBOOKS = Path(__file__).parents[2] / "fixtures" / "notebooks"
HANDWRITTEN = (
    "\n\ndef attend(q, k, v):\n    import mlx.core as mx\n\n"
    "    return mx.softmax(q @ k.T, axis=-1) @ v\n"
    "\n\nprint('done')\n"
)
PARSES_LAST = """\
import argparse

from mlx_lm import load

load("model")
parser = argparse.ArgumentParser()
args = parser.parse_args()
"""


def scanned(*paths: Path, scan: Any = integrate) -> list[Outcome]:
    return list(scan(list(paths), (), lambda found, stage: found))


@pytest.fixture
def mixed(repo: Path) -> Path:
    """The repo with a file for each way in which one can end: changed with a note, integrated,
    skipped, failed."""
    (repo / "tools").mkdir()
    (repo / "tools" / "say <|> it.py").write_text(SCRIPT + HANDWRITTEN)
    (repo / "integrated.py").write_text(
        "import mlx.core\nfrom mlx_flash_runtime import enable_flash_attention\n"
    )
    (repo / "broken.py").write_text("import mlx\n\nx = = 1\n")
    (repo / "__init__.py").write_text("import mlx\n")
    return repo


def by_path(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in entries}


# JSON


def schema() -> Any:
    return json.loads((files("flash_integrate.report") / "report.schema.json").read_text())


def test_the_schema_is_one_of_draft_2020_12() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_json_is_as_the_schema_says_for_every_kind_of_outcome(
    flash_integrate: Run, mixed: Path
) -> None:
    runs = [("--dry-run", "apply --dry-run"), ("--check", "apply --check"), (None, "apply")]
    runs += [("--revert", "revert"), ("--revert", "revert")]
    seen = set()
    for option, mode in runs:
        flash_integrate(mixed, *([option] if option else []), "--json", mixed / "report.json")
        document = json.loads((mixed / "report.json").read_text())
        jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)
        assert document["mode"] == mode
        seen |= {entry["status"] for entry in document["files"]}
    assert seen == set(STATUSES) - {"would-revert"}
    flash_integrate(mixed)
    shown = flash_integrate(mixed, "--revert", "--dry-run", "--json", "-")
    document = json.loads(shown.stdout)
    jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)
    assert {entry["status"] for entry in document["files"]} >= {"would-revert"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("status", "would change"),
        ("path", "/run.py"),
        ("changed_lines", [0]),
        ("codemod", None),
        ("line", 0),
        ("x", 1),
    ],
)
def test_the_schema_refuses_what_a_run_never_says(repo: Path, key: str, value: object) -> None:
    document = json.loads(as_json(scanned(repo), "apply", dry_run=False))
    by_path(document["files"])["run.py"][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)


def test_json_says_of_a_change_what_the_files_show(mixed: Path) -> None:
    outcomes = scanned(mixed)
    entries = by_path(json.loads(as_json(outcomes, "apply", dry_run=False))["files"])
    entry = entries["tools/say <|> it.py"]
    [outcome] = [
        outcome for outcome in outcomes if outcome.name.as_posix() == "tools/say <|> it.py"
    ]
    after = outcome.after.decode().splitlines()
    assert {after[number - 1] for number in entry["changed_lines"]} >= {
        "        pass  # not installed: MLX's own attention runs"
    }
    [note] = entry["notes"]
    assert "softmax" in outcome.before.decode().splitlines()[note["line"] - 1]
    assert entries["broken.py"]["line"] == 3


def test_json_of_a_change_that_could_not_be_written_has_no_changed_lines(repo: Path) -> None:
    failed = [
        dataclasses.replace(outcome, status=Status.FAILED, reason="not writable")
        if outcome.changes
        else outcome
        for outcome in scanned(repo)
    ]
    document = json.loads(as_json(failed, "apply", dry_run=False))
    jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)
    assert by_path(document["files"])["run.py"]["changed_lines"] == []


def test_a_file_name_that_is_not_utf_8_survives_in_every_report(repo: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    try:
        (repo / name).write_text(SCRIPT)
    except OSError:
        pytest.skip("the file system takes UTF-8 names alone")
    outcomes = scanned(repo)
    report = as_json(outcomes, "apply", dry_run=False).encode()
    assert name in by_path(json.loads(report)["files"])
    assert {result_path(result) for result in results(outcomes)} == {"run.py", "caf%E9.py"}
    assert b'+++ "b/caf\\351.py"\n' in b"".join(
        line for outcome in outcomes if outcome.changes for line in diff_of(outcome)
    )
    assert r'`"caf\351.py"`' in as_markdown(outcomes, dry_run=True)


@pytest.mark.parametrize("report", ["--json", "--sarif", "--markdown"])
def test_standard_output_holds_a_report_and_nothing_else(
    flash_integrate: Run, mixed: Path, report: str
) -> None:
    file = mixed / "report"
    flash_integrate(mixed, "--dry-run", report, file)
    shown = flash_integrate(mixed, "--dry-run", report, "-")
    assert shown.stdout.decode() == file.read_text()
    assert b"would change" in shown.stderr


# SARIF


def log(outcomes: Iterable[Outcome], *, dry_run: bool = True) -> Any:
    document = json.loads(as_sarif(outcomes, dry_run=dry_run))
    SarifLog.model_validate(document)
    return document["runs"][0]


def results(outcomes: Iterable[Outcome], *, dry_run: bool = True) -> list[Any]:
    found: list[Any] = log(outcomes, dry_run=dry_run)["results"]
    return found


def result_path(result: Any) -> str:
    uri: str = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    return uri


def test_sarif_has_a_rule_for_each_codemod_and_for_notes_and_failures(mixed: Path) -> None:
    run = log(scanned(mixed))
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [
        *map(name_of, registry()),
        "handwritten-attention",
        "review-note",
        "failure",
    ]
    for rule in rules:  # without these GitHub refuses a rule
        assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert rules[result["ruleIndex"]]["defaultConfiguration"]["level"] == result["level"]


def test_sarif_results_are_what_is_left_to_do_with_relative_places(mixed: Path) -> None:
    found = {
        (result_path(result), result["level"]): result["locations"][0]["physicalLocation"]
        for result in results(scanned(mixed))
    }
    assert set(found) == {
        ("run.py", "warning"),
        ("tools/say%20%3C%7C%3E%20it.py", "warning"),
        ("tools/say%20%3C%7C%3E%20it.py", "note"),
        ("broken.py", "error"),
    }
    assert all(place["artifactLocation"]["uriBaseId"] == "%SRCROOT%" for place in found.values())
    assert found["broken.py", "error"]["region"]["startLine"] == 3
    # The flags go below the parser's last argument.
    line = SCRIPT.splitlines()[found["run.py", "warning"]["region"]["startLine"] - 1]
    assert line == '    parser.add_argument("--model")'


def test_what_has_been_written_is_no_sarif_result_and_notes_point_into_the_written_file(
    flash_integrate: Run, mixed: Path
) -> None:
    outcomes = scanned(mixed)
    flash_integrate(mixed)
    found = {result["level"]: result for result in results(outcomes, dry_run=False)}
    assert set(found) == {"note", "error"}
    line = found["note"]["locations"][0]["physicalLocation"]["region"]["startLine"]
    assert "softmax" in (mixed / "tools" / "say <|> it.py").read_text().splitlines()[line - 1]


def test_a_revert_that_would_break_the_program_is_an_error_on_its_line(
    flash_integrate: Run, repo: Path
) -> None:
    flash_integrate(repo)
    with (repo / "run.py").open("a") as file:
        file.write("    print(enable_flash_attention)\n")
    [result] = results(scanned(repo, scan=revert))
    assert result["level"] == "error"
    assert result["message"]["text"].startswith("enable_flash_attention is used here")
    line = result["locations"][0]["physicalLocation"]["region"]["startLine"]
    assert (repo / "run.py").read_text().splitlines()[
        line - 1
    ] == "    print(enable_flash_attention)"


def apply_fix(text: str, fix: Any) -> str:
    """Applies replacements as an editor does: by line and column, the last one first."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    [change] = fix["artifactChanges"]
    for replacement in reversed(change["replacements"]):
        region = replacement["deletedRegion"]
        start = starts[region["startLine"] - 1] + region["startColumn"] - 1
        end = starts[region["endLine"] - 1] + region["endColumn"] - 1
        text = text[:start] + replacement["insertedContent"]["text"] + text[end:]
    return text


@pytest.mark.parametrize(
    "mutation",
    [str, lambda text: text.replace("\n", "\r\n"), str.rstrip],
    ids=["lf", "crlf", "eof"],
)
def test_a_sarif_fix_does_what_the_tool_does(tmp_path: Path, mutation: Any) -> None:
    for path in SHOWN:
        name = f"{path.parent.name}_{path.name.removesuffix('.before.py')}.py"
        (tmp_path / name).write_bytes(mutation(path.read_bytes().decode()).encode())
    for path in NOTEBOOKS.glob("*.before.ipynb"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    # The call goes below the last line, which may end without a newline.
    (tmp_path / "last.py").write_bytes(mutation(PARSES_LAST).encode())
    outcomes = scanned(tmp_path)
    fixes = {
        result_path(result): result["fixes"] for result in results(outcomes) if "fixes" in result
    }
    changed = [outcome for outcome in outcomes if outcome.changes]
    assert len(changed) >= 15
    assert {"last.py", "string_source.before.ipynb"} <= set(fixes)
    for outcome in changed:
        [fix] = fixes[outcome.name.as_posix()]
        assert apply_fix(outcome.before.decode(), fix) == outcome.result.decode(), outcome.name


# Markdown


def test_markdown_is_the_body_of_a_pull_request(mixed: Path) -> None:
    body = as_markdown(scanned(mixed), dry_run=False)
    assert "into 2 files" in body
    assert "| `run.py` | argparse-script: " in body
    assert "the flags stand on the parser that users call" in body
    assert "`broken.py:3`: invalid syntax" in body
    assert "attention written by hand" in body
    folded = body[body.index("<details>") : body.index("</details>")]
    assert "| no MLX | 1 | `notes.py` |" in folded
    assert "`integrated.py`" in folded
    for way_back in (
        "--revert",
        "--disable-flash-attention",
        "MLX_FLASH_DISABLE=1",
        "MLX_FLASH_BLOCK_SIZE",
    ):
        assert way_back in body


def test_markdown_shows_names_and_words_as_they_are(mixed: Path) -> None:
    body = as_markdown(scanned(mixed), dry_run=True)
    assert "`tools/say <\\|> it.py`" in body  # a bare | would end the cell
    assert "a package's \\_\\_init\\_\\_" in body  # else it is a bold "init"
    tables = [line for line in body.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {4}


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT + HANDWRITTEN,
        # On the very line that the import takes.
        SCRIPT.replace("load\n\n", "load\ndef attend(q, k, v): return mx.softmax(q @ k.T) @ v\n"),
    ],
    ids=["below", "at"],
)
def test_markdown_points_at_notes_where_they_are_once_the_change_is_in(
    flash_integrate: Run, tmp_path: Path, script: str
) -> None:
    path = tmp_path / "run.py"
    path.write_text(script)
    outcomes = scanned(tmp_path)
    for dry_run in (True, False):
        if not dry_run:
            flash_integrate(tmp_path)
        line = 1 + next(
            n for n, line in enumerate(path.read_text().splitlines()) if "softmax" in line
        )
        assert f"run.py:{line}`: attention written" in as_markdown(outcomes, dry_run=dry_run)


def test_markdown_names_no_more_than_a_body_can_hold(tmp_path: Path) -> None:
    skipped = [
        Outcome(
            tmp_path,
            PurePosixPath(f"a_rather_long_name_for_a_file_{number}.py"),
            Status.SKIPPED,
            "no MLX",
        )
        for number in range(2000)
    ]
    body = as_markdown(skipped, dry_run=True)
    assert "| no MLX | 2000 |" in body
    assert "and 1980 more" in body
    assert len(body) < 65_536


def test_markdown_of_a_run_without_changes_offers_no_ways_back(repo: Path) -> None:
    (repo / "run.py").unlink()
    body = as_markdown(scanned(repo), dry_run=False)
    assert body.startswith("Nothing to change.")
    assert "--revert" not in body


def test_markdown_of_a_revert_says_what_is_taken_out(flash_integrate: Run, repo: Path) -> None:
    flash_integrate(repo)
    [outcome] = [outcome for outcome in scanned(repo, scan=revert) if outcome.changes]
    assert f"| `run.py` | {len(outcome.lines)} lines taken out |" in as_markdown(
        [outcome], dry_run=False
    )
