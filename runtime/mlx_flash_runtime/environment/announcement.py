"""What the package says unasked. Above all that flash attention is on: when a route of ours first
takes a call, so that whoever reads it knows that attention really runs there. On a terminal it is
said at once, since the first call may come in the middle of a dialogue or a table."""

from __future__ import annotations

import sys
from collections.abc import Callable

from . import workers
from .log import logger, say
from .variables import is_quiet

_waiting: Callable[[], str] | None = None
_is_said = False
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


def say_when_it_runs(message: Callable[[], str] | None, *, waits: bool = False) -> None:
    """Has `message` wait for `it_runs`, in the place of one that waits already, and be made then:
    programs choose their device after this. None: there is nothing to say any more. Said at once
    where calls have taken a route of ours before, and on a terminal unless it `waits` there too."""
    global _waiting, _is_said
    _waiting, _is_said = message, False
    if message is not None and (_has_run or (_is_on_terminal() and not waits)):
        _say(message())


def has_run() -> bool:
    """Whether a call of this process has taken a route of ours."""
    return _has_run


def unsaid() -> str | None:
    """The message that waits in a process in which no call has taken a route of ours."""
    return None if _has_run or _waiting is None else _waiting()


def it_runs() -> None:
    """Says what waits."""
    global _waiting, _has_run
    if _waiting is None:
        return
    message, _waiting, _has_run = _waiting, None, True
    if not _is_said:
        _say(message())


def _say(message: str) -> None:
    """Says it once a program: not in each of its workers."""
    global _is_said
    _is_said = True
    if not workers.is_worker():
        announce(message)
        workers.speak_for_workers()


def _is_on_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):  # closed, or a stream of the program's own
        return False
