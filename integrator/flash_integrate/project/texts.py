"""The texts of a repo in which commands stand: shell scripts, manuals, CI, other programs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from flash_integrate.disk.reading import SETTINGS_LIMIT, read
from flash_integrate.errors import FileError
from flash_integrate.project.discover import is_skipped
from flash_integrate.project.workspace import Workspace

_SUFFIXES = {".sh", ".md", ".py", ".yml", ".yaml"}
_CI = ".github"


class Texts:
    """Looks for words in the texts of one base folder."""

    def __init__(self, workspace: Workspace) -> None:
        self._base = workspace.project.base
        self._is_alone = bool(workspace.given)

    def using(self, script: PurePosixPath, words: Iterable[str]) -> list[tuple[PurePosixPath, int]]:
        """The lines on which one of `words` stands, in texts that name a script."""
        any_word = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        pattern = re.compile(rf"(?<![\w-])(?:{any_word})(?![\w-])".encode())
        names = re.compile(rf"\b{re.escape(script.stem)}\b".encode())
        found = []
        for name, data in self._holding_options:
            if name != script and names.search(data):
                numbers = {
                    data.count(b"\n", 0, match.start()) + 1 for match in pattern.finditer(data)
                }
                found += [(name, number) for number in sorted(numbers)]
        return found

    @cached_property
    def _holding_options(self) -> list[tuple[PurePosixPath, bytes]]:
        """The texts that hold a beginning of one of the flags, which few do."""
        if self._is_alone:
            return []
        # The dashes first: Python finds those ten times as fast as it tries a look behind.
        option = re.compile(rb"--(?<![\w-]--)[df][a-z-]*(?![\w-])")
        return [(name, data) for name, data in self._all() if option.search(data)]

    def _all(self) -> Iterator[tuple[PurePosixPath, bytes]]:
        for folder, folders, files in os.walk(self._base):
            folders[:] = sorted(name for name in folders if name == _CI or not is_skipped(name))
            for name in sorted(files):
                path = Path(folder, name)
                if path.suffix in _SUFFIXES or name == "Makefile":
                    try:
                        data = read(path, self._base, SETTINGS_LIMIT)
                    except FileError:  # a note does not depend on it
                        continue
                    yield PurePosixPath(path.relative_to(self._base).as_posix()), data
