"""Whether a call is being traced for a gradient, which MLX does not tell Python."""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx

from .. import stock


def is_traced() -> bool:
    """Whether this thread is inside `mx.grad`, `mx.vjp` or the like, as far as the default device
    shows it.

    MLX itself knows, and on CUDA it acts on it: while a gradient is traced, its attention keeps
    the logsumexp that the fused backward pass needs, which its kernel for few queries cannot. With
    `force_fused=True` that is an error, and a call over no queries at all costs nothing to ask.
    Always False where the answer does not show: on the CPU, and before `force_fused` came.
    """
    return shows() and _is_refused()


@lru_cache(maxsize=1)
def shows() -> bool:
    """Whether the probe tells the two apart on this machine, tried once on both; first asked
    outside of any gradient (when the patch is put in place)."""
    if not (mx.metal.is_available() or mx.cuda.is_available()):
        return False
    answers: list[bool] = []

    def inside(x: mx.array) -> mx.array:
        answers.append(_is_refused())
        return x

    try:
        answers.append(_is_refused())
        mx.grad(inside)(mx.array(0.0))
    except TypeError:  # this MLX's function has no force_fused
        return False
    return answers == [False, True]


@lru_cache(maxsize=1)
def _queries_and_keys() -> tuple[mx.array, mx.array]:
    return mx.zeros((1, 1, 0, 64)), mx.zeros((1, 1, 1, 64))


def _is_refused() -> bool:
    queries, keys = _queries_and_keys()
    try:
        stock.attention(queries, keys, keys, scale=1.0, force_fused=True)
    except ValueError:
        return True
    return False
