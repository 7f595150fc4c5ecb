"""Copies of key heads, and queries in groups: which of them a fused call is given as they were
before, and which stay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_handwritten import FOLDER, question_of

from flash_codemods.handwritten.handwritten_attention import examine, rewrites_of
from flash_codemods.handwritten.proving.prover import verdict_on
from flash_integrate.attention.rewrites import applied
from flash_integrate.python.source import Source


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def repeat_kv", "@doubled\ndef repeat_kv"),
        ("class Attention", "repeat_kv = of_another_file\n\n\nclass Attention"),
        ("class Attention", "def repeat_kv(x, n_rep):\n    return other(x)\n\n\nclass Attention"),
        ("        k, v =", "        repeat_kv = self.repeat\n        k, v ="),
        (
            "        k, v =",
            "        @doubled\n        def repeat_kv(x, n):\n            ...\n\n        k, v =",
        ),
        ("broadcast_to(x[:, :, None, :, :]", "broadcast_to(x[:, None, :, :, :]"),
    ],
)
def test_copies_of_another_function_are_handed_on(old: str, new: str) -> None:
    """A name that stands for something else than what the file's function was read to do."""
    text = (FOLDER / "copies_of_a_function.before.py").read_text()
    assert old in text
    source = Source(Path("model.py"), text.replace(old, new).encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    result = applied(source.data, rewrites).decode()
    assert "k, v = repeat_kv(k, self.repeats), repeat_kv(v, n_rep=self.repeats)" in result
    assert "mx.fast.scaled_dot_product_attention(" in result


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("copies_of_a_function", "def repeat_kv", "@mx.compile\ndef repeat_kv"),
        ("copies_of_a_function", "def repeat_kv", "@partial(mx.compile)\ndef repeat_kv"),
        ("copies_concatenated", "map(repeat, (k, v))", "map(repeat, [k, v])"),
    ],
)
def test_copies_are_not_made_any_more(form: str, old: str, new: str) -> None:
    before, after = (
        (FOLDER / f"{form}.{which}.py").read_text().replace(old, new)
        for which in ("before", "after")
    )
    assert new in before
    source = Source(Path("model.py"), before.encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    assert applied(source.data, rewrites).decode() == after
    assert all(rewrite.proved for rewrite in rewrites)


CHANGES = [
    "del k",
    "k[:, 0] = 0",
    "k[:, 0] += 1",
    "first = (k := k * 2)[0]",
    "def change():\n        nonlocal k\n        k = k * 2\n    change()",
    "with opened() as k[0]:\n        pass",
    "while (k := k * 2) is None:\n        pass",
    "parts = [(k := part) for part in q]",
    "def k():\n        pass",
    "async def k():\n        pass",
    "class k:\n        pass",
    "try:\n        pass\n    except ValueError as k:\n        pass",
    "match q:\n        case [k, *_]:\n            pass",
]


@pytest.mark.parametrize("change", CHANGES)
def test_keys_that_change_before_the_result_keep_their_scores(change: str) -> None:
    text = (FOLDER / "mask_hides_with_numpy.before.py").read_text()
    first = "    scores = mx.where"
    assert first in text
    text = text.replace(first, f"    {change}\n{first}")
    matches, refusals = examine(Source(Path("model.py"), text.encode()))
    assert matches == []
    assert [item.reason for item in refusals] == ["`k` is bound anew before the result is made"]


@pytest.mark.parametrize("change", CHANGES)
def test_copies_of_keys_that_change_are_handed_on(change: str) -> None:
    text = (FOLDER / "mask_hides_with_numpy.before.py").read_text()
    copied = "    keys = mx.repeat(k, 2, axis=1)\n    values = mx.repeat(v, 2, axis=1)\n"
    first = "    scores = q @ k"
    assert first in text
    text = text.replace(
        first, f"    _, _, _, dim = v.shape\n{copied}    {change}\n    scores = q @ keys"
    )
    text = text.replace("axis=-1) @ v", "axis=-1) @ values")
    source = Source(Path("model.py"), text.encode())
    rewrites, refusals = rewrites_of(source)
    assert refusals == []
    result = applied(source.data, rewrites).decode()
    assert copied in result
    assert "q, keys, values, scale=dim**-0.5, mask=" in result


@pytest.mark.parametrize(
    ("parameters", "given"),
    [("x, /, n_rep", "k, self.repeats"), ("n_rep, *, x", "self.repeats, x=k")],
)
def test_parameters_by_place_or_by_name_alone_are_read(parameters: str, given: str) -> None:
    text = (FOLDER / "copies_of_a_function.before.py").read_text()
    text = text.replace("(x, n_rep)", f"({parameters})")
    text = text.replace("repeat_kv(k, self.repeats)", f"repeat_kv({given})")
    text = text.replace("repeat_kv(v, n_rep=self.repeats)", f"repeat_kv({given.replace('k', 'v')})")
    assert given in text
    (match,) = examine(Source(Path("model.py"), text.encode()))[0]
    assert "= repeat_kv(" not in match.question.new


def test_proof_makes_the_sizes_of_groups() -> None:
    """Sizes that scramble queries are no inputs that the proof may choose."""
    text = (FOLDER / "groups_of_heads.before.py").read_text()
    for old, new in (("L, D)", "D, -1)"), ("L, D)", "-1, D)")):
        assert old in text
        source = Source(Path("model.py"), text.replace(old, new, 1).encode())
        (match,) = examine(source)[0]
        assert verdict_on(match.question, ()).proved == (new == "-1, D)")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "copies_tiled",
            "[:, :, None], (1, 1, self.repeats, 1, 1)",
            "[:, None], (1, self.repeats, 1, 1, 1)",
            "the fused call differs",
        ),
        (
            "copies_cast",
            "= repeat_kv(",
            "= self.repeat_kv(",
            "no inputs were found on which it copies heads",
        ),
    ],
)
def test_proof_sees_copies_that_are_others(name: str, old: str, new: str, said: str) -> None:
    """Nor is it enough where every query head has a key head of its own."""
    question = question_of(name)
    assert question.old.count(old) == 2
    verdict = verdict_on(dataclasses.replace(question, old=question.old.replace(old, new)), ())
    assert not verdict.proved
    assert said in verdict.text()
