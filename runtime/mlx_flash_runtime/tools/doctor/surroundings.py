"""What stands around MLX: the system, a compiler, packages. Nothing here needs MLX itself, except
what is known of libraries of models."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from ...environment.commands import finish, start
from .finding import Finding

_COMPILER_SECONDS = 60  # for its name and version


def system() -> Finding:
    release = platform.release().partition("-")[0]
    value = (
        f"{platform.system()} {release} {platform.machine()}, Python {platform.python_version()}"
    )
    if sys.platform == "darwin" and platform.machine() != "arm64":
        advice = "use a Python for Apple silicon (arm64): MLX needs it for the GPU"
        return Finding("system", "warning", value, advice)
    return Finding("system", "ok", value)


def compiler() -> Finding:
    """`mx.compile` on the CPU calls it by the name g++, on every system but Windows."""
    path = shutil.which("g++")
    if path is not None:
        try:
            process = start([path, "--version"])
            printed = finish(process, _COMPILER_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("compiler", "warning", f"{path} cannot be run: {error}")
        if process.returncode == 0:
            return Finding("compiler", "ok", (printed.splitlines() or [path])[0])
    install = "apt install g++, or your system's equivalent"
    if sys.platform == "darwin":
        install = "xcode-select --install"
    return Finding("compiler", "missing", "no g++: mx.compile does nothing on the CPU", install)


def library(name: str, advice: str = "") -> Finding | None:
    """Whether a library of models is there, with every place in it that is patched; without it,
    `advice`, or nothing to say."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", "not installed", advice) if advice else None
    from ..libraries import LIBRARIES, state_of

    places = LIBRARIES[name]
    states = {".".join(place): state_of(place) for place in places}
    gone = [place for place, state in states.items() if state != "patched"]
    if gone:
        told = (
            f"calls through them run as {name} has them; a release of it that this package knows "
            "has them all"
        )
        return Finding(name, "warning", f"{installed}, without {', '.join(gone)}", told)
    return Finding(name, "ok", f"{installed}, with all {len(places)} places that are patched")


def plots() -> Finding:
    try:
        return Finding("matplotlib", "ok", version("matplotlib"))
    except PackageNotFoundError:
        advice = "for plots and pages of results: pip install 'mlx-flash-runtime[plot]'"
        return Finding("matplotlib", "missing", "not installed", advice)
