"""Every measurement behind docs/performance.md, on one machine: a command each, a file each.

    python benchmarks/suite.py cpu|h200 [--only TEXT] [--into FOLDER] [--seconds N]
                                         [--commit SHA] [--list]

Writes NAME_MACHINE.json into benchmarks/results, each as soon as it is measured. After that,
`python benchmarks/performance_page.py` makes the page anew. On a Mac, `measure.py` is what to run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from depends import provenance
from store import RESULTS, stamp

_POLL = 0.2  # seconds
_LAST_WORDS = 10  # seconds that an interrupted measurement has to write what it measured
_LENGTHS = "512,2000,8100,16200"  # all but the first are no multiples of 128
_BENCH = "mlx-flash bench"
_GRID = f"{_BENCH} grid --preset claims --dtype float32,bfloat16"
_GRID_CAUSAL = (
    f"{_BENCH} grid --preset claims --batch 1 --head-dim 64 --length 64,128,256,512,1024 "
    "--mask causal --phase prefill,train"
)


def _workflow(name: str, options: str) -> str:
    return f"{_BENCH} workflow {name} --config 1b {options}"


_SUITES = {
    "cpu": {
        "grid": _GRID,
        "grid_causal": _GRID_CAUSAL,
        "compare": "python benchmarks/compare_script.py",
        "policy": "python benchmarks/policy.py cpu",
        **{
            f"workflow_{name}": f"{_BENCH} workflow {name} --length 128,512,1000"
            for name in ("lora", "qlora", "full", "chat", "batch", "evaluate")
        },
    },
    "h200": {
        "grid": _GRID,
        "workflow_lora": _workflow("lora", f"--batch 1 --length {_LENGTHS}"),
        "workflow_full": _workflow("full", f"--batch 1 --length {_LENGTHS}"),
        "workflow_chat_gemma": _workflow("chat", f"--shape gemma --length {_LENGTHS}"),
        "workflow_chat_window": _workflow("chat", f"--shape window --length {_LENGTHS}"),
        "routes": "python benchmarks/routes.py h200",
        "policy": "python benchmarks/policy.py h200",
        "cuda_kernel": "python benchmarks/cuda_kernel.py h200",
        "quantized_cache": "python benchmarks/quantized_cache.py h200",
        "workflow_batch_window": _workflow(
            "batch", f"--shape window --batch 4 --length {_LENGTHS}"
        ),
        "workflow_batch_gemma": _workflow("batch", f"--shape gemma --batch 4 --length {_LENGTHS}"),
        "workflow_chat": _workflow("chat", f"--length {_LENGTHS}"),
        "workflow_evaluate": _workflow("evaluate", f"--batch 1 --length {_LENGTHS}"),
        "workflow_qlora": _workflow("qlora", "--batch 1 --length 2000"),
    },
}
MACHINES = tuple(_SUITES)
_BACKENDS = {"cpu": "cpu", "h200": "cuda"}


def commands(machine: str) -> dict[str, str]:
    """The command of each measurement, by the name of its file without .json."""
    return {f"{name}_{machine}": command for name, command in _SUITES[machine].items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="measurements with this in their name"
    )
    parser.add_argument(
        "--into", type=Path, default=RESULTS, metavar="FOLDER", help="where the files go"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        metavar="N",
        help="interrupt it after so long",
    )
    parser.add_argument("--commit", metavar="SHA", help="what is measured, outside of a checkout")
    parser.add_argument(
        "--list", action="store_true", help="print the commands instead of running them"
    )
    args = parser.parse_args()
    chosen = {
        name: command for name, command in commands(args.machine).items() if args.only in name
    }
    if not chosen:
        parser.error(
            f"no measurement has {args.only!r} in its name: {', '.join(commands(args.machine))}"
        )
    args.into.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    unfinished = []
    for name, command in chosen.items():
        path = args.into / f"{name}.json"
        print(f"$ {command} --json {path}", flush=True)
        code = provenance(name, _BACKENDS[args.machine])
        code["commit"] = args.commit or code["commit"]
        if not args.list and not run(command, path, code, end):
            unfinished.append(name)
    if unfinished:
        print(f"failed, or not finished in time: {', '.join(unfinished)}", file=sys.stderr)
    return 1 if unfinished else 0


def run(
    command: str,
    path: Path,
    code: dict[str, Any],
    end: float,
    meanwhile: Callable[[], None] = lambda: None,
    output: IO[bytes] | None = None,
) -> bool:
    """Whether the command ended well, and before `end`. When the time is up it is interrupted: the
    rows that it has by then are in its file, with `code`, what is measured, as `provenance` says
    it. What was tuned on this machine does not count. `meanwhile` is called while it runs, and
    `output` gets what it prints."""
    program, *arguments = shlex.split(f"{command} --json {shlex.quote(str(path))}")
    own = ["-m", "mlx_flash_runtime.tools.cli"] if program == "mlx-flash" else []
    if time.monotonic() >= end:
        return False
    before = _written(path)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MLX_FLASH_CALIBRATION": str(Path(folder, "calibration.json"))}
        process = subprocess.Popen(
            [sys.executable, *own, *arguments],
            env=environment,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended_well = _wait(process, end, meanwhile)
        finally:
            with suppress(ProcessLookupError):  # what it started may outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if _written(path) != before:
        stamp(path, code)
    return ended_well


def _wait(process: subprocess.Popen[bytes], end: float, meanwhile: Callable[[], None]) -> bool:
    """Whether it ends well before `end`; interrupts it then, and waits for its last words."""
    while process.poll() is None:
        if time.monotonic() >= end:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS)
            return False
        meanwhile()
        time.sleep(_POLL)
    return process.returncode == 0


def _written(path: Path) -> int | None:
    """When the file was written; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
