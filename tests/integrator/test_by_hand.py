"""Scripts whose only attention is written by hand: no patch reaches that, so none is inserted,
unless the same run makes a fused call of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import Run
from outcomes import run

from flash_integrate.attention.evidence import Kind
from flash_integrate.planning.plan import Status
from flash_integrate.planning.run import integrate
from flash_integrate.project.discover import Found

CASES = Path(__file__).parents[2] / "fixtures" / "codemods" / "handwritten-attention"
PROVED = (CASES / "mask_added.before.py").read_text()
REFUSED = (CASES / "weights_returned.noop.py").read_text()
SCRIPT = "from model import Attention\n\nprint(Attention(8, 2))\n"
RECORD = ".flash-integrate/rewritten.json"


def contents(repo: Path) -> dict[str, str]:
    return {
        path.relative_to(repo).as_posix(): path.read_text()
        for path in repo.rglob("*")
        if path.is_file()
    }


def test_what_stays_by_hand_gets_no_call_and_a_note(tmp_path: Path) -> None:
    outcomes = run(tmp_path, {"model.py": REFUSED, "run.py": SCRIPT})
    script = outcomes["run.py"]
    assert script.status is Status.SKIPPED
    assert script.reason == "its only attention is written by hand"
    assert script.evidence is not None
    assert script.evidence.kind is Kind.BY_HAND
    chain = str(script.evidence)
    assert chain.startswith("run.py:3 -> model.py:")
    assert [note.reason for note in script.notes] == [
        f"attention written by hand can't be patched: {chain}"
    ]
    (note,) = outcomes["model.py"].notes
    assert note.line == script.evidence.links[-1].line
    why = "the weights `weights` are returned"
    assert note.reason == f"attention written by hand stays as it is: {why}"


def test_two_in_one_function_have_a_reason_each(tmp_path: Path) -> None:
    model = """\
import mlx.core as mx


def attend(q, k, v):
    batch, heads, length, dim = q.shape
    scores = q @ k.transpose(0, 1, 3, 2)
    out = mx.softmax(mx.tanh(scores), axis=-1) @ v
    scores = q @ k.transpose(0, 1, 3, 2)
    weights = mx.softmax(scores, axis=-1)
    return out + weights @ v, weights
"""
    notes = run(tmp_path, {"model.py": model})["model.py"].notes
    said = [(note.line, note.reason.partition(": ")[2]) for note in notes]
    assert said == [
        (7, "the scores are capped by `tanh`, which MLX's own function can't say"),
        (9, "the weights `weights` are returned"),
    ]


@pytest.mark.parametrize("name", ["scores_added_to_a_mask", "weights_in_an_inner_function"])
def test_note_has_the_reason(name: str, tmp_path: Path) -> None:
    model = (CASES / f"{name}.noop.py").read_text()
    (note,) = run(tmp_path, {"model.py": model})["model.py"].notes
    why = model.splitlines()[0].removeprefix("# expect: ")
    assert note.reason == f"attention written by hand stays as it is: {why}"


def test_what_the_run_fuses_gets_the_call_in_the_same_run(
    flash_integrate: Run, tmp_path: Path
) -> None:
    """Else a second run would insert it: now there is nothing left to do for one."""
    (tmp_path / "model.py").write_text(PROVED)
    (tmp_path / "run.py").write_text(SCRIPT)
    before = contents(tmp_path)
    assert flash_integrate(tmp_path).returncode == 0
    once = contents(tmp_path)
    assert "enable_flash_attention" in once["run.py"]
    assert "scaled_dot_product_attention" in once["model.py"]
    assert flash_integrate(tmp_path, "--check").returncode == 0
    assert flash_integrate(tmp_path).returncode == 0
    assert contents(tmp_path) == once
    assert flash_integrate(tmp_path, "--revert").returncode == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "options", [["--skip", "handwritten-attention"], ["--only", "flat-script"]]
)
def test_what_could_be_fused_and_is_not_gets_no_call(
    options: list[str], flash_integrate: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(PROVED)
    (tmp_path / "run.py").write_text(SCRIPT)
    result = flash_integrate(tmp_path, *options)
    assert b"its only attention is written by hand" in result.stderr
    assert contents(tmp_path) == {"model.py": PROVED, "run.py": SCRIPT}


def test_a_script_that_is_named_alone_gets_no_call_for_a_model_that_stays(
    flash_integrate: Run, tmp_path: Path
) -> None:
    """The model is seen through, and not one of the files that the run may change."""
    (tmp_path / "model.py").write_text(PROVED)
    (tmp_path / "run.py").write_text(SCRIPT)
    assert flash_integrate(tmp_path / "run.py").returncode == 0
    assert contents(tmp_path) == {"model.py": PROVED, "run.py": SCRIPT}


def test_attention_that_can_be_routed_besides_is_enough(tmp_path: Path) -> None:
    script = "from mlx_lm import load\n" + SCRIPT.replace("8, 2", "load('tiny')")
    outcome = run(tmp_path, {"model.py": REFUSED, "run.py": script})["run.py"]
    assert outcome.status is Status.CHANGED
    assert str(outcome.evidence).startswith("run.py:4 -> mlx_lm.load -> ")


def test_a_library_whose_attention_is_written_by_hand(tmp_path: Path) -> None:
    script = "import mlx_whisper\n\nprint(mlx_whisper.transcribe('speech.wav'))\n"
    outcome = run(tmp_path, {"run.py": script})["run.py"]
    assert outcome.status is Status.SKIPPED
    (note,) = outcome.notes
    assert "run.py:3 -> mlx_whisper.transcribe -> attention written by hand in" in note.reason


def test_the_reports_have_the_chain(flash_integrate: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import mlx.core as mx\n\n\ndef attend(q):\n"
        "    return mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0)\n"
    )
    (tmp_path / "run.py").write_text("from model import attend\n\nprint(attend(1))\n")
    files = [tmp_path / "out.json", tmp_path / "out.md"]
    flash_integrate(tmp_path, "--dry-run", f"--json={files[0]}", f"--markdown={files[1]}")
    entry = next(item for item in json.loads(files[0].read_text())["files"] if item["evidence"])
    assert entry["evidence"] == {
        "kind": "mlx",
        "links": [{"path": "run.py", "line": 3}, {"path": "model.py", "line": 5}],
        "ends": ["mx.fast.scaled_dot_product_attention"],
    }
    chain = "run.py:3 -> model.py:5 -> mx.fast.scaled_dot_product_attention"
    assert entry["reason"] == chain
    assert f"`{chain}`" in files[1].read_text()
    assert f"attention: {chain}" in flash_integrate("--explain", tmp_path).stdout.decode()


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_counts_the_files_whose_rewrites_are_proved(jobs: int, tmp_path: Path) -> None:
    files = {"one.py": PROVED, "two.py": PROVED, "run.py": SCRIPT.replace("model", "one")}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    stages = {}

    def progress(found: Sequence[Found], stage: str) -> Iterator[Found]:
        stages[stage] = [item.path.name for item in found]
        return iter(found)

    outcomes = integrate([tmp_path], (), progress, jobs=jobs)
    assert list(stages) == ["reading", "proving", "planning"]
    assert stages["proving"] == ["one.py", "two.py"]
    assert sum(len(outcome.rewrites) for outcome in outcomes) == 2
