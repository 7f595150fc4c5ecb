"""The functions of MLX and mlx-lm that are patched besides MLX's own attention: where masks are
made, and the attention that mlx-lm has of its own (quantized keys and values, softcapped scores).

mlx-vlm and many programs carry copies of them. So they are known by what they are, in whatever
module: by the name and the parameters when the module is loaded, and by their results, held
against those of the formula on small inputs before the first call that would go another way.
Nothing is computed before: a program that has not used MLX may still fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import mlx.core as mx

from . import equivalence, masks, quantized, softcap, state

Function = Callable[..., Any]
IsSame = Callable[[], bool]


class Original(NamedTuple):
    """One function, or method of a class: the names that lead to it from its module, its first
    parameters, the names that it mentions where those are not enough, what to put in its place,
    and whether a function does the same."""

    path: tuple[str, ...]
    parameters: tuple[str, ...]
    wrap: Callable[[Function, IsSame], Function]
    is_same: Callable[[Function], bool]
    mentions: frozenset[str] = frozenset()


ORIGINALS = (
    Original(
        ("create_causal_mask",),
        ("N", "offset", "window_size"),
        masks.remembering,
        equivalence.is_causal_mask,
    ),
    Original(
        ("MultiHeadAttention", "create_additive_causal_mask"),
        ("N", "dtype"),
        masks.remembering_causal,
        equivalence.is_additive_causal_mask,
    ),
    Original(
        ("create_additive_causal_mask",),
        ("N", "offset"),
        masks.remembering_causal,
        equivalence.is_additive_causal_mask,
    ),
    Original(
        ("quantized_scaled_dot_product_attention",),
        ("queries", "q_keys", "q_values", "scale", "mask", "group_size", "bits"),
        quantized.by_blocks,
        equivalence.is_quantized_attention,
    ),
    Original(
        ("scaled_dot_product_attention",),
        ("queries", "keys", "values", "cache", "scale", "mask", "sinks"),
        quantized.with_sinks,
        equivalence.refuses_sinks,
    ),
    Original(
        ("_softcap_attention",),
        ("queries", "keys", "values", "scale", "softcap", "mask"),
        softcap.of_arrays,
        equivalence.is_softcapped_attention,
    ),
    Original(
        ("Attention", "__call__"),
        ("self", "x", "mask", "cache"),
        softcap.gemma2_layer,
        equivalence.is_gemma2_layer,
        mentions=frozenset({"attn_logit_softcapping", "tanh"}),
    ),
)

# Functions that look like one of these and do something else, as `module.function`.
unrecognised: dict[str, None] = {}


class Found(NamedTuple):
    """A function that looks like an original, and the module or class that it is looked up in."""

    original: Original
    owner: Any
    function: Function


def found_in(module: ModuleType) -> Iterator[Found]:
    """The functions of a module that look like originals. Those that it has imported are found in
    the module that they come from."""
    # Not vars(): a module that loads lazily would load at the first look into it.
    namespace = ModuleType.__getattribute__(module, "__dict__")
    for original in ORIGINALS:
        if original.path[0] not in namespace:
            continue
        owner: Any = module
        for name in original.path[:-1]:
            owner = getattr(owner, name)
        function: Any = vars(owner).get(original.path[-1]) if hasattr(owner, "__dict__") else None
        if isinstance(function, staticmethod):
            function = function.__func__
        if _looks_like(original, function) and function.__module__ == namespace.get("__name__"):
            yield Found(original, owner, function)


def ours_for(found: Found) -> Function:
    """What to put in the place of a function that looks like an original."""
    return found.original.wrap(found.function, held(found))


def held(found: Found) -> IsSame:
    """Whether the function does what the original does: a question that is answered once."""

    @lru_cache(maxsize=1)
    def is_same() -> bool:
        # The CPU has all operations that the functions use, and right ones (see `quantized`).
        try:
            with state.paused(), mx.stream(mx.cpu):
                same = found.original.is_same(found.function)
        except Exception:  # whatever a function raises that wants other inputs
            same = False
        if not same:
            unrecognised[".".join((found.function.__module__, *found.original.path))] = None
        return same

    return is_same


def _looks_like(original: Original, function: Any) -> bool:
    # What a decorator made, ours among them, is another function than the one that it took.
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return False
    code = function.__code__
    if code.co_varnames[: len(original.parameters)] != original.parameters:
        return False
    return original.mentions.issubset(code.co_names)
