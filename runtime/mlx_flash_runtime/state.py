"""The planner that patched calls go through, while MLX is patched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .planner import Planner

planner: Planner | None = None


@contextmanager
def paused() -> Iterator[None]:
    """Stock attention for the length of a `with` block, at no cost worth measuring: the patch stays in place and passes
    every call on, those of other threads too."""
    global planner
    before, planner = planner, None
    try:
        yield
    finally:
        planner = before
