"""What the owner of a Mac runs once, to fill the rows of its chip in docs/performance.md.

    make measure, or python benchmarks/measure.py [--quick] [--into FOLDER]

Takes about ten minutes, in which nothing else should run. Everything is in one file, to be sent
with a pull request: which Mac, macOS and versions, the commit, what MLX fuses there, and the
results with their checks.
With --quick there are but a few rows, to see that it works. Exits with 1 if a result
is wrong; a measurement whose time is up has the rows that it got to.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from depends import commit, provenance
from measuring import run
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from store import RESULTS

from mlx_flash_runtime.tools.bench.grid import WRONG
from mlx_flash_runtime.tools.bench.machine import machine

_BENCH = "mlx-flash bench"
# Of each measurement its command and the seconds that it may take.
STEPS = {
    "grid": (f"{_BENCH} grid --preset claims --dtype float32,bfloat16", 100),
    "routes": ("python benchmarks/routes.py mac", 240),
    "workflow_lora": (f"{_BENCH} workflow lora --config 1b --batch 1 --length 512,2000", 140),
    "workflow_chat": (
        f"{_BENCH} workflow chat --config 1b --length 512,2000 --new-tokens 32,256",
        200,
    ),
}
QUICK_STEPS = {
    "grid": (f"{_BENCH} grid --preset claims --batch 1 --length 64 --head-dim 32 --rounds 3", 600),
    "routes": ("python benchmarks/routes.py mac --only 'length 100,' --rounds 3", 600),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few rows, to see that it works")
    parser.add_argument(
        "--into", type=Path, default=RESULTS, metavar="FOLDER", help="where the file goes"
    )
    args = parser.parse_args()
    facts = machine()
    path = args.into / f"measured_{slug(str(facts['device']))}.json"
    args.into.mkdir(parents=True, exist_ok=True)
    steps = QUICK_STEPS if args.quick else STEPS
    results = measured(steps, str(facts["backend"]))
    whole = {"machine": facts, "commit": commit(), "fused": fused(), **results}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    for name, last_line in whole["unfinished"].items():
        print(f"{name}: failed, or not finished in its time: {last_line}", file=sys.stderr)
    wrong = wrong_rows(whole["results"])
    for name in wrong:
        print(f"{name}: a result is wrong", file=sys.stderr)
    return 1 if wrong else 0


def measured(steps: dict[str, tuple[str, int]], backend: str) -> dict[str, Any]:
    """`results` by the name of the step, as each wrote them, and of the `unfinished` the last line
    that each printed."""
    results, unfinished = {}, {}
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with tempfile.TemporaryDirectory() as folder, Progress(*columns) as bar:
        task = bar.add_task("", total=sum(seconds for _, seconds in steps.values()))
        done = 0
        for name, (command, seconds) in steps.items():
            bar.update(task, description=name.replace("_", " "))
            begin, path = time.monotonic(), Path(folder, f"{name}.json")
            advance = partial(_advance, bar, task, done, begin, seconds)
            printed = Path(folder, f"{name}.txt")
            code = provenance(name, backend)
            ended_well = run(command, path, code, begin + seconds, advance, printed)
            if not ended_well:
                lines = printed.read_text(encoding="utf-8", errors="replace").split("\n")
                unfinished[name] = next((line for line in reversed(lines) if line.strip()), "")
            if path.exists():
                results[name] = json.loads(path.read_text(encoding="utf-8"))
            done += seconds
            bar.update(task, completed=done)
    return {"results": results, "unfinished": unfinished}


def _advance(bar: Progress, task: Any, done: int, begin: float, seconds: int) -> None:
    bar.update(task, completed=done + min(seconds, time.monotonic() - begin))


def slug(device: str) -> str:
    """`apple_m3_max` of `Apple M3 Max`."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_") or "unknown"


def fused() -> dict[str, Any] | None:
    """What MLX fuses here, as `mlx-flash doctor --record` says; None where it can't be asked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fused.json")
        command = [sys.executable, "-m", "mlx_flash_runtime.tools.cli", "doctor", "--record"]
        done = subprocess.run([*command, str(path)], capture_output=True, check=False)
        return json.loads(path.read_text(encoding="utf-8")) if done.returncode == 0 else None


def wrong_rows(results: dict[str, Any]) -> list[str]:
    """The names of the results of which a row did not pass its check."""
    wrong = []
    for name, result in results.items():
        if any(row.get("wrong") or row.get("ours_status") == WRONG for row in result["rows"]):
            wrong.append(name)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
