"""The results of Macs, a file each, as `measure.py` writes them; and the chips that have none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHIPS = (
    "M1",
    "M1 Pro",
    "M1 Max",
    "M1 Ultra",
    "M2",
    "M2 Pro",
    "M2 Max",
    "M2 Ultra",
    "M3",
    "M3 Pro",
    "M3 Max",
    "M3 Ultra",
    "M4",
    "M4 Pro",
    "M4 Max",
    "M5",
    "M5 Pro",
    "M5 Max",
)


@dataclass(frozen=True)
class Mac:
    """One file: the chip as MLX names it, such as `Apple M3 Max`, and what each measurement wrote,
    by its name in `measure.py`."""

    chip: str
    results: dict[str, dict[str, Any]]


def read(folder: Path) -> list[Mac]:
    """Those that there are, by the names of their files; of other machines, as a test has made
    them, there are none here."""
    macs = []
    for path in sorted(folder.glob("measured_*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["machine"]["backend"] == "metal":
            macs.append(Mac(data["machine"]["device"], data["results"]))
    return macs


def unmeasured(macs: list[Mac]) -> list[str]:
    """The chips that no file is of."""
    measured = {mac.chip.removeprefix("Apple ") for mac in macs}
    return [chip for chip in CHIPS if chip not in measured]
