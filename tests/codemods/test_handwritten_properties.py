"""Attention functions put together at random: all forms are taken, none with one thing wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flash_codemods.handwritten.handwritten_attention import Match, examine
from flash_codemods.handwritten.proving.prover import verdict_on
from flash_integrate.attention.rewrites import applied
from flash_integrate.python.source import Source

HEAD = """\
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def repeat_kv(x, n):
    if n == 1:
        return x
    x = mx.expand_dims(x, -3)
    return mx.repeat(x, n, axis=2).flatten(1, 2)


def attend(x, heads: int, n: int, scale: float, mask=None, bias=None, causal: bool = False):
    B, L, _ = x.shape
    q, k, v = mx.split(x, 3, axis=-1)
    q = q.reshape(B, L, heads, -1).transpose(0, 2, 1, 3)
"""
PARTS: dict[str, list[Any]] = {
    # How keys come, and what their transposition is called.
    "keys": [
        ("k = k.reshape(B, L, heads // n, -1).transpose(0, 2, 1, 3)", "k.transpose(0, 1, 3, 2)"),
        ("k = k.reshape(B, L, heads // n, -1).transpose(0, 2, 1, 3)", "k.swapaxes(-1, -2)"),
        ("k = k.reshape(B, L, heads // n, -1).transpose(0, 2, 1, 3)", "mx.swapaxes(k, 2, 3)"),
        ("k = mx.transpose(k.reshape(B, L, heads // n, -1), (0, 2, 3, 1))", "k"),
    ],
    # How each of keys and values, X, is copied: each head is followed by its copies.
    "copies": [
        "",
        "X = mx.repeat(X, n, axis=1)",
        "if n > 1:\n    X = mx.repeat(X, n, axis=-3)",
        "X = mx.concatenate([mx.expand_dims(X, 2)] * n, axis=2).reshape(B, heads, L, -1)",
        "X = X[:, :, None]\nX = mx.concatenate([X] * n, axis=2)\nX = X.reshape(B, heads, L, -1)",
        "X = mx.tile(X[:, :, None], (1, 1, n, 1, 1)).reshape(B, heads, L, -1)",
        "X = mx.broadcast_to(X[:, :, None, ...], (B, heads // n, n, L, X.shape[-1]))\n"
        "X = X.reshape(B, heads, L, X.shape[-1])",
        "X = mx.repeat(X[:, :, None, :, :], n, axis=2).reshape(B, heads, L, -1)",
        "X = repeat_kv(X, n)",
        "X = repeat_kv(x=X, n=n)",
    ],
    "product": [
        "scores = (q * scale) @ {k}",
        "scores = mx.matmul(q, {k}) * scale",
        "scores = scale * (q @ {k})",
        "scores = q @ {k}\nscores = scores / math.sqrt(q.shape[-1])",
        "q = q * scale\nscores = q @ {k}",
        "scores = q @ {k}",
        "scores = q @ {k}\nscores = scores / mx.sqrt(mx.array(q.shape[-1]))",
        "scores = q @ {k}\nif scores.shape != (B, heads, L, L):\n    raise ValueError('size')",
    ],
    "mask": [
        "",
        "if mask is not None:\n    scores = scores + mask",
        "if mask is not None:\n    scores += mask.astype(scores.dtype)",
        "scores = scores + mask",
        "scores = mx.where(mask, scores, -1e9)",
        "scores = mx.where(mask, scores, -np.float32(np.inf))",
        "if mask is not None:\n    scores = mx.where(mask == 0, mx.array(float('-inf')), scores)",
        "scores = scores + bias\nif mask is not None:\n    scores = scores + mask",
        "if bias is not None:\n    scores = scores + bias\n"
        "if mask is not None:\n    scores = scores + mask",
        "scores = mx.where(mask, scores, mx.full(scores.shape, -1e9, dtype=scores.dtype))",
        "if causal:\n    scores += mx.triu(mx.full((L, L), -mx.inf), k=1)",
        "seen = mx.arange(L)[:, None] >= mx.arange(L)[None]\n"
        "scores = mx.where(seen, scores, mx.finfo(scores.dtype).min)",
    ],
    "softmax": [
        "weights = mx.softmax(scores, axis=-1)",
        "weights = mx.softmax(scores, axis=-1, precise=True)",
        "weights = nn.softmax(scores.astype(mx.float32), axis=-1).astype(scores.dtype)",
        "scores = mx.softmax(scores, -1)\nweights = scores",
    ],
    "result": [
        "out = weights @ v\nout = out.transpose(0, 2, 1, 3).reshape(B, L, -1)",
        "out = mx.matmul(weights, v).transpose(0, 2, 1, 3).reshape(B, L, -1)",
        "out = (weights @ v).transpose(0, 2, 1, 3).reshape(B, L, -1)",
    ],
    "end": ["return out"],
}
# Copies of keys and values, X, that are no copies of heads each of which is followed by its own.
OTHER_COPIES = [
    "X = mx.tile(X, (1, n, 1, 1))",
    "X = mx.concatenate([X] * n, axis=1)",
    "X = mx.broadcast_to(X[:, None], (B, n, heads // n, L, X.shape[-1])).reshape(B, heads, L, -1)",
    "X = mx.tile(X[:, None], (1, n, 1, 1, 1)).reshape(B, heads, L, -1)",
    "X = mx.repeat(X[:, None], n, axis=1).reshape(B, heads, L, -1)",
    "X = mx.concatenate([mx.expand_dims(X, 1)] * n, axis=1).reshape(B, heads, L, -1)",
    "X = mx.repeat(X, n, axis=2)",
    "X = repeat_kv(X + 1, n)",
    "X = mx.repeat(X, n, axis=1) + 0.5",
]
# Heads of queries in groups, on an axis more: how that is put in and taken out again.
GROUPED: dict[str, list[Any]] = {
    "queries": [
        "q = q.reshape(B, heads // n, n, L, -1)",
        "if n > 1:\n    q = mx.reshape(q, [B, heads // n, n, L, q.shape[-1]])",
    ],
    "keys": [
        ("", "k[:, :, None].swapaxes(-1, -2)"),
        ("k = mx.expand_dims(k, axis=2)", "mx.swapaxes(k, -1, -2)"),
        ("k = k[:, :, None, :, :]", "k.transpose(0, 1, 2, 4, 3)"),
        (
            "k = mx.broadcast_to(k[:, :, None], (B, heads // n, n, L, k.shape[-1]))",
            "k.swapaxes(3, 4)",
        ),
    ],
    "values": [("", "v[:, :, None]"), ("v = mx.expand_dims(v, -3)", "v")],
    "product": [form for form in PARTS["product"] if form.startswith("scores = ")][:4],
    "mask": [
        "",
        "scores = mx.where(mx.arange(L)[:, None] >= mx.arange(L), scores, -mx.inf)",
        "if causal:\n    scores += mx.triu(mx.full((L, L), -mx.inf), k=1)",
        "near = mx.abs(mx.arange(L)[:, None] - mx.arange(L)) < 4\n"
        "scores = mx.where(near, scores, -1e9)",
    ],
    "softmax": PARTS["softmax"],
    "result": [
        "out = (weights @ {v}).reshape(B, heads, L, -1)",
        "out = weights @ {v}\nout = mx.reshape(out, (B, heads, L, v.shape[-1]))",
        "out = weights @ {v}\nout = out.flatten(1, 2)",
        "grouped = weights @ {v}\nout = grouped.reshape(B, heads, L, -1)",
    ],
    "end": ["return out.transpose(0, 2, 1, 3)"],
}
NEARLY_GROUPED: list[tuple[str, Any]] = [
    ("queries", "q = q.reshape(B, n, heads // n, L, -1).transpose(0, 2, 1, 3, 4)"),
    ("queries", "q = q.reshape(B * heads // n, n, L, -1)[None]"),
    ("queries", "q = q[:, :, None]"),
    ("queries", "q = q.transpose(0, 1, 3, 2)\nq = q.reshape(B, heads // n, n, L, -1)"),
    ("keys", ("k = k[:, None]", "k.swapaxes(-1, -2)")),
    ("keys", ("k = mx.expand_dims(k, 1)", "k.swapaxes(-1, -2)")),
    ("keys", ("k = mx.expand_dims(k, 2) + 1", "k.swapaxes(-1, -2)")),
    ("values", ("v = v[:, None]", "v")),
    ("values", ("", "v[:, None]")),
    ("mask", "scores = scores + mask"),
    ("mask", "scores = mx.where(mask[:, :, None], scores, -1e9)"),
    ("mask", "if mask is not None:\n    scores = scores + mask[:, None]"),
    ("mask", "seen = mx.where(mask, mx.zeros((L, L)), -1e9)\nscores = scores + seen"),
    ("mask", "scores = scores + mx.zeros((heads // n, n, L, L))"),
    ("result", "out = weights @ {v}"),
    ("result", "out = (weights @ {v}).reshape(B, heads, L * 2, -1)"),
    ("result", "out = (weights @ {v}).flatten(2, 3)"),
    ("result", "out = weights @ {v}\nif causal:\n    out = out.reshape(B, heads, L, -1)"),
    ("result", "out = weights @ {v}\nx = out + 1\nout = out.reshape(B, heads, L, -1)"),
    ("end", "return out, q"),
    ("end", "return out, weights"),
]
# One thing wrong each: the part that it is, and what stands there.
NEAR_MISSES: list[tuple[str, str]] = [
    ("softmax", "weights = mx.softmax(scores, axis=1)"),
    ("softmax", "weights = mx.softmax(scores)"),
    ("softmax", "weights = mx.sigmoid(scores)"),
    ("softmax", "weights = mx.softmax(scores, axis=-1) * 2"),
    ("softmax", "weights = mx.softmax(mx.tril(scores), axis=-1)"),
    ("softmax", "weights = mx.softmax(scores.transpose(0, 1, 3, 2), axis=-1)"),
    ("softmax", "weights = mx.softmax(scores - 1.0, axis=-1)"),
    ("softmax", "weights = nn.Dropout(0.1)(mx.softmax(scores, axis=-1))"),
    ("softmax", "weights = 1 - mx.softmax(scores, axis=-1)"),
    ("softmax", "weights = mx.softmax(scores, axis=-1)[:, :, :1]"),
    ("mask", "if mask is not None:\n    scores = scores + mask\nscores = scores * bias"),
    ("mask", "mask = mask + scores.shape[0]\nscores = scores + mask"),
    ("mask", "scores = mx.where(mask, scores, mx.zeros(scores.shape))"),
    ("mask", "scores = scores * mask"),
    ("mask", "scores = scores - mask"),
    ("mask", "scores = mx.where(mask, scores, 0.0)"),
    ("mask", "scores = mx.where(mask, -1e9, 0.0) * scores"),
    ("mask", "scores = mx.maximum(scores, mask)"),
    ("mask", "scores = scores + scores.mean()"),
    ("mask", "scores = scores + q @ bias.T"),
    ("mask", "scores = mx.where(scores > 0, scores, -1e9)"),
    ("mask", "scores[:, :, 0] = -1e9"),
    ("product", "scores = q @ k"),
    ("product", "scores = mx.einsum('...qd,...kd->...qk', q, k)"),
    ("product", "scores = mx.einsum('bhld,bhsd->bhsl', q, k)"),
    ("product", "scores = q * {k}.swapaxes(-1, -2)"),
    ("product", "scores = (q @ {k}) * mask"),
    ("product", "scores = (q @ {k}) ** 2"),
    ("result", "out = v @ weights"),
    ("result", "out = (weights * v)"),
    ("result", "out = weights.transpose(0, 1, 3, 2) @ v"),
    ("result", "out = (weights + weights) @ v"),
    ("result", "out = weights @ v\nweights = weights.sum()"),
    ("end", "return out, weights"),
    ("end", "return out, scores"),
    ("end", "print(scores)\nreturn out"),
    ("end", "del weights\nreturn out"),
    ("end", "return (lambda: (out, weights))()"),
]


def function(parts: dict[str, Any]) -> str:
    made, name = parts["keys"]
    lines = [made, "v = v.reshape(B, L, heads // n, -1).transpose(0, 2, 1, 3)"]
    if name != "k":  # keys that are transposed already have their heads elsewhere
        lines += [parts["copies"].replace("X", of) for of in ("k", "v")]
    lines.append(parts["product"].replace("{k}", name))
    lines += [parts[part] for part in ("mask", "softmax", "result", "end")]
    body = "\n".join(line for line in lines if line)
    return HEAD + "".join(f"    {line}\n" for line in body.split("\n"))


COPYING = re.compile(r"repeat|concatenate|tile|broadcast_to|:, :, None|expand_dims")


def in_groups(parts: dict[str, Any]) -> str:
    (key, transposed), (value, name) = parts["keys"], parts["values"]
    lines = [f"{of} = {of}.reshape(B, L, heads // n, -1).transpose(0, 2, 1, 3)" for of in "kv"]
    lines += [parts["queries"], key, value, parts["product"].replace("{k}", transposed)]
    lines += [parts["mask"], parts["softmax"], parts["result"].replace("{v}", name), parts["end"]]
    body = "\n".join(line for line in lines if line)
    return HEAD + "".join(f"    {line}\n" for line in body.split("\n"))


combined = st.fixed_dictionaries({part: st.sampled_from(forms) for part, forms in PARTS.items()})
grouped = st.fixed_dictionaries({part: st.sampled_from(forms) for part, forms in GROUPED.items()})


def matches_of(text: str) -> list[Match]:
    return examine(Source(Path("model.py"), text.encode()))[0]


@settings(max_examples=250, deadline=None)
@given(combined)
def test_every_combination_of_forms_is_taken(parts: dict[str, Any]) -> None:
    text = function(parts)
    matches = matches_of(text)
    assert len(matches) == 1, text
    rewritten = matches[0].question.new
    assert "softmax" not in rewritten
    assert "scores" not in rewritten, rewritten
    assert not COPYING.search(rewritten.partition("def attend")[2]), rewritten
    assert matches_of(rewritten) == []


@settings(max_examples=100, deadline=None)
@given(combined, st.sampled_from(PARTS["keys"][:-1]), st.sampled_from(OTHER_COPIES))
def test_copies_in_another_order_are_handed_on(
    parts: dict[str, Any], keys: tuple[str, str], copies: str
) -> None:
    text = function({**parts, "keys": keys, "copies": copies})
    (match,) = matches_of(text)
    for of in ("k", "v"):
        assert copies.replace("X", of) in match.question.new, match.question.new


@settings(max_examples=300, deadline=None)
@given(combined, st.sampled_from(NEAR_MISSES))
def test_no_near_miss_is_taken(parts: dict[str, Any], wrong: tuple[str, str]) -> None:
    part, form = wrong
    if form == "scores = q @ k":
        parts = {**parts, "keys": PARTS["keys"][0]}
    text = function({**parts, part: form})
    assert matches_of(text) == [], text


@settings(max_examples=1, deadline=None)
@given(st.lists(combined, min_size=12, max_size=12))
def test_combinations_are_proved(several: list[dict[str, Any]]) -> None:
    for parts in several:
        (match,) = matches_of(function(parts))
        verdict = verdict_on(match.question, ())
        assert verdict.proved, (verdict.reason, match.question.new)


@settings(max_examples=150, deadline=None)
@given(grouped)
def test_heads_in_groups_are_joined(parts: dict[str, Any]) -> None:
    text = in_groups(parts)
    (match,) = matches_of(text)
    rewritten = match.question.new
    assert "scores" not in rewritten
    assert "= mx.fast.scaled_dot_product_attention(" in rewritten
    assert rewritten.count("heads // n") == 2, rewritten  # where keys and values are made
    assert matches_of(rewritten) == []


@settings(max_examples=200, deadline=None)
@given(grouped, st.sampled_from(NEARLY_GROUPED))
def test_nothing_that_is_nearly_in_groups_is_taken(
    parts: dict[str, Any], wrong: tuple[str, Any]
) -> None:
    part, form = wrong
    text = in_groups({**parts, part: form})
    assert matches_of(text) == [], text


@settings(max_examples=1, deadline=None)
@given(st.lists(grouped, min_size=8, max_size=8))
def test_groups_are_proved(several: list[dict[str, Any]]) -> None:
    for parts in several:
        (match,) = matches_of(in_groups(parts))
        verdict = verdict_on(match.question, ())
        assert verdict.proved, (verdict.reason, match.question.new)


def test_rewrites_are_whole_lines() -> None:
    text = function({part: forms[0] for part, forms in PARTS.items()})
    (match,) = matches_of(text)
    lines = text.encode().splitlines(keepends=True)
    whole = [*lines[: match.first - 1], match.lines, *lines[match.last :]]
    assert b"".join(whole) == match.question.new.encode()
    assert applied(text.encode(), []) == text.encode()
