"""The guarded import of the runtime, which every codemod inserts, and the call without flags at
spots."""

from __future__ import annotations

from collections.abc import Iterable

from flash_integrate.inserted.snippets import enable_call, runtime_import
from flash_integrate.planning.codemod import Insertion
from flash_integrate.project.file_facts import FileFacts, Spot


def import_runtime(
    facts: FileFacts, *, call: bool = True, flags: bool = False, then: str = ""
) -> Insertion:
    """Below the script's last import, a blank line above; `then` is code that follows the import
    at once."""
    code = runtime_import(call=call, flags=flags) + then
    if facts.import_anchor is None:
        return Insertion(None, code, before=True)
    return Insertion((("body", facts.import_anchor),), "\n" + code)


def call_at(facts: FileFacts, spots: Iterable[Spot]) -> list[Insertion]:
    """The import, and the call without flags at each of the spots."""
    return [
        import_runtime(facts),
        *(Insertion(spot.anchor, enable_call(), before=spot.before) for spot in spots),
    ]
