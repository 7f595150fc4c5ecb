"""Attention by hand through the command: its hunks, its reports, the review, the record and the way
back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, commit_all

CASES = Path(__file__).parents[2] / "fixtures" / "codemods" / "handwritten-attention"
RECORD = ".flash-integrate/rewritten.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repo with a module of which the attention is written by hand, and a script that uses it."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "model.py").write_bytes((CASES / "mask_added.before.py").read_bytes())
    (repo / "kept.py").write_bytes((CASES / "weights_returned.noop.py").read_bytes())
    (repo / "run.py").write_text("from mlx_lm import load\n\nimport model\n\nload('x')\n")
    commit_all(repo)
    return repo


def contents(repo: Path) -> dict[str, bytes]:
    files = (path for path in repo.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(repo).as_posix(): path.read_bytes() for path in files}


def test_written_a_second_time_unchanged_and_taken_back(flash_integrate: Run, model: Path) -> None:
    before = contents(model)
    result = flash_integrate(model)
    assert result.returncode == 0, result.stderr
    after = contents(model)
    assert after["model.py"] == (CASES / "mask_added.after.py").read_bytes()
    assert after["kept.py"] == before["kept.py"]
    assert b"enable_flash_attention" in after["run.py"]
    assert set(after) - set(before) == {RECORD}
    flash_integrate(model, "--force")
    assert contents(model) == after
    result = flash_integrate(model, "--revert")
    assert result.returncode == 0, result.stderr
    assert contents(model) == before
    assert not (model / RECORD).parent.exists()


def test_dry_run_is_a_patch_whose_header_has_the_verdict(flash_integrate: Run, model: Path) -> None:
    before = contents(model)
    result = flash_integrate(model, "--dry-run")
    assert contents(model) == before
    (header,) = [
        line for line in result.stdout.decode().splitlines() if "the model's code: proved" in line
    ]
    assert header.startswith("@@ -")
    assert "Attention.__call__" in header
    subprocess.run(["git", "apply"], input=result.stdout, cwd=model, check=True)
    applied = contents(model)
    subprocess.run(["git", "checkout", "-q", "."], cwd=model, check=True)
    for path in (model / RECORD).parent.iterdir():
        path.unlink()
    flash_integrate(model)
    assert contents(model) == applied
    # What was applied as a patch can be taken back too.
    flash_integrate(model, "--revert")
    assert {**contents(model)} == before


def test_only_and_skip_choose_it(flash_integrate: Run, model: Path) -> None:
    before = contents(model)
    flash_integrate(model, "--skip", "handwritten-attention")
    after = contents(model)
    assert {name for name in after if after[name] != before.get(name)} == {"run.py"}
    flash_integrate(model, "--revert")
    flash_integrate(model, "--only", "handwritten-attention")
    after = contents(model)
    assert {name for name in after if after[name] != before.get(name)} == {"model.py", RECORD}


def test_check_and_reports_have_it(flash_integrate: Run, model: Path, tmp_path: Path) -> None:
    files = [tmp_path / "out.json", tmp_path / "out.sarif", tmp_path / "out.md"]
    options = [
        f"{option}={file}"
        for option, file in zip(("--json", "--sarif", "--markdown"), files, strict=True)
    ]
    result = flash_integrate(model, "--check", "--only", "handwritten-attention", *options)
    assert result.returncode == 1
    document = json.loads(files[0].read_text())
    entry = next(item for item in document["files"] if item["path"] == "model.py")
    (rewrite,) = entry["rewrites"]
    assert rewrite["function"] == "Attention.__call__"
    assert rewrite["proved"] is True
    assert rewrite["verdict"].startswith("proved on ")
    found = json.loads(files[1].read_text())["runs"][0]["results"]
    assert [item["ruleId"] for item in found] == ["review-note", "handwritten-attention"]
    found = found[1:]  # the note is on what stays
    assert rewrite["verdict"] in found[0]["message"]["text"]
    text = files[2].read_text()
    assert "proved on " in text
    assert "a change of the model's own code" in text
    assert "Insertions only" not in text


def test_explain_says_what_becomes_of_each(flash_integrate: Run, model: Path) -> None:
    text = flash_integrate("--explain", model).stdout.decode()
    assert "handwritten-attention: line 24: the attention of Attention.__call__ becomes" in text
    assert "handwritten-attention: stays by hand: the weights `weights` are returned" in text


@pytest.mark.parametrize(("answers", "accepted"), [("n\n", False), ("y\n", True)])
def test_review_asks_for_the_rewrite_by_itself(model: Path, answers: str, accepted: bool) -> None:
    before = contents(model)
    command = [sys.executable, "-m", "flash_integrate", str(model), "--interactive"]
    command += ["--only", "handwritten-attention"]
    result = subprocess.run(command, input=answers.encode(), capture_output=True)
    assert b"apply this hunk" in result.stderr
    assert b"the model's code: proved" in result.stderr
    changed = contents(model)
    assert (changed["model.py"] != before["model.py"]) is accepted
    assert (RECORD in changed) is accepted
    left = b"model.py:24: note: attention written by hand stays as it is"
    assert (left in result.stderr) is not accepted


@pytest.mark.parametrize(("answers", "calls"), [("y\nn\n", 0), ("y\ny\n", 1)])
def test_a_call_stands_or_falls_with_the_rewrite_that_it_is_for(
    tmp_path: Path, answers: str, calls: int
) -> None:
    model = (CASES / "mask_added.before.py").read_text()
    script = tmp_path / "run.py"
    script.write_text(f"{model}\n\nif __name__ == '__main__':\n    Attention(8, 2)(mx.zeros(8))\n")
    command = [sys.executable, "-m", "flash_integrate", str(script), "--interactive"]
    result = subprocess.run(command, input=answers.encode(), capture_output=True)
    assert result.returncode == 0, result.stderr
    assert script.read_text().count("    enable_flash_attention()") == calls
    assert script.read_text().count("mx.fast.scaled") == calls


def test_edited_lines_stay_and_the_record_keeps_what_stood_there(
    flash_integrate: Run, model: Path
) -> None:
    flash_integrate(model, "--only", "handwritten-attention")
    edited = (model / "model.py").read_text().replace("scale=self.scale", "scale=0.5")
    (model / "model.py").write_text(edited)
    result = flash_integrate(model, "--revert")
    assert result.returncode == 2
    assert "was edited since it was rewritten" in " ".join(result.stderr.decode().split())
    assert (model / "model.py").read_text() == edited
    assert "scores = (q * self.scale)" in (model / RECORD).read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "files": {}}', "[" * 5000])
def test_a_record_of_another_make_is_refused(flash_integrate: Run, model: Path, text: str) -> None:
    (model / ".flash-integrate").mkdir()
    (model / RECORD).write_text(text)
    before = contents(model)
    result = flash_integrate(model, "--revert")
    assert result.returncode == 2
    assert RECORD in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()
    assert contents(model) == before
