"""Attention kernels of our own: what there is, by backend. Looking may compile a probe, run it and
write to the cache, so whoever makes a `Device` asks here and hands the answer in."""

from __future__ import annotations

from ..problem import Backend
from .cpu import library
from .cuda.compiling import cache
from .metal import checked


def is_there(backend: Backend, capability: tuple[int, int] = (0, 0)) -> bool:
    """Whether the kernel for `backend` can run in this process; on CUDA for a GPU of that compute
    capability."""
    if backend == "cpu":
        return library.is_ready()
    if backend == "metal":
        return not checked.why_not()
    return backend == "cuda" and not cache.why_not(capability)
