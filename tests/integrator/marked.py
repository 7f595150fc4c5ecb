"""Files before and after, written as one."""

from __future__ import annotations

import re


def pair(marked: str) -> tuple[bytes, bytes]:
    """A file before and after, written as one: what stands between « and » is what is added."""
    return re.sub("«.*?»", "", marked, flags=re.DOTALL).encode(), re.sub(
        "[«»]", "", marked
    ).encode()
