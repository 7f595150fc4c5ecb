"""The planner that patched calls go through, while MLX is patched."""

from __future__ import annotations

import os
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


class _OfThread(threading.local):
    pauses = 0


_of_thread = _OfThread()


def install(new: Planner | None) -> None:
    """Has calls go through `new`, after the pauses that there are; None for no planner."""
    global planner, installed
    with _lock:
        installed = new
        planner = None if _pauses else new


@contextmanager
def paused() -> Iterator[None]:
    """Stock attention in this thread for the length of a `with` block, at no cost worth measuring
    for calls outside of it: the patch stays in place and passes calls on. Pauses may overlap."""
    _pause(1)
    try:
        yield
    finally:
        _pause(-1)


def is_paused() -> bool:
    """Whether this thread is in a pause."""
    return _of_thread.pauses > 0


def of_this_thread() -> Planner | None:
    """The planner for calls of this thread. `planner` is the answer for all threads, and None while
    any of them is in a pause."""
    return None if is_paused() else installed


def _pause(change: int) -> None:
    global planner, _pauses
    with _lock:
        _of_thread.pauses += change
        _pauses += change
        planner = None if _pauses else installed


def _forked() -> None:
    """Only the thread that forked is left in a child: others' pauses are over, their lock is
    free."""
    global planner, _pauses, _lock
    _lock = threading.Lock()
    _pauses = _of_thread.pauses
    planner = None if _pauses else installed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
