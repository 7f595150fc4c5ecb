"""What the planner decides about (`Problem`) and where (`Device`), both as plain data."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal, get_args

import mlx.core as mx

from .kernels.cpu import library
from .kernels.cuda import cache
from .masks import Causal, Prefix, Segments, Structure, Window, structure_of

MaskKind = Literal["none", "causal", "window", "prefix", "segments", "bool", "additive"]
Backend = Literal["cpu", "metal", "cuda"]
Phase = Literal["prefill", "training", "prefill or training", "decode", "unknown"]
PHASES: tuple[Phase, ...] = get_args(Phase)

# A query or a few, as of speculative decoding, on the keys of a cache.
_DECODED_QUERIES = 8

_ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_KINDS: dict[type, MaskKind] = {Causal: "causal", Window: "window", Prefix: "prefix", Segments: "segments"}


@dataclass(frozen=True)
class Problem:
    """One attention call: `softmax(scale * q @ k.T + mask, with sinks) @ v`.

    q is `[batch, query_heads, query_length, head_dim]`, k `[batch, key_heads, key_length, head_dim]`,
    v `[batch, key_heads, key_length, value_head_dim]`; `dtype` names the type that the three promote to. The mask is
    described by its structure where that is known (`structure`, except for "causal", which says it all); `mask_shape`
    is an array's own shape before broadcasting, `()` without one. With `softcap` the scores are
    `softcap * tanh(scores / softcap)` before the mask. `training` says that a gradient is known to be traced.
    """

    batch: int
    query_heads: int
    key_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_head_dim: int
    dtype: str = "float32"
    mask: MaskKind = "none"
    mask_shape: tuple[int, ...] = ()
    structure: Structure | None = None
    sinks: bool = False
    softcap: float | None = None
    training: bool = False

    @property
    def window(self) -> int | None:
        """The size of a sliding window, or None."""
        return self.structure.size if isinstance(self.structure, Window) else None

    @property
    def has_array_mask(self) -> bool:
        """Whether the mask reaches MLX as an array: it is one, or a structure that MLX has no name for."""
        return self.mask not in ("none", "causal")

    @property
    def item_bytes(self) -> int:
        """Bytes of one element of q, k, v and the output."""
        return _ITEM_BYTES[self.dtype]

    @property
    def score_count(self) -> int:
        """Elements of the full score matrix, `[batch, query_heads, query_length, key_length]`."""
        return self.batch * self.query_heads * self.query_length * self.key_length

    @property
    def output_bytes(self) -> int:
        """Bytes of the output, `[batch, query_heads, query_length, value_head_dim]`."""
        return self.item_bytes * self.batch * self.query_heads * self.query_length * self.value_head_dim

    def __str__(self) -> str:
        """In words, as `32/8 heads, head dim 64, 8,192 queries on 8,192 keys, causal, bfloat16`."""
        heads, keys, dims = self.query_heads, self.key_heads, (self.head_dim, self.value_head_dim)
        words = [
            *([f"batch {self.batch}"] if self.batch > 1 else []),
            f"{heads} heads" if heads == keys else f"{heads}/{keys} heads",
            f"head dim {dims[0]}" if dims[0] == dims[1] else f"head dims {dims[0]}/{dims[1]}",
            f"{_several(self.query_length, 'query', 'queries')} on {_several(self.key_length, 'key', 'keys')}",
            {"none": "no mask", "bool": "bool mask", "additive": "additive mask"}.get(self.mask, self.mask)
            + (f" of {self.window:,}" if self.window else ""),
            *(["sinks"] if self.sinks else []),
            *([f"softcap {self.softcap:g}"] if self.softcap is not None else []),
            self.dtype,
            *(["with its gradient"] if self.training else []),
        ]
        return ", ".join(words)

    @property
    def phase(self) -> Phase:
        """What the call is part of, as far as its shapes tell: `decode` for at most 8 queries on more keys."""
        return "training" if self.training else phase_of(self.query_length, self.key_length)

    @classmethod
    def of(
        cls,
        q: object,
        k: object,
        v: object,
        mask: object = None,
        sinks: object = None,
        *,
        softcap: float | None = None,
        training: bool = False,
    ) -> Problem | None:
        """The problem of one call, or None where it is for MLX itself to judge: arguments that it may reject, types
        that no route computes in (float64, integer queries)."""
        if not (isinstance(q, mx.array) and isinstance(k, mx.array) and isinstance(v, mx.array)):
            return None
        if not (q.ndim == k.ndim == v.ndim == 4):
            return None
        batch, query_heads, query_length, head_dim = q.shape
        _, key_heads, key_length, value_head_dim = v.shape
        if k.shape != (batch, key_heads, key_length, head_dim) or v.shape[0] != batch:
            return None
        if prod((*q.shape, *v.shape)) == 0 or query_heads % key_heads:
            return None
        dtype = promoted(q.dtype, k.dtype, v.dtype)
        if not (mx.issubdtype(q.dtype, mx.floating) and mx.issubdtype(dtype, mx.floating)) or dtype == mx.float64:
            return None
        structure = structure_of(mask, query_length, key_length) if isinstance(mask, mx.array) else None
        kind = (
            _KINDS[type(structure)]
            if structure
            else _mask_kind(mask, (batch, query_heads, query_length, key_length), dtype)
        )
        if kind is None:
            return None
        if sinks is not None and not (
            isinstance(sinks, mx.array) and sinks.shape == (query_heads,) and promoted(dtype, sinks.dtype) == dtype
        ):
            return None
        return cls(
            batch,
            query_heads,
            key_heads,
            query_length,
            key_length,
            head_dim,
            value_head_dim,
            dtype=str(dtype).removeprefix("mlx.core."),
            mask=kind,
            mask_shape=tuple(mask.shape) if isinstance(mask, mx.array) and kind != "causal" else (),
            structure=None if kind == "causal" else structure,
            sinks=sinks is not None,
            softcap=softcap,
            training=training,
        )


@dataclass(eq=False, slots=True)  # not frozen, which is dear to make: there is one for every call
class Call:
    """One attention call with its arrays, of the shapes that `problem` says. `mask` is None unless the mask reached us
    as an array."""

    problem: Problem
    q: mx.array
    k: mx.array
    v: mx.array
    scale: float
    mask: mx.array | None = None
    sinks: mx.array | None = None

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the output."""
        return promoted(self.q.dtype, self.k.dtype, self.v.dtype)


