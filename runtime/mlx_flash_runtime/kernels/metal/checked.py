"""Whether the Metal kernels are right on this machine: each kind is held against MLX's operations
on small arrays when it is first to be used.

They were written and tested without a Mac. Should Apple's compiler refuse one, or a GPU give
something else than is expected of it, a warning says so, and this version of the package uses none
of them on this machine again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from ...environment import private_files, user_cache
from ...environment.log import logger
from ...ops import written_out
from ...problem import Problem
from ...problem.masks import Structure, Window
from ...stock.release import mlx_version
from ...version import __version__
from ..quantization import Bits
from . import gradient, kernel, tile_skipping

# The largest error of an output, whose numbers are about 1: many times what rounding comes to, and
# what MLX's own products in TF32 come to on an M5; a key too few or too many comes to more.
_MOST_ERROR = {"float32": 4e-3, "float16": 4e-3, "bfloat16": 2e-2}
# Keys of the small arrays: several tiles of them, the last of which is not full.
_KEYS = 70
_WHOLE_TILES = 64
_WINDOW = Window(40)  # which starts in the midst of a tile
_MOST_BYTES = 2**12
_refused = ""  # in this process
_to_tell: set[Callable[[], None]] = set()


def why_not() -> str:
    """Why there are no Metal kernels on this machine; empty where there are. Runs nothing."""
    return _refused or _kept()


def tell_when_refused(then: Callable[[], None]) -> None:
    """Has `then` called should a kernel fail its check."""
    _to_tell.add(then)


def is_right(problem: Problem, bits: Bits | None = None) -> bool:
    """Whether the kernel for `problem` is; run once in a process for each kind."""
    return not why_not() and run(_small(problem), bits)


@lru_cache(maxsize=256)  # asked for at each call
def _small(problem: Problem) -> Problem:
    """The problem of small sizes that is of the same kind."""
    group = problem.query_heads // problem.key_heads
    small = replace(problem, batch=1, query_heads=group, key_heads=1, mask_shape=())
    if kernel.is_for_few(problem):
        structure = problem.structure if problem.window is not None else None
        return replace(small, key_length=_KEYS + problem.query_length, structure=structure)
    # This kernel is told of any mask by the first and the last key that a query sees.
    queries = _KEYS if problem.query_length % tile_skipping.BLOCK else _WHOLE_TILES
    keys = _WHOLE_TILES + (_KEYS if problem.key_length % tile_skipping.BLOCK else _WHOLE_TILES)
    small = replace(small, query_length=queries, key_length=keys, query_heads=min(group, 2))
    if kernel.reads_mask(problem):
        return small
    return replace(small, mask="window", structure=_WINDOW)


@lru_cache(maxsize=256)
def run(small: Problem, bits: Bits | None = None) -> bool:
    """Whether the kernel for a problem of small sizes is right: it is run."""
    try:
        error = _error(small, bits)
    except (RuntimeError, ValueError) as refused:  # it does not compile, or needs too much
        return _refuse(str(refused))
    if error <= _MOST_ERROR[small.dtype]:
        return True
    return _refuse(f"it is wrong by {error:.1e} for {small}{f', {bits}' if bits else ''}")


class _Call(NamedTuple):
    """A small call: `arrays` as the kernel takes them; `inputs` as MLX's operations do, q, k, v,
    then sinks if any, in float32, with the mask and the scale."""

    arrays: list[mx.array]
    inputs: list[mx.array]
    mask: mx.array | Structure | None
    scale: float


def _error(small: Problem, bits: Bits | None) -> float:
    """The largest difference between the kernel and MLX's operations in float32, in training also
    between the gradients of both."""
    call = _random_call(small, bits)

    def exact(q: mx.array, k: mx.array, v: mx.array, *sinks: mx.array) -> mx.array:
        return written_out.attention(
            q,
            k,
            v,
            scale=call.scale,
            mask=call.mask,
            sinks=sinks[0] if sinks else None,
            softcap=small.softcap,
        )

    found = kernel.attention(small, call.arrays, bits)
    if not small.training:
        return _largest_difference(found, [exact(*call.inputs)])
    cotangent = mx.random.normal(found[0].shape, key=mx.random.key(1)).astype(found[0].dtype)
    own = [found[0], *gradient.gradients(small, call.arrays, found, cotangent)]
    outputs, gradients = mx.vjp(exact, call.inputs, [cotangent.astype(mx.float32)])
    return _largest_difference(own, [*outputs, *gradients])


def _random_call(p: Problem, bits: Bits | None) -> _Call:
    """A call of the problem; with `bits` the kernel gets keys and values quantized, MLX's
    operations what those stand for."""
    dtype: mx.Dtype = getattr(mx, p.dtype)
    random = iter(mx.random.split(mx.random.key(0), 5))

    def normal(*shape: int) -> mx.array:
        return mx.random.normal(shape, key=next(random)).astype(dtype)

    q = normal(p.batch, p.query_heads, p.query_length, p.head_dim)
    k = normal(p.batch, p.key_heads, p.key_length, p.head_dim)
    v = normal(p.batch, p.key_heads, p.key_length, p.value_head_dim)
    scale = p.head_dim**-0.5
    arrays = [q]
    if bits is None:
        arrays += [k, v]
    else:
        group_size, width = bits.group_size, bits.bits
        packed = [mx.quantize(x, group_size=group_size, bits=width) for x in (k, v)]
        arrays += [*packed[0], *packed[1]]
        k, v = (mx.dequantize(*x, group_size=group_size, bits=width) for x in packed)
    arrays.append(mx.array([scale, p.softcap or 1.0], mx.float32))
    mask: mx.array | Structure | None = p.visible
    if kernel.reads_mask(p):
        shown = _mask(p, normal(p.batch, p.query_heads, p.query_length, p.key_length))
        arrays.append(shown)
        mask = shown.astype(mx.float32) if p.mask == "additive" else shown
    inputs = [q, k, v]
    if p.sinks:
        sinks = normal(p.query_heads)
        arrays.append(sinks)
        inputs.append(sinks)
    return _Call(arrays, [x.astype(mx.float32) for x in inputs], mask, scale)


def _mask(p: Problem, random: mx.array) -> mx.array:
    """A mask that the kernel reads, of random numbers: those themselves, or which are not small."""
    if p.mask == "additive":
        return random
    shown = random > -0.5
    if kernel.is_for_few(p):
        return shown
    # Some tiles that are hidden, some that are seen, and some in part.
    sees = written_out.mask_as_array(_WINDOW, p.query_length, p.key_length)
    return (shown & sees) | (mx.arange(p.key_length) < tile_skipping.BLOCK)


def _largest_difference(found: Sequence[mx.array], wanted: Sequence[mx.array]) -> float:
    """Infinite where one is NaN."""
    largest = 0.0
    for one, other in zip(found, wanted, strict=True):
        difference = mx.abs(one.astype(mx.float32) - other)
        worst = mx.where(mx.isnan(difference), mx.inf, difference).max()
        largest = max(largest, float(worst))
    return largest


def _refuse(why: str) -> bool:
    """Has none of the kernels used any more, in this process and in later ones."""
    global _refused
    lines = why.strip().splitlines() or ["no reason is given"]
    # Of a compiler's many lines the first that says what is wrong.
    _refused = next((line for line in lines if "error:" in line), lines[0])
    logger.warning(
        "flash attention: MLX's own attention, as a Metal kernel failed its check on this machine:"
        " %s. It is not tried again in this version. A report of it is welcome, with this line"
        " and what mlx-flash doctor prints",
        _refused,
    )
    with suppress(OSError, RuntimeError):  # the next process then finds out by itself
        file = _file()
        private_files.folder(file.parent, make=0o700)
        private_files.write(file, f"{_refused}\n".encode())
    _kept.cache_clear()
    for tell in _to_tell:
        tell()
    return False


@lru_cache(maxsize=1)
def _kept() -> str:
    """Why an earlier process has refused them."""
    try:
        return private_files.read(_file(), _MOST_BYTES).decode(errors="replace").strip()
    except (OSError, RuntimeError):  # none, none to be trusted, or no home
        return ""


def _file() -> Path:
    """Where it is kept for this version and this MLX. Raises RuntimeError where there is no
    home."""
    return user_cache.folder() / f"metal-{__version__}-mlx-{mlx_version()}.refused"
