"""The letters of an einsum: which of them are batch, queries, keys and features."""

from __future__ import annotations


def _terms(text: str) -> tuple[str, str, str] | None:
    given, arrow, result = text.replace(" ", "").partition("->")
    parts = given.split(",")
    if not arrow or len(parts) != 2 or "." in text:
        return None
    one, other = parts
    if any(len(set(term)) != len(term) for term in (one, other, result)):
        return None
    return one, other, result


def attention_layout(text: str) -> tuple[str, str, str] | None:
    """The letters of queries, keys and scores: scores end in the letter that only the queries have
    and the one that only the keys have; None for any other product."""
    terms = _terms(text)
    if terms is None:
        return None
    query, key, scores = terms
    batch = set(query) & set(key) & set(scores)
    features = (set(query) & set(key)) - set(scores)
    length, keys = set(query) - set(key), set(key) - set(query)
    if not (len(features) == len(length) == len(keys) == 1):
        return None
    if len(query) != len(key) or set(scores) != batch | length | keys:
        return None
    if {scores[-2]} != length or {scores[-1]} != keys:
        return None
    return query, key, scores


def without_layout(text: str) -> str:
    """Why an einsum that a softmax follows has no `attention_layout`."""
    if "." in text:
        return "is an einsum with an ellipsis, by which its axes can't be known"
    if (terms := _terms(text)) is not None and _has_fewer_axes(*terms):
        if len(terms[1]) > 3:
            return (
                "is an einsum of queries whose heads are in groups, on an axis more than the keys"
            )
        return "is an einsum whose keys have no heads: one key head serves every query head"
    return "is an einsum whose letters are not those of [..., queries, keys]"


def _has_fewer_axes(query: str, key: str, scores: str) -> bool:
    """`bhid,bjd->bhij`: the keys lack a letter that queries and scores have before their
    positions."""
    features, positions = set(query) & set(key) - set(scores), set(key) - set(query)
    if len(features) != 1 or len(positions) != 1:
        return False
    without_heads = set(query) - features - set(key)
    return len(without_heads) == 2 and set(scores) == set(query) - features | positions


def weighted_layout(text: str, scores: str | None) -> tuple[str, str, str] | None:
    """The letters of weights, values and result; `scores` are those of the weights where an einsum
    made them, and need not be the same ones."""
    terms = _terms(text)
    if terms is None:
        return None
    weights, values, result = terms
    if scores is not None and len(scores) != len(weights):
        return None
    keys = weights[-1]
    features = set(values) - set(weights)
    if keys in result or keys not in values or len(features) != 1:
        return None
    if set(values) != (set(weights[:-2]) | {keys} | features) or len(values) != len(weights):
        return None
    if set(result) != set(weights[:-1]) | features:
        return None
    return weights, values, result


def order(of: str, wanted: str) -> list[int] | None:
    """The transposition that brings the letters of an array into another order; None where they
    stand in it already."""
    found = [of.index(letter) for letter in wanted]
    return None if found == list(range(len(of))) else found
