"""The guarded import of the runtime, which every codemod inserts, and the call without flags at
spots."""

from __future__ import annotations

from collections.abc import Iterable

from flash_integrate.inserted.snippets import enable_call, runtime_import
from flash_integrate.planning.starts import Starts
from flash_integrate.project.workspace import FileFacts, Spot
from flash_integrate.python.edits import Insertion


def import_runtime(
    facts: FileFacts, *, call: bool = True, flags: bool = False, then: str = ""
) -> Insertion:
    """Below the script's last import, a blank line above; `then` is code that follows the import
    at once."""
    code = runtime_import(call=call, flags=flags) + then
    anchor = facts.get(Starts).import_anchor
    if anchor is None:
        return Insertion(None, code, before=True)
    return Insertion(anchor.place, "\n" + code)


def call_at(facts: FileFacts, spots: Iterable[Spot]) -> list[Insertion]:
    """The import, and the call without flags at each of the spots."""
    return [
        import_runtime(facts),
        *(Insertion(spot.anchor, enable_call(), before=spot.before) for spot in spots),
    ]
