"""Where the runtime can be had: by its name from an index once it is published there, until then
from where it was installed."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from flash_integrate.vendor.requirement import PACKAGE

TOOL = "flash-integrate"
_FOLDER = "runtime"
"""Where the package lies in the repo of this tool."""
# `git@github.com:owner/repo.git`
_SCP = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!/)[^\s]+")


@dataclass(frozen=True)
class Origin:
    """An address of the runtime's sources: `git` and the folder in it, or a `folder` of this
    machine; neither for an index, where the name is enough."""

    git: str = ""
    folder: str = ""

    @property
    def requirement(self) -> str:
        """The runtime as pip is asked for it."""
        if self.git:
            return f"{PACKAGE} @ git+{self.git}#subdirectory={_FOLDER}"
        return f"{PACKAGE} @ {Path(self.folder).as_uri()}" if self.folder else PACKAGE

    @property
    def poetry(self) -> dict[str, str]:
        """The same as Poetry writes it; empty for any version from an index."""
        if self.git:
            return {"git": self.git, "subdirectory": _FOLDER}
        return {"path": self.folder} if self.folder else {}

    @property
    def remark(self) -> str:
        """What to know of the address; nothing of a name."""
        if self.git:
            return f"{PACKAGE} is not on PyPI: that is the git address of its sources."
        if self.folder:
            return (
                f"{PACKAGE} is not on PyPI: {self.folder} is where it was installed from on this "
                "machine; elsewhere put the git address of its sources there."
            )
        return ""


def origin() -> Origin:
    """Where the installed runtime comes from, as its installer recorded it (PEP 610); without one,
    where this tool comes from."""
    runtime = _recorded(PACKAGE)
    if runtime is not None:
        return _of(runtime, "")
    return _of(_recorded(TOOL) or {}, _FOLDER)


def _recorded(name: str) -> dict[str, Any] | None:
    """What was recorded of a package's source; nothing for one from an index, None for one that is
    not installed."""
    try:
        text = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _of(recorded: dict[str, Any], below: str) -> Origin:
    url = str(recorded.get("url", ""))
    if (recorded.get("vcs_info") or {}).get("vcs") == "git":
        return Origin(git=_without_user(url))
    if not url.startswith("file:") or "dir_info" not in recorded:
        return Origin()
    folder = Path(unquote(urlsplit(url).path), below)
    remote = _remote_of(folder) if folder.is_dir() else ""
    return Origin(git=remote) if remote else Origin(folder=str(folder))


def _remote_of(folder: Path) -> str:
    """The git address that a clone was made of; nothing if it has none, or a folder."""
    command = ["git", "-C", str(folder), "config", "--get", "remote.origin.url"]
    try:
        url = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if _SCP.fullmatch(url):
        host, _, path = url.partition(":")
        return f"ssh://{host}/{path}"
    return _without_user(url) if urlsplit(url).scheme in ("https", "http", "ssh") else ""


def _without_user(url: str) -> str:
    """An address without the name and token that may stand in it."""
    parts = urlsplit(url)
    if parts.scheme == "ssh":
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
