"""Attention written by hand: each form becomes the call that the files show, each refusal has its
reason, and what is offered is proved."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path

import pytest
from cases import CASES

from flash_codemods.handwritten.handwritten_attention import (
    examine,
    rewrites_of,
)
from flash_codemods.handwritten.proving.evaluator import Evaluator
from flash_codemods.handwritten.proving.missing import Missing, NotEvaluable
from flash_codemods.handwritten.proving.proof import prove
from flash_codemods.handwritten.proving.prover import verdict_on
from flash_codemods.handwritten.proving.question import Question
from flash_integrate.attention.rewrites import applied, kept_of, taken_back
from flash_integrate.notes import Refusal
from flash_integrate.planning.by_hand import written_out_of
from flash_integrate.python.processes import in_its_own_process
from flash_integrate.python.source import Source

MEAN = "the mean of the values"
FOLDER = CASES / "handwritten-attention"
FORMS = sorted(FOLDER.glob("*.before.py"))
REFUSALS = sorted(FOLDER.glob("*.noop.py"))


def name_of(path: Path) -> str:
    return path.name.partition(".")[0]


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_form_becomes_a_proved_call(path: Path) -> None:
    source = Source(path, path.read_bytes())
    rewrites, refusals = rewrites_of(source)
    assert [refusal.reason for refusal in refusals] == []
    result = applied(source.data, rewrites)
    after = path.with_name(path.name.replace(".before.", ".after."))
    assert result.decode() == after.read_text()
    assert all(rewrite.verdict.startswith("proved on ") for rewrite in rewrites)
    # A second look finds nothing, and the way back gives every byte.
    assert examine(Source(path, result)) == ([], [])
    assert taken_back(result, kept_of(result, source.data, rewrites)) == (source.data, [])


@pytest.mark.parametrize("path", REFUSALS, ids=name_of)
def test_refusal_has_its_reason(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    matches, refusals = examine(Source(path, path.read_bytes()))
    assert matches == []
    reasons = [refusal.reason for refusal in refusals]
    assert reasons == ([] if expected == "nothing" else [expected])


def test_attention_that_runs_at_times_gets_no_line_above() -> None:
    text = (FOLDER / "result_reshaped_at_once.before.py").read_text()
    old, new = "output + weights @ values", "output if heads == 1 else weights @ values"
    assert old in text
    source = Source(Path("model.py"), text.replace(old, new).encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    result = applied(source.data, rewrites).decode()
    assert "return output if heads == 1 else mx.fast.scaled_dot_product_attention(" in result
    assert all(rewrite.proved for rewrite in rewrites)


@pytest.mark.parametrize(
    "change",
    [
        "self.scale, self.heads = made_of(dims)",
        "(self.heads, (self.scale, *self.rest)) = num_heads, made_of(dims)",
        "self.scale, self.heads = *made_of(dims), num_heads",
        "self.heads, *self.scale = num_heads, dims",
        "dims, num_heads = made_of(dims)",
    ],
)
def test_scale_that_is_a_part_of_something_stays_on_the_queries(change: str) -> None:
    text = (FOLDER / "scale_on_queries.before.py").read_text()
    first = "        self.scale ="
    assert first in text
    text = text.replace(first, f"        {change}\n{first}")
    source = Source(Path("model.py"), text.encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    assert "(q * self.scale, k, v, scale=1.0)" in applied(source.data, rewrites).decode()


@pytest.mark.parametrize(
    "change",
    [
        "seen[:, 1] = True",
        "seen[:, 1] |= True",
        "for row in range(L):\n            seen[row, 1] = True",
        "if L > 4:\n            seen[:, 1] = True",
    ],
)
def test_triangle_that_is_changed_in_place_is_not_causal(change: str) -> None:
    text = (FOLDER / "causal_tril.before.py").read_text()
    first = "        scores = (q"
    assert first in text
    source = Source(Path("model.py"), text.replace(first, f"        {change}\n{first}").encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    assert "mask=seen.astype(mx.bool_)" in applied(source.data, rewrites).decode()


def test_queries_that_change_before_the_scale_that_reads_them_keep_their_scores() -> None:
    text = (FOLDER / "scale_after_product.before.py").read_text()
    first = "        scores = scores / math.sqrt(q"
    assert first in text
    text = text.replace(first, f"        q = self.other(x)\n{first}")
    matches, refusals = examine(Source(Path("model.py"), text.encode()))
    assert matches == []
    assert [item.reason for item in refusals] == ["`q` is bound anew before the result is made"]


@pytest.mark.parametrize("change", ["mask[:, 0] = 0", "mask = mask * 2"])
def test_mask_that_changes_once_it_was_added_has_another_name(change: str) -> None:
    text = (FOLDER / "mask_added.before.py").read_text()
    added = "            scores = scores + mask.astype(scores.dtype)\n"
    assert added in text
    text = text.replace(added, f"{added}            {change}\n")
    source = Source(Path("model.py"), text.encode())
    (rewrite,), refusals = rewrites_of(source)
    assert refusals == []
    assert (
        f"attention_mask = mask.astype(q.dtype)\n            {change}\n" in rewrite.after.decode()
    )
    assert rewrite.proved


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python reads it")
def test_newer_syntax_is_the_reason_where_there_is_attention() -> None:
    text = (FOLDER / "mask_added.before.py").read_text() + "\nprint(f'{x.split('/')}')\n"
    matches, refusals = examine(Source(Path("model.py"), text.encode()))
    assert matches == []
    assert [refusal.line for refusal in refusals] == [24]
    assert "newer Python's syntax" in refusals[0].reason


def test_name_of_a_mask_that_is_bound_anew_holds_no_mask() -> None:
    text = (FOLDER / "mask_added.before.py").read_text()
    line = "            scores = scores + mask.astype(scores.dtype)\n"
    assert line in text
    source = Source(Path("model.py"), text.replace(line, f"{line}        mask = None\n").encode())
    rewrites, _ = rewrites_of(source)
    assert "mask=attention_mask" in applied(source.data, rewrites).decode()


def test_newlines_and_encoding_stay() -> None:
    before = (FOLDER / "mask_added.before.py").read_text()
    text = "# -*- coding: latin-1 -*-\n# é\n" + before
    data = text.replace("\n", "\r\n").encode("latin-1")
    source = Source(Path("model.py"), data)
    rewrites, _ = rewrites_of(source)
    result = applied(data, rewrites)
    assert b"scaled_dot_product_attention" in result
    assert result.count(b"\n") == result.count(b"\r\n")
    assert taken_back(result, kept_of(result, data, rewrites)) == (data, [])


def test_same_lines_twice_are_told_apart() -> None:
    """Of two equal functions one is kept by a comment: the other is rewritten, and taken back."""
    one = (FOLDER / "local_function.before.py").read_text()
    body = one[one.index("def ") :]
    kept = body.replace("scaled_dot", "kept_dot", 1).replace(
        "keys and", "keys  # flash-integrate: keep\n    and", 1
    )
    for text in (one + "\n\n" + kept, one[: one.index("def ")] + kept + "\n\n" + body):
        source = Source(Path("model.py"), text.encode())
        rewrites, _ = rewrites_of(source)
        result = applied(source.data, rewrites)
        assert [rewrite.function for rewrite in rewrites] == ["scaled_dot_product_attention"]
        assert "kept_dot" in result.decode()
        assert ast.parse(result)
        assert taken_back(result, kept_of(result, source.data, rewrites)) == (source.data, [])


def test_lines_that_changed_since_are_left() -> None:
    source = Source(FORMS[0], FORMS[0].read_bytes())
    rewrites, _ = rewrites_of(source)
    result = applied(source.data, rewrites)
    kept = kept_of(result, source.data, rewrites)
    edited = result.replace(b"scale=self.scale", b"scale=2 * self.scale")
    assert edited != result
    assert taken_back(edited, kept) == (edited, kept)
    # A change elsewhere does not matter.
    longer = b"# more\n" + result
    assert taken_back(longer, kept) == (b"# more\n" + source.data, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale=self.scale", "scale=2 * self.scale"),
        ("(q, k, v", "(q, v, k"),
        ("mask=mask", "mask=None"),
        ("mask.astype(q.dtype)", "(-mask).astype(q.dtype)"),
    ],
)
def test_proof_sees_a_wrong_call(old: str, new: str) -> None:
    """The proof does not believe the writer: a planted fault is found."""
    path = FOLDER / "mask_added.before.py"
    source = Source(path, path.read_bytes())
    (match,) = examine(source)[0]
    question = match.question
    assert old in question.new
    wrong = question.__class__(
        question.old,
        question.new.replace(old, new),
        question.function,
        question.index,
        question.product,
        question.call.replace(old, new),
        question.rank,
    )
    assert not verdict_on(wrong, ()).proved


def question_of(name: str) -> Question:
    path = FOLDER / f"{name}.before.py"
    (match,) = examine(Source(path, path.read_bytes()))[0]
    return match.question


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        ("mask_hides_with_infinity", f"{MEAN}, not NaN as before"),
        ("mask_inverted", f"{MEAN}, as before; in float16 {MEAN}, not NaN as before"),
        ("mask_subtracted_from_one", f"{MEAN}, as before; in float16 NaN, not {MEAN} as before"),
        ("mask_made_of_padding", f"{MEAN}, as before; in float16 NaN, not {MEAN} as before"),
        ("mask_times_a_large_number", f"{MEAN}, as before; in float16 NaN, not {MEAN} as before"),
        ("mask_in_the_queries_type", f"{MEAN}, as before; in float16 NaN, as before"),
    ],
)
def test_what_a_row_gives_that_sees_no_key_is_said(name: str, gives: str) -> None:
    """Whether a mask says which keys are seen or which are hidden."""
    verdict = verdict_on(question_of(name), ())
    assert verdict.unseen == f"a query whose keys are all masked gives {gives}"


def test_a_mask_that_comes_from_elsewhere_is_minus_infinity() -> None:
    """Nor do values of a scale take its place."""
    verdict = verdict_on(question_of("mask_added"), ())
    said = "a query whose mask is minus infinity everywhere gives NaN, as before"
    assert verdict.unseen == said


@pytest.mark.parametrize("name", ["mask_made_of_padding", "bias_in_float32"])
def test_a_bias_that_the_function_makes_in_float32_is_said(name: str) -> None:
    verdict = verdict_on(question_of(name), ())
    assert "; 16-bit inputs give 16-bit outputs, not float32 as before" in verdict.text()


def test_a_call_that_differs_is_never_offered() -> None:
    path = FOLDER / "mask_added.before.py"
    source = Source(path, path.read_bytes())
    question = examine(source)[0][0].question
    wrong = dataclasses.replace(
        question,
        new=question.new.replace("scale=self.scale", "scale=2 * self.scale"),
        call=question.call.replace("scale=self.scale", "scale=2 * self.scale"),
    )
    verdict = verdict_on(wrong, ())
    assert verdict.text().startswith("tried on 24 random inputs, the fused call differs: in float")
    (rewrite,), _ = rewrites_of(source)
    differing = dataclasses.replace(
        rewrite, verdict=verdict.text(), proved=verdict.proved, differs=verdict.differs
    )
    found = written_out_of("handwritten-attention", ([differing], []), with_unproven=True)
    assert (found.rewrites, found.refusals) == ([], [Refusal(verdict.text(), rewrite.line)])
    unproven = dataclasses.replace(differing, differs=False)
    assert written_out_of("", ([unproven], []), with_unproven=True).rewrites == [unproven]


@pytest.mark.parametrize("change", ["seen[:, 1] = True", "seen[:, 1] |= True"])
def test_a_proof_sees_what_is_changed_in_place(change: str) -> None:
    text = (FOLDER / "causal_tril.before.py").read_text()
    first = "        scores = (q"
    source = Source(Path("model.py"), text.replace(first, f"        {change}\n{first}").encode())
    question = examine(source)[0][0].question
    made = next(line for line in question.new.splitlines(True) if "seen = " in line)
    wrong = dataclasses.replace(
        question,
        new=question.new.replace(made, "").replace("mask=seen.astype(mx.bool_)", 'mask="causal"'),
        call=question.call.replace("mask=seen.astype(mx.bool_)", 'mask="causal"'),
    )
    assert verdict_on(question, ()).proved
    assert verdict_on(wrong, ()).differs


def test_numbers_where_there_were_none_are_a_difference() -> None:
    question = question_of("mask_hides_with_infinity")
    hides_all = question.old.replace("mx.where(hidden,", "mx.where(hidden == hidden,")
    verdict = verdict_on(dataclasses.replace(question, old=hides_all), ())
    assert "the outputs differ by inf" in verdict.reason


def test_proof_runs_nothing_of_the_file(tmp_path: Path) -> None:
    """What the file does when it is imported, and what its functions call, does not happen."""
    touched = tmp_path / "touched"
    before = (FOLDER / "mask_added.before.py").read_text()
    evil = f"open({str(touched)!r}, 'w')\n"
    body = before.replace("        scores = (q", f"        {evil}        scores = (q")
    hidden = body.replace("(q * self.scale)", f"(q * self.scale * len({evil.strip()}.name))")
    for text in (evil + body, evil + hidden):
        source = Source(tmp_path / "model.py", text.encode())
        rewrites_of(source)
        assert not touched.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "open('x')",
        "mx.load('x')",
        "mx.save('x', mx.zeros((2,)))",
        "mx.array([1]).__class__",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "mx.fast.metal_kernel('x')",
        "mx.zeros((1 << 20, 1 << 20))",
        "2 ** 100000",
        "[1] * 10**9",
        "eval('1')",
        "mx.random.normal((2,))",
        "'{0.__class__}'.format(1)",
    ],
)
def test_evaluator_knows_array_expressions_alone(expression: str) -> None:
    import mlx.core as mx

    from flash_codemods.handwritten.operations import Names

    names = Names(ast.parse("import mlx.core as mx"))
    with pytest.raises((NotEvaluable, Missing)):
        Evaluator(mx, names, {}).value(ast.parse(expression, mode="eval").body)


def test_without_mlx_the_form_alone_is_known(tmp_path: Path) -> None:
    """A folder that is not to be imported from is not: MLX in the repo itself does not count."""
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "core.py").write_text("raise SystemExit('imported from the repo')")
    path = FORMS[0]
    source = Source(tmp_path / "model.py", path.read_bytes())
    found = in_its_own_process(60, _prove_here, str(tmp_path), source)
    assert found == "proved"


def _prove_here(folder: str, source: Source) -> str:
    import os
    import sys

    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.path.insert(0, "")
    verdict = prove(examine(source)[0][0].question, (folder,))
    return "proved" if verdict.proved else verdict.reason
