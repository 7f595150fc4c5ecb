"""The cells of a notebook as Python alone: what only IPython understands becomes `pass`, on the
same line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from flash_integrate.errors import UnreadableSource
from flash_integrate.python.source import Source, parse

_CELL_MAGIC = re.compile(r"\s*%%(\S+)")
# Cell magics below which stands Python that runs once, in the notebook's own namespace.
_PYTHON_CELLS = {"time", "capture"}
# `%magic`, `!command`, `?help`, `name = %magic`, `name = !command`, `help?`
_MAGIC = re.compile(r"\s*[%!?]|[^#=]*=\s*[%!]|.*\?\s*$")
# Magics that IPython also takes without their `%`, where the line is no Python: `pip install
# mlx-lm`.
_AUTOMAGIC = re.compile(
    r"\s*(pip|conda|mamba|micromamba|uv|cd|ls|ll|pwd|cat|cp|mv|mkdir|rmdir|rm|man|env|load_ext"
    r"|reload_ext|matplotlib|autoreload|run|time|timeit|who|whos|precision|history)(\s|$)"
)
# IPython itself takes no more in a cell.
_MOST_MAGICS = 500
# Above the code when it is parsed alone: a cell has no coding cookie, whatever its first two lines
# look like.
_NO_COOKIE = ["", ""]


def as_python(lines: Sequence[str]) -> list[str]:
    """The lines of a cell without their endings, fit for `ast`; all blank for a cell that is not
    Python (`%%bash`).

    Whether a line is a magic is only asked where Python stumbles: `% b` may also continue the line
    above.

    Raises:
        UnreadableSource: the cell is neither Python nor magics; the line counts from 1 in the cell.
    """
    return list(_as_python(tuple(lines)))


@lru_cache(maxsize=256)  # a cell that an edit leaves as it is, is read once
def _as_python(lines: tuple[str, ...]) -> tuple[str, ...]:
    result = [line.rstrip("\r\n") for line in lines]
    start = next((index for index, line in enumerate(result) if line.strip()), len(result))
    while start < len(result) and (magic := _CELL_MAGIC.match(result[start])):
        if magic.group(1) not in _PYTHON_CELLS:
            return ("",) * len(result)
        result[start] = ""
        start += 1
    for _ in range(_MOST_MAGICS):
        index = _stumbles_at(result)
        if index is None:
            return tuple(result)
        # Python may stumble only at a later line of a command, `--model qwen-3b` of `!mlx_lm.lora`.
        while 0 < index < len(result) and result[index - 1].endswith("\\"):
            index -= 1
        if index >= len(result) or not (
            _MAGIC.match(result[index]) or _AUTOMAGIC.match(result[index])
        ):
            _check(result)
            return tuple(result)
        _blank(result, index)
    raise UnreadableSource(f"more than {_MOST_MAGICS} magics, which IPython does not take either")


def _stumbles_at(lines: list[str]) -> int | None:
    """The line (from 0) at which Python finds that the lines are none of its own; None if they
    are."""
    try:
        parse("\n".join([*lines, ""]))
    except SyntaxError as error:
        return max((error.lineno or 1) - 1, 0)
    except (UnreadableSource, ValueError, RecursionError, MemoryError):  # told by `_check`
        return len(lines)
    return None


def _check(lines: list[str]) -> None:
    """Whether the lines are Python, if of a release that is newer than this one.

    Raises:
        UnreadableSource: they are not; the line counts from 1 in the cell.
    """
    try:
        _ = Source(Path(), "\n".join([*_NO_COOKIE, *lines, ""]).encode(errors="replace")).tree
    except UnreadableSource as error:
        raise UnreadableSource(
            str(error), line=max((error.line or 1) - len(_NO_COOKIE), 1)
        ) from error


def _blank(lines: list[str], index: int) -> None:
    """Puts `pass` in the place of a magic, and nothing in the place of the lines on which it goes
    on."""
    while lines[index].endswith("\\") and index + 1 < len(lines):
        lines[index + 1], lines[index] = lines[index] + lines[index + 1], ""
        index += 1
    indent = len(lines[index]) - len(lines[index].lstrip())
    lines[index] = lines[index][:indent] + "pass"
