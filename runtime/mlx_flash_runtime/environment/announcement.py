"""What the package says unasked. Above all that flash attention is on: when a route of ours first
takes a call, not before, so that whoever reads it knows that attention really runs there."""

from __future__ import annotations

from . import workers
from .log import logger, say
from .variables import is_quiet

_waiting: str | None = None
_has_run = False


def announce(message: str) -> None:
    """Logs `message` as information; where nobody has set up logging, it goes to stderr as
    warnings would anyway. `MLX_FLASH_QUIET=1` keeps it to itself."""
    if is_quiet():
        return
    if logger.hasHandlers():
        logger.info(message)
    else:
        say(message)


def say_when_it_runs(message: str | None) -> None:
    """Has `message` wait for `it_runs`, in the place of one that waits already; None: there is
    nothing to say any more."""
    global _waiting
    _waiting = message


def unsaid() -> str | None:
    """The message that waits in a process in which no call has taken a route of ours."""
    return None if _has_run else _waiting


def it_runs() -> None:
    """Says what waits, once a program: not in each of its workers."""
    global _waiting, _has_run
    if _waiting is None:
        return
    message, _waiting, _has_run = _waiting, None, True
    if not workers.is_worker():
        announce(message)
        workers.speak_for_workers()
