"""What an attention call may be given."""

from __future__ import annotations

import mlx.core as mx


def fault(q: object, k: object, v: object, mask: object, sinks: object) -> str | None:
    """What is wrong with which argument, and what would be right; None for a call that routes
    describe. With a fault it is for MLX itself to judge: it may reject the arguments, or compute
    in a type that no route does (float64, integer queries)."""
    if not (isinstance(q, mx.array) and isinstance(k, mx.array) and isinstance(v, mx.array)):
        return _no_arrays({"q": q, "k": k, "v": v})
    found = _of_shapes(q.shape, k.shape, v.shape)
    if found is not None:
        return found
    dtype = promoted(q.dtype, k.dtype, v.dtype)
    floats = mx.issubdtype(q.dtype, mx.floating) and mx.issubdtype(dtype, mx.floating)
    if not floats or dtype == mx.float64:
        return (
            f"q, k and v are of types {_type(q)}, {_type(k)} and {_type(v)}: they must be float16,"
            " bfloat16 or float32"
        )
    scores = (*q.shape[:3], k.shape[2])
    return _of_mask(mask, scores, dtype) or _of_sinks(sinks, q.shape[1], dtype)


def promoted(dtype: mx.Dtype, *others: mx.Dtype) -> mx.Dtype:
    """The type that MLX's promotion gives `dtype` and `others` (`mx.result_type` is not in every
    MLX known here)."""
    total = None
    for other in others:
        if other != dtype:
            total = (mx.zeros((), dtype) if total is None else total) + mx.zeros((), other)
    return dtype if total is None else total.dtype


def _no_arrays(arguments: dict[str, object]) -> str | None:
    for name, value in arguments.items():
        if not isinstance(value, mx.array):
            return f"{name} is {_kind(value)}: it must be an mlx.core.array of 4 axes"
    return None


def _of_shapes(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> str | None:
    for name, shape in (("q", q), ("k", k), ("v", v)):
        if len(shape) != 4:
            return (
                f"{name} is of shape {shape}: it must have 4 axes, [batch, heads, length, head dim]"
            )
        if 0 in shape:
            return f"{name} is of shape {shape}, which is empty"
    for name, shape in (("k", k), ("v", v)):
        if shape[0] != q[0]:
            return f"{name} has a batch of {shape[0]}, q one of {q[0]}: they must be the same"
    if k[3] != q[3]:
        return f"k has head dim {k[3]}, q {q[3]}: they must be the same"
    if k[1] != v[1]:
        return f"v has {v[1]} heads, k {k[1]}: they must be the same"
    if k[2] != v[2]:
        return f"v has length {v[2]}, k {k[2]}: they must be the same"
    if q[1] % k[1]:
        return f"q has {q[1]} heads, which is no multiple of the {k[1]} heads of k and v"
    return None


def _of_mask(mask: object, scores: tuple[int, ...], dtype: mx.Dtype) -> str | None:
    if mask is None or (isinstance(mask, str) and mask == "causal"):
        return None
    if not isinstance(mask, mx.array):
        shown = repr(mask) if isinstance(mask, str) else _kind(mask)
        return f'mask is {shown}: it must be None, "causal" or an mlx.core.array'
    sizes = zip(reversed(mask.shape), reversed(scores), strict=False)
    if mask.ndim > 4 or any(own not in (1, full) for own, full in sizes):
        return (
            f"mask is of shape {mask.shape}, which does not broadcast to the scores' {scores},"
            " [batch, heads of q, length of q, length of k]"
        )
    if mask.dtype != mx.bool_ and promoted(dtype, mask.dtype) != dtype:
        return (
            f"mask is of type {_type(mask)}, which does not promote to the {_name(dtype)} of q, k"
            f" and v: it must be bool or {_name(dtype)}"
        )
    return None


def _of_sinks(sinks: object, heads: int, dtype: mx.Dtype) -> str | None:
    if sinks is None:
        return None
    if not isinstance(sinks, mx.array):
        return f"sinks is {_kind(sinks)}: it must be None or an mlx.core.array"
    if sinks.shape != (heads,):
        return f"sinks is of shape {sinks.shape}: it must be ({heads},), one number a head of q"
    if promoted(dtype, sinks.dtype) != dtype:
        return (
            f"sinks is of type {_type(sinks)}, which does not promote to the {_name(dtype)} of q, k"
            f" and v: it must be {_name(dtype)}"
        )
    return None


def _kind(value: object) -> str:
    if value is None:
        return "None"
    module, name = type(value).__module__, type(value).__qualname__
    return f"a {name}" if module == "builtins" else f"a {module}.{name}"


def _type(array: mx.array) -> str:
    return _name(array.dtype)


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
