"""The commands that a project's packaging installs: which function of which file each one starts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from flash_integrate.facts.imports import Import, Project

_MANIFESTS = ("pyproject.toml", "setup.cfg", "setup.py")
# `name = "package.module:function"` in TOML, `name = package.module:function` in setup.cfg and setup.py.
_ENTRY_POINT = re.compile(rb"=\s*[\"']?([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def console_scripts(project: Project) -> dict[PurePosixPath, set[str]]:
    """For each file of the project the names of its functions that are installed as commands."""
    folders = {folder for path in project.scans for folder in path.parents}
    found: dict[PurePosixPath, set[str]] = {}
    for manifest in sorted(folder / name for folder in folders for name in _MANIFESTS):
        for module, function in _ENTRY_POINT.findall(project.read(manifest)):
            for target in project.resolve(Import(0, module.decode()), manifest):
                found.setdefault(target, set()).add(function.decode())
    return found
