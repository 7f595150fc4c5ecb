"""The planner that patched calls go through, while MLX is patched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..planning.planner import Planner

# What calls go through now, and what the patch was installed with: the same but for pauses.
planner: Planner | None = None
installed: Planner | None = None

_pauses = 0
_lock = threading.Lock()


def install(new: Planner | None) -> None:
    """Has calls go through `new`, after the pauses that there are; None for no planner."""
    global planner, installed
    with _lock:
        installed = new
        planner = None if _pauses else new


@contextmanager
def paused() -> Iterator[None]:
    """Stock attention for the length of a `with` block, at no cost worth measuring: the patch
    stays in place and passes every call on, those of other threads too. Pauses may overlap."""
    _pause(1)
    try:
        yield
    finally:
        _pause(-1)


def _pause(change: int) -> None:
    global planner, _pauses
    with _lock:
        _pauses += change
        planner = None if _pauses else installed
