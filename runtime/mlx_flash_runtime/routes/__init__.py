"""The routes, in the order in which they are asked: a file a route, none of which imports
another."""

from __future__ import annotations

from .blockwise import blockwise
from .cpu_kernel import cpu_kernel
from .cuda_kernel import cuda_kernel
from .lowered import lowered
from .metal_kernel import metal_kernel
from .query_blocks import query_blocks
from .reference import reference
from .route import Route
from .stock import forced, native, unfused

ROUTES: tuple[Route, ...] = (
    cuda_kernel,
    lowered,
    metal_kernel,
    native,
    forced,
    cpu_kernel,
    query_blocks,
    blockwise,
    unfused,
    reference,
)

__all__ = [
    "ROUTES",
    "Route",
    "blockwise",
    "cpu_kernel",
    "cuda_kernel",
    "forced",
    "lowered",
    "metal_kernel",
    "native",
    "query_blocks",
    "reference",
    "unfused",
]
