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


class Result:
    """What a script measures, with the machine, the versions and the code, in a file of RESULTS or
    at a path that is absolute; written anew with each row, so that an interruption loses none.

    `title`, `command` and `definitions` (what the words in the rows mean) are for
    docs/performance.md.
    """

    def __init__(
        self, name: str | Path, *, title: str, command: str, definitions: Sequence[str]
    ) -> None:
        self.path = RESULTS / name
        self.rows: list[dict[str, Any]] = []
        facts = machine()
        facts |= provenance(self.path.stem, str(facts["backend"]))
        self._whole = {
            "title": title,
            "command": command,
            "machine": facts,
            "definitions": list(definitions),
            "rows": self.rows,
        }

    def add(self, row: dict[str, Any]) -> None:
        """Puts a row behind those there are, and writes them."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Writes the rows that there are."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self._whole, indent=1) + "\n", encoding="utf-8")


def stamp(path: Path, facts: dict[str, Any]) -> None:
    """Adds facts, as `provenance` says them, to those of the machine in a result that is there."""
    result = json.loads(path.read_text(encoding="utf-8"))
    result["machine"] |= facts
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
