"""Attention as a function of its own, and what the planner would do with a call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, overload

import mlx.core as mx

from . import stock
from .control import mlx_is_known
from .ops.alignment import CAUSAL_UPPER_LEFT, upper_left, with_rows_shown
from .ops.padding import pad
from .ops.work import Work, of_stock
from .patching import patch, state
from .planning.choice import Choice, choose, stock_memory
from .planning.machine import current_device
from .planning.planner import planner_for
from .problem import Device, Problem, fault
from .routes import lowered, metal_kernel
from .routes.reference import attend_with_weights, reference
from .settings import Settings, checked_block_size, resolve

HiddenRows = Literal["zeros"]


@overload
def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: Literal[True],
) -> tuple[mx.array, mx.array]: ...


@overload
def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: Literal[False] = False,
) -> mx.array: ...


def flash_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    hidden_rows: HiddenRows | None = None,
    return_weights: bool = False,
) -> mx.array | tuple[mx.array, mx.array]:
    """`softmax(scale * q @ k.T + mask) @ v` on the planned route, whether or not MLX is patched.

    q is `[B, H, L, D]`, k `[B, H_kv, S, D]`, v `[B, H_kv, S, D_v]` with H a multiple of H_kv, all
    of one floating type (else of the type that they promote to); the result is `[B, H, L, D_v]`.
    `mask` is None, `"causal"` (the last query aligned with the last key), `"causal_upper_left"`
    (the first query aligned with the first key), or an array that broadcasts to `[B, H, L, S]`:
    bool (True is seen) or added to the scores. `sinks` is `[H]`, one more score per head that
    takes weight and has no value. `block_size` as in `enable_flash_attention`. A function that is
    being exported gets MLX's own operations.

    With `hidden_rows="zeros"` a query that sees no key gets zeros, and its gradients are zeros: its
    row of a bool mask is all False, that of an additive one all minus infinity, or there are more
    queries than keys under `"causal"`. Without, it gets what MLX gives it: the mean of all values,
    or NaN.

    With `return_weights=True` the result is a pair, the attention and the weights of all keys,
    `[B, H, L, S]`, both computed by the route `reference`, with all scores in memory.

    Raises ValueError for a bad `block_size` or `hidden_rows`; for weights where another route was
    asked for by name (`MLX_FLASH_ROUTE`); and what MLX's own function raises for arguments that it
    rejects, or, with one of these three choices, ValueError for those that no route describes.
    """
    settings = _settings(block_size)
    planner = planner_for(settings) if settings.enabled and mlx_is_known() else None
    rows = None
    if hidden_rows is not None or return_weights or _is(mask, CAUSAL_UPPER_LEFT):
        _check(q, k, v, mask, sinks, hidden_rows)
        if return_weights and settings.route not in (None, reference.name):
            raise ValueError(
                f"route {settings.route} has no weights to return: only {reference.name} has"
            )
        key_length = k.shape[2]
        if _is(mask, CAUSAL_UPPER_LEFT):
            k, v, mask = upper_left(q, k, v)
        if hidden_rows is not None:
            mask, rows = with_rows_shown(mask, q.shape[2], k.shape[2])
        if return_weights:
            out, weights = attend_with_weights(q, k, v, scale=scale, mask=mask, sinks=sinks)
            weights = pad(weights, 3, 0, key_length - k.shape[2])
            return _zeros_at(rows, out), _zeros_at(rows, weights)
    if planner is None or state.is_paused():
        out = stock.attention(q, k, v, scale=scale, mask=mask, sinks=sinks)
    else:
        out = planner.attend(q, k, v, scale, mask, sinks)
    return _zeros_at(rows, out)


def _is(mask: mx.array | str | None, word: str) -> bool:
    return isinstance(mask, str) and mask == word


def _check(
    q: object, k: object, v: object, mask: mx.array | str | None, sinks: object, hidden_rows: object
) -> None:
    """Raises ValueError for arguments that MLX will not see as they are."""
    if hidden_rows not in (None, "zeros"):
        raise ValueError(f'hidden_rows is {hidden_rows!r}: it must be None or "zeros"')
    known_mask = "causal" if _is(mask, CAUSAL_UPPER_LEFT) else mask
    wrong = fault(q, k, v, known_mask, sinks)
    if wrong is not None:
        raise ValueError(wrong)


def _zeros_at(rows: mx.array | None, out: mx.array) -> mx.array:
    return out if rows is None else mx.where(rows, mx.zeros((), out.dtype), out)


@dataclass(frozen=True)
class Explanation:
    """What the planner would do with one attention call, on which device, and why."""

    problem: Problem
    device: Device
    route: str
    reason: str
    refused: tuple[tuple[str, str], ...]
    block_size: int | None
    extra_memory: int
    stock_memory: int
    stock_work: Work
    lowered_work: Work | None  # of the call as `lowered` rewrites it, where it does
    kernel_work: Work | None  # of our own kernel on Metal, where there is one for the call
    most_seen: float | None = (
        None  # of a bool mask's tiles for that kernel, where each is looked at
    )

    def __str__(self) -> str:
        lines = [f"route {self.route}: {self.reason}"]
        lines += [f"  not {route}: {reason}" for route, reason in self.refused]
        if self.block_size is not None:
            lines.append(f"  block size {self.block_size}")
        ours, stock = mebibytes(self.extra_memory), mebibytes(self.stock_memory)
        lines.append(
            f"  predicted peak memory of the forward pass {ours}, of MLX's own function {stock}"
        )
        if self.lowered_work is not None:
            lines.append(f"  counted, rewritten: {self.lowered_work}")
        has_choice = self.kernel_work is not None and self.route != "native"
        if has_choice:
            lines.append(f"  counted, our own kernel: {self.kernel_work}")
        if has_choice and self.most_seen is not None:
            lines.append(
                f"  if the mask hid nothing; it may leave {self.most_seen:.0%} of its tiles"
            )
        if self.lowered_work is not None or has_choice:
            lines.append(f"  counted, MLX's own function: {self.stock_work}")
        return "\n".join(lines)


def explain(
    q: mx.array | Problem,
    k: mx.array | None = None,
    v: mx.array | None = None,
    *,
    scale: float | None = None,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    block_size: int | None = None,
    device: Device | None = None,
) -> Explanation:
    """The route that a call would take, why, and why not the routes before it; nothing is computed.

    Takes the arguments of the call (`scale` changes nothing), or a `Problem` alone; `device` is
    the current one unless given. `extra_memory` and `stock_memory` of the answer are the predicted
    peaks in bytes of one forward call, planned and by MLX's own function, beyond its inputs and
    its output; `lowered_work`, `kernel_work` and `stock_work` the products and bytes by which it is
    decided whether to rewrite the call, or to run it on our own kernel for Metal, for a bool mask
    by the elements of each: `most_seen` is the largest share of its tiles that it may leave.

    Raises ValueError for a bad `block_size` and for arguments that no attention call can have, and
    says which and why; TypeError for a `device` that is no Device, such as a name.
    """
    problem = q if isinstance(q, Problem) else Problem.of(q, k, v, mask, sinks)
    if problem is None:
        raise ValueError(fault(q, k, v, mask, sinks))
    device = device or current_device()
    if not isinstance(device, Device):
        raise TypeError(f"device is a mlx_flash_runtime.problem.Device, not {device!r}")
    return explanation_of(choose(problem, device, _settings(block_size)))


def explanation_of(choice: Choice) -> Explanation:
    """A choice in words."""
    problem, device = choice.problem, choice.device
    can_rewrite = lowered.holds(problem, device)[0]
    has_kernel = metal_kernel.holds(problem, device)[0]
    return Explanation(
        problem,
        device,
        *choice.decision,
        choice.refused,
        choice.block_size,
        choice.extra_memory,
        stock_memory(problem, device),
        of_stock(problem, device),
        lowered.work(problem, device, choice.block_size) if can_rewrite else None,
        metal_kernel.work(problem, device, None) if has_kernel else None,
        metal_kernel.most_seen(problem, device) if has_kernel else None,
    )


def mebibytes(count: int) -> str:
    """`count` bytes as `12.5 MiB`."""
    return f"{count / 2**20:,.1f} MiB"


def _settings(block_size: int | None) -> Settings:
    """Those of the patch where it is in place, else those of the environment; `block_size` counts
    before both."""
    planner = patch.active()
    if planner is None:
        return resolve(True, block_size)
    return (
        planner.settings
        if block_size is None
        else replace(planner.settings, block_size=checked_block_size(block_size))
    )
