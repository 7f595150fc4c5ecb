"""Attention as it is written by hand, in MLX operations: what the gains are counted from, and in
float64 the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import mlx.core as mx

from .problems import Configuration, Inputs

# softmax(scale * q @ k.T + mask) @ v as a function of q, k, v alone.
Attend = Callable[[mx.array, mx.array, mx.array], mx.array]


def plain(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | None = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """`softmax(scale * q @ k.T + mask, with sinks) @ v` in the inputs' own type; shapes as in
    `flash_attention`, `mask` as an array of `[L, S]`, bool or additive."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # q: [B, H_kv, G, L, D]; k, v: [B, H_kv, 1, S, D]
        q = mx.unflatten(q, 1, (k.shape[1], groups))
        k, v = mx.expand_dims(k, 2), mx.expand_dims(v, 2)
    scores = (q * scale) @ mx.swapaxes(k, -1, -2)
    if mask is not None:
        scores = (
            mx.where(mask, scores, mx.finfo(scores.dtype).min)
            if mask.dtype == mx.bool_
            else scores + mask
        )
    if sinks is not None:  # [H] to a column of scores
        column = mx.reshape(sinks, (1, *scores.shape[1:-2], 1, 1)).astype(scores.dtype)
        scores = mx.concatenate([mx.broadcast_to(column, (*scores.shape[:-1], 1)), scores], axis=-1)
    weights = mx.softmax(scores, axis=-1, precise=True)
    out = (weights if sinks is None else weights[..., 1:]) @ v
    return mx.flatten(out, 1, 2) if groups > 1 else out


def run_phase(
    c: Configuration, attend: Attend, inputs: Inputs, cotangent: mx.array
) -> list[mx.array]:
    """The output `[B, H, L, D]`; in training the gradients of q, k, v with it."""
    arrays = [inputs.q, inputs.k, inputs.v]
    if c.phase != "train":
        return [attend(*arrays)]
    outputs, gradients = mx.vjp(lambda q, k, v: [attend(q, k, v)], arrays, [cotangent])
    return [*outputs, *gradients]


# Scores of the float64 truth, which the CPU computes: enough of them to take about a second.
_CHECKED_SCORES = 2**22
# The smallest difference between 1 and the next number.
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Check:
    """The float64 result for some of the queries (all of them while they are few), the cotangent
    that is zero for the others, so that the gradients depend on no more than those, and the error
    of plain attention for them in the inputs' own type on this device: an independent run at the
    same precision."""

    rows: list[int]
    cotangent: mx.array
    expected: list[mx.array]
    rounding: float = 0.0

    def error(self, results: list[mx.array]) -> float:
        """The largest difference of any result from float64, relative to the largest element
        there; NaN if any is."""
        errors = []
        with mx.stream(mx.cpu):
            rows = mx.array(self.rows)
            for index, (result, expected) in enumerate(zip(results, self.expected, strict=True)):
                # Output and gradient of q go by query, those of k and v by key.
                own = mx.take(result, rows, axis=2) if index < 2 else result
                error = (mx.abs(own.astype(mx.float64) - expected) / mx.abs(expected).max()).max()
                errors.append(float(error.item()))  # type: ignore[arg-type]  # typed in MLX's stubs as maybe complex
        return max(errors) if all(map(math.isfinite, errors)) else math.nan


def make_check(c: Configuration, inputs: Inputs) -> Check:
    """Computes plain attention for the checked queries, in float64 on the CPU and in their own
    type on this device."""
    count = max(1, min(c.query_length, _CHECKED_SCORES // (c.batch * c.heads * c.length)))
    rows = sorted({round(i * (c.query_length - 1) / max(1, count - 1)) for i in range(count)})
    chosen = mx.array(rows)
    selected = (mx.arange(c.query_length)[:, None] == chosen).any(axis=1)[:, None]
    cotangent = mx.where(selected, inputs.cotangent, 0).astype(inputs.cotangent.dtype)
    mask = None if inputs.mask_array is None else mx.take(inputs.mask_array, chosen, axis=0)
    few = replace(
        inputs,
        q=mx.take(inputs.q, chosen, axis=2),
        mask=mask,
        mask_array=mask,
        cotangent=mx.take(inputs.cotangent, chosen, axis=2),
    )
    narrow = _run_plain(c, few)
    mx.eval(cotangent, narrow)
    with mx.stream(mx.cpu):
        expected = _run_plain(c, _in_float64(few))
        mx.eval(expected)
    every = Check(list(range(len(rows))), cotangent, expected)
    return Check(rows, cotangent, expected, rounding=every.error(narrow))


def _run_plain(c: Configuration, inputs: Inputs) -> list[mx.array]:
    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return plain(q, k, v, scale=inputs.scale, mask=inputs.mask_array, sinks=inputs.sinks)

    return run_phase(c, attend, inputs, inputs.cotangent)


def _in_float64(inputs: Inputs) -> Inputs:
    mask = inputs.mask_array
    if mask is not None and mask.dtype != mx.bool_:
        mask = mask.astype(mx.float64)
    q, k, v, cotangent = (
        x.astype(mx.float64) for x in (inputs.q, inputs.k, inputs.v, inputs.cotangent)
    )
    sinks = None if inputs.sinks is None else inputs.sinks.astype(mx.float64)
    return Inputs(q, k, v, mask, mask, cotangent, sinks)


def error_budget(c: Configuration, check: Check, stock_error: float | None) -> float:
    """The error that a correct result may have: twice that of MLX's own attention in the same type
    on the same device, or of plain attention or of one rounding to the type where those are
    larger; three times with gradients, whose scores are computed again. Flash Attention's own
    tests allow the same factors over plain attention."""
    factor = 3 if c.phase == "train" else 2
    return factor * max(stock_error or 0.0, check.rounding, _EPSILON[c.dtype])
