"""An error of the tool's own: reported for the file that it met, with its place, and the rest of
the repo is done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from outcomes import run

from flash_codemods.entry_points import flat_script
from flash_integrate.errors import FileError, own_errors
from flash_integrate.inserted import revert as way_back
from flash_integrate.inserted.removal import Inserted
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.python.source import Source


def test_a_codemod_that_fails_takes_no_other_file_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def match(facts: object) -> None:
        raise KeyError("a table")

    monkeypatch.setattr(flat_script, "match", match)
    script = "from mlx_lm import load\n\nload('tiny')\n"
    guarded = "from mlx_lm import load\n\nif __name__ == '__main__':\n    load('tiny')\n"
    outcomes = run(tmp_path, {"guarded.py": guarded, "script.py": script})
    assert outcomes["guarded.py"].status is Status.CHANGED
    assert outcomes["script.py"].status is Status.FAILED
    said = (
        "flash-integrate failed on it, please report this: "
        r"KeyError: 'a table' \(test_own_errors\.py:\d+\)"
    )
    assert re.fullmatch(said, outcomes["script.py"].reason)


def test_nor_does_a_revert_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = way_back.inserted

    def inserted(source: Source) -> Inserted:
        if source.path.name == "broken.py":
            raise IndexError("a line")
        return found(source)

    monkeypatch.setattr(way_back, "inserted", inserted)
    script = "import mlx_flash_runtime\n\nmlx_flash_runtime.enable_flash_attention()\n"
    for name in ("broken.py", "own.py"):
        (tmp_path / name).write_text(script)
    broken, own = revert([tmp_path], (), lambda files, stage: files)
    assert (broken.status, "please report this: IndexError: a line" in broken.reason) == (
        Status.FAILED,
        True,
    )
    assert own.status is Status.SKIPPED


@pytest.mark.parametrize("encoding", ["rot13", "hex", "zlib", "idna", "undefined", "unknown"])
def test_a_file_in_no_encoding_of_text_is_none(encoding: str, tmp_path: Path) -> None:
    script = f"# coding: {encoding}\nfrom mlx_lm import load\n\nload('tiny')\n"
    outcome = run(tmp_path, {"script.py": script})["script.py"]
    assert (outcome.status, "report this" in outcome.reason) == (Status.FAILED, False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "takes more memory than there is"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply for this tool"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nor_is_what_the_machine_refuses(error: Exception, said: str) -> None:
    with pytest.raises(FileError, match=f"^{said}$"), own_errors():
        raise error
