"""The git checkout that holds a file, and links that lead out of it."""

from __future__ import annotations

import os
from pathlib import Path


def checkout_of(folder: Path) -> Path | None:
    """The top of the git checkout that holds `folder`, if any."""
    return next(
        (parent for parent in (folder, *folder.parents) if os.path.exists(parent / ".git")), None
    )


def leads_out(path: Path) -> Path | None:
    """The link on the way to `path` that leads out of the checkout in which it lies, if any.
    Outside a checkout a link to a file is not to leave its folder; one to a folder is the way that
    somebody has laid to it."""
    absolute = path.absolute()
    for step in (absolute, *absolute.parents):
        if step.is_symlink():
            top = checkout_of(step.parent) or (None if step.is_dir() else step.parent)
            if top is not None and not step.resolve().is_relative_to(top.resolve()):
                return step
    return None
