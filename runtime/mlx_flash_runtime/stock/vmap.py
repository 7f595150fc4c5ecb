"""Whether a call is made inside of `mx.vmap`, which MLX does not tell Python: the patch says it,
see `patching/tracing.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _OfThread(threading.local):
    depth = 0


_of_thread = _OfThread()


def is_mapped() -> bool:
    """Whether this thread traces a function for `mx.vmap`."""
    return _of_thread.depth > 0


@contextmanager
def mapping() -> Iterator[None]:
    """Says so for the length of a `with` block."""
    _of_thread.depth += 1
    try:
        yield
    finally:
        _of_thread.depth -= 1
