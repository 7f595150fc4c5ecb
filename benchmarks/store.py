"""Where the measurements of this folder keep their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_flash_runtime.bench.machine import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes rows with the machine and the versions they were measured on."""
    path = RESULTS / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return path
