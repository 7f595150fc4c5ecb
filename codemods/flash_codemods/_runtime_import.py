"""The guarded import of the runtime, which every codemod inserts, and the call without flags before statements."""

from __future__ import annotations

from flash_integrate.codemod import Insertion
from flash_integrate.facts.file_facts import FileFacts
from flash_integrate.snippets import enable_call, runtime_import
from flash_integrate.syntax import Place


def import_runtime(facts: FileFacts, *, call: bool = True, flags: bool = False, then: str = "") -> Insertion:
    """Below the script's last import, a blank line above; `then` is code that follows the import at once."""
    code = runtime_import(call=call, flags=flags) + then
    if facts.import_anchor is None:
        return Insertion(None, code, before=True)
    return Insertion((("body", facts.import_anchor),), "\n" + code)


def call_before(facts: FileFacts, places: list[Place]) -> list[Insertion]:
    """The import, and the call without flags before each of the statements at `places`."""
    return [import_runtime(facts), *(Insertion(place, enable_call(), before=True) for place in places)]
