"""Every measurement behind docs/performance.md, on one machine: a command each, a file each.

    python benchmarks/suite.py cpu|h200|metal [--only TEXT] [--list]

Writes benchmarks/results/NAME_MACHINE.json; `python benchmarks/performance_page.py` then makes the page anew.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

_LONG = "512,2000,4000,8100,16200"  # all but the first are no multiples of 128
_SUITES = {
    "cpu": {
        "grid": "grid --dtype float32,bfloat16",
        "grid_causal": "grid --batch 1 --head-dim 64 --length 64,128,256,512,1024 --mask causal --phase prefill,train",
        **{
            f"workflow_{name}": f"workflow {name} --length 128,512,1000"
            for name in ("lora", "qlora", "full", "chat", "batch", "evaluate")
        },
    },
    "h200": {
        "grid": "grid --dtype float32,bfloat16",
        "workflow_lora": f"workflow lora --config 1b --batch 1 --length {_LONG}",
        "workflow_full": f"workflow full --config 1b --batch 1 --length {_LONG}",
        "workflow_qlora": "workflow qlora --config 1b --batch 1 --length 2000",
        "workflow_chat": f"workflow chat --config 1b --length {_LONG}",
        "workflow_chat_window": f"workflow chat --config 1b --shape window --length {_LONG}",
        "workflow_chat_gemma": f"workflow chat --config 1b --shape gemma --length {_LONG}",
        "workflow_batch_window": f"workflow batch --config 1b --shape window --batch 4 --length {_LONG}",
        "workflow_batch_gemma": f"workflow batch --config 1b --shape gemma --batch 4 --length {_LONG}",
        "workflow_evaluate": "workflow evaluate --config 1b --batch 1 --length 2000,8100",
    },
    "metal": {
        "grid": "grid --dtype float32,bfloat16",
        **{
            f"workflow_{name}": f"workflow {name} --config 1b --batch 1 --length 512,2000"
            for name in ("lora", "qlora", "full", "evaluate")
        },
        "workflow_chat": "workflow chat --config 1b --length 512,2000,8100",
        "workflow_batch": "workflow batch --config 1b --batch 4 --length 512,2000",
    },
}
MACHINES = tuple(_SUITES)


def commands(machine: str) -> dict[str, tuple[Path, str]]:
    """The file and the command of each measurement, by name."""
    return {
        name: (RESULTS / f"{name}_{machine}.json", f"mlx-flash bench {arguments}")
        for name, arguments in _SUITES[machine].items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument("--only", default="", help="measurements with this in their name")
    parser.add_argument("--list", action="store_true", help="print the commands instead of running them")
    args = parser.parse_args()
    failed = []
    for name, (path, command) in commands(args.machine).items():
        if args.only not in name:
            continue
        print(f"$ {command} --json {path}", flush=True)
        if not args.list:
            words = shlex.split(command)[1:]
            run = [sys.executable, "-m", "mlx_flash_runtime.cli", *words, "--json", str(path)]
            if subprocess.run(run).returncode:
                failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
