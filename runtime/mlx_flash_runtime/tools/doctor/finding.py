"""What an examination is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "missing", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Its status is `missing` for something optional, `warning`
    where it works but could be better, `broken` where it keeps flash attention from working;
    `advice` says what to do, if anything."""

    name: str
    status: Status
    value: str
    advice: str = ""
