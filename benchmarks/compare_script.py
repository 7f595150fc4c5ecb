"""`mlx-flash compare` on one of the ten example scripts, as a user runs it: scoring a text in
windows of 1,024 tokens.

    python benchmarks/compare_script.py [--json FILE]

Patches a copy of the script, makes a tiny model and a text, and writes
benchmarks/results/compare_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from store import RESULTS

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SCRIPT = FIXTURES / "mlx_scripts" / "inference_scripts" / "mlx" / "inference.py"
COMMAND = "python inference.py --model llama score --file text.txt --context 1024"
RUNS, CHARACTERS = 7, 12_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "compare_cpu.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SCRIPT, folder)
        subprocess.run([sys.executable, FIXTURES / "tiny_models.py", folder], check=True)
        subprocess.run([sys.executable, "-m", "flash_integrate", folder / SCRIPT.name], check=True)
        (folder / "text.txt").write_text(text(folder / "data" / "train.jsonl"), encoding="utf-8")
        # `python` is this one.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        compare = [
            sys.executable,
            "-m",
            "mlx_flash_runtime.tools.cli",
            "compare",
            "--runs",
            str(RUNS),
        ]
        command = [*compare, "--json", str(args.json.absolute()), "--", *COMMAND.split()]
        return subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, check=False
        ).returncode


def text(data: Path) -> str:
    """The data set's sentences, over and over, about so many CHARACTERS."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    sentences = " ".join(row["completion"] for row in rows)
    return (sentences + " ") * (CHARACTERS // len(sentences) + 1)


if __name__ == "__main__":
    sys.exit(main())
