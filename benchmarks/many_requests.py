"""What a process that answers requests keeps of them: memory, and what the runtime remembers.

    PYTHONPATH=fixtures python benchmarks/many_requests.py [--requests N] [--every N]

A tiny model with windows answers requests of 2 to 120 tokens in mlx-lm's continuous batches, on
MLX's own attention and then with the patch; a line of JSON after every 500 says how many MiB MLX
holds, how many the process has in memory (on Linux), and how many plans are kept.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import mlx.core as mx

from batched_requests import in_batches, prompts
from mlx_flash_runtime import enable_flash_attention
from mlx_flash_runtime.patching import patch
from model_families import make

LONGEST = 120


def resident_mib() -> float | None:
    """What the process has in memory, as Linux tells it."""
    told = Path("/proc/self/statm")
    if not told.exists():
        return None
    return round(int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def main() -> None:
    """Prints the lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--every", type=int, default=500)
    options = parser.parse_args()
    model = make("gemma3_text")
    for enabled in (False, True):
        enable_flash_attention(enabled)
        for done in range(options.every, options.requests + 1, options.every):
            in_batches(model, prompts(options.every + done // options.every, LONGEST))
            planner = patch.active()
            row = {
                "patched": enabled,
                "requests": done,
                "mlx_mib": round(mx.get_active_memory() / 2**20, 2),
                "resident_mib": resident_mib(),
                "plans": 0 if planner is None else len(planner.plans),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
