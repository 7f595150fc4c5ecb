"""The commands that a project's packaging installs: which function of which file each one starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from flash_integrate.facts.imports import Import, Project

_MANIFESTS = ("pyproject.toml", "setup.cfg", "setup.py")
# `name = "package.module:function"` in TOML, `name = package.module:function` in setup.cfg and setup.py.
_ENTRY_POINT = re.compile(rb"=\s*[\"']?([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def entry_points(project: Project) -> Iterator[tuple[PurePosixPath, str]]:
    """The files of the project, and the names in them, that its manifests have installed as commands."""
    folders = {folder for path in project.scans for folder in path.parents}
    for manifest in sorted(folder / name for folder in folders for name in _MANIFESTS):
        for module, function in _ENTRY_POINT.findall(project.read(manifest)):
            for target in project.resolve(Import(0, module.decode()), manifest):
                yield target, function.decode()