Attend = Callable[[Call], mx.array]


def phase_of(query_length: int, key_length: int) -> Phase:
    """The phase of a call that is not known to be part of training."""
    return "decode" if query_length <= _DECODED_QUERIES and query_length < key_length else "prefill"


def _several(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _mask_kind(mask: object, scores: tuple[int, ...], dtype: mx.Dtype) -> MaskKind | None:
    if mask is None:
        return "none"
    if isinstance(mask, str):
        return "causal" if mask == "causal" else None
    if not isinstance(mask, mx.array) or mask.ndim > 4:
        return None
    if any(own not in (1, full) for own, full in zip(reversed(mask.shape), reversed(scores), strict=False)):
        return None
    if mask.dtype == mx.bool_:
        return "bool"
    return "additive" if promoted(dtype, mask.dtype) == dtype else None


def promoted(dtype: mx.Dtype, *others: mx.Dtype) -> mx.Dtype:
    """The type that MLX's promotion gives `dtype` and `others` (`mx.result_type` is not in every MLX known here)."""
    total = None
    for other in others:
        if other != dtype:
            total = (mx.zeros((), dtype) if total is None else total) + mx.zeros((), other)
    return dtype if total is None else total.dtype


@dataclass(frozen=True)
class Device:
    """The machine as the planner sees it. `memory` is in bytes, `mlx` the release as `(0, 32, 4)`, `system` as
    `platform.system()` says it; on CUDA `capability` is the GPU's compute capability, `tf32` says whether MLX
    multiplies float32 matrices as TF32, and `cudnn` whether the environment lets it attend through cuDNN. `name` is
    MLX's for the device, empty for one that was made up. `own_kernel` says that our kernel for the backend is there."""

    backend: Backend
    mlx: tuple[int, ...]
    memory: int
    system: str = "Linux"
    capability: tuple[int, int] = (9, 0)
    tf32: bool = True
    name: str = ""
    cudnn: bool = True
    own_kernel: bool = False

    @classmethod
    def current(cls) -> Device:
        """The default device of this thread, as it is now."""
        gpu = mx.default_device().type == mx.DeviceType.gpu
        return _facts(gpu, mlx_version(), not gpu and library.is_ready())


@lru_cache
def _facts(gpu: bool, version: str, cpu_kernel: bool) -> Device:
    # The hardware does not change while a process lives; which of its devices is the default may.
    release, system = mlx_release(version), platform.system()
    if not gpu:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        name = str(mx.device_info().get("device_name", ""))
        return Device("cpu", release, memory, system, name=name, own_kernel=cpu_kernel)
    info = mx.device_info()
    name = str(info.get("device_name", "GPU"))
    if mx.metal.is_available():
        return Device("metal", release, int(info["memory_size"]), system, name=name)
    capability = int(info.get("compute_capability_major", 0)), int(info.get("compute_capability_minor", 0))
    tf32, cudnn = (os.environ.get(switch, "1") != "0" for switch in ("MLX_ENABLE_TF32", "MLX_CUDA_USE_CUDNN_SDPA"))
    return Device(
        "cuda", release, int(info["total_memory"]), system, capability, tf32, name, cudnn, not cache.why_not(capability)
    )


def mlx_version() -> str:
    """MLX's own version, as `"0.32.4"`."""
    version: str = mx.__version__  # type: ignore[attr-defined]  # missing in MLX's stubs
    return version


def mlx_release(version: str) -> tuple[int, ...]:
    """`"0.32.4"` and `"0.32.4.dev20260101+abc"` are both `(0, 32, 4)`; what is not a version is `()`."""
    numbers: list[int] = []
    for part in version.split(".")[:3]:
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
