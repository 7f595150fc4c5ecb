"""Where the measurements of this folder keep their results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depends import provenance

from mlx_flash_runtime.tools.bench.machine import machine

RESULTS = Path(__file__).parent / "results"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Of a measurement that any machine may have: its name, and --json for another file than that
    of `place`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machine", help="the last part of the file's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of that file")
    return parser


def place(args: argparse.Namespace, measurement: str) -> Path:
    """Where its result goes, as `write` takes it."""
    return args.json.absolute() if args.json else Path(f"{measurement}_{args.machine}.json")


def write(
    name: str | Path,
    rows: list[dict[str, Any]],
    *,
    title: str = "",
    command: str = "",
    definitions: Sequence[str] = (),
) -> Path:
    """Writes rows with the machine, the versions and the code they were measured with into RESULTS,
    or to a path that is absolute.

    `title`, `command` and `definitions` (what the words in the rows mean) are for
    docs/performance.md.
    """
    path = RESULTS / name
    path.parent.mkdir(exist_ok=True)
    facts = machine()
    result = {
        "title": title,
        "command": command,
        "machine": facts | provenance(path.stem, str(facts["backend"])),
        "definitions": list(definitions),
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def stamp(path: Path, facts: dict[str, Any]) -> None:
    """Adds facts, as `provenance` says them, to those of the machine in a result that is there."""
    result = json.loads(path.read_text(encoding="utf-8"))
    result["machine"] |= facts
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
