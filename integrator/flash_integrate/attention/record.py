"""`.flash-integrate/rewritten.json` at the top of a repo: the lines that stood where a rewrite of a
model's code stands now. `--revert` needs it; it belongs into the commit of the rewrite."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from flash_integrate.attention.rewrites import Kept
from flash_integrate.disk import reading
from flash_integrate.errors import FileError
from flash_integrate.quoting import quoted

RECORD = PurePosixPath(".flash-integrate/rewritten.json")
_NOTE = (
    "The lines that flash-integrate replaced by fused attention. "
    "flash-integrate --revert puts them back; keep this file with the code."
)
_VERSION = 1
_LIMIT = 8 << 20


def read_record(top: Path) -> tuple[bytes | None, dict[PurePosixPath, list[Kept]]]:
    """The record's bytes, and what it keeps of each file.

    Raises:
        FileError: it is not one that this tool wrote.
    """
    data = reading.read_if_there(top / RECORD, top, _LIMIT)
    if data is None:
        return None, {}
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError("of another version")
        found = {
            PurePosixPath(name): [_kept(item) for item in items]
            for name, items in document["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{quoted(RECORD)} is not as flash-integrate wrote it; "
            "take it from git, or take the rewrites back by hand"
        ) from error
    return data, found


def dumped(files: dict[PurePosixPath, list[Kept]]) -> bytes:
    """The record that keeps `files`."""
    document = {
        "note": _NOTE,
        "version": _VERSION,
        "files": {
            name.as_posix(): [_as_dict(item) for item in files[name]] for name in sorted(files)
        },
    }
    return (json.dumps(document, indent=1) + "\n").encode()


# Latin-1 gives every byte a character, whatever the file's encoding is.
def _as_dict(kept: Kept) -> dict[str, Any]:
    return {
        "function": kept.function,
        "index": kept.index,
        "places": kept.places,
        "before": kept.before.decode("latin-1").splitlines(keepends=True),
        "after": kept.after.decode("latin-1").splitlines(keepends=True),
    }


def _kept(item: dict[str, Any]) -> Kept:
    lines = ["".join(item[key]).encode("latin-1") for key in ("before", "after")]
    if type(item["index"]) is not int or type(item["places"]) is not int:
        raise ValueError("a place is no number")
    if not 0 <= item["index"] < item["places"] or not lines[1]:
        raise ValueError("a place that is none")
    return Kept(str(item["function"]), lines[0], lines[1], item["index"], item["places"])
