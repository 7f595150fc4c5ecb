"""Which functions of releases of mlx-lm, mlx-vlm, mlx-audio and mflux are recognised and patched,
and where models of the latter two run, as `docs/libraries.md`.

    PYTHONPATH=fixtures python benchmarks/libraries.py [--write] [RELEASE ...]

Each release (as `mlx-lm==0.32.2`; without one, those of the page) is installed by pip into a folder
of its own, without what it depends on, and looked at by a Python that finds it there first. What
the others depend on, mlx-audio among it, comes with mlx-vlm: make .venv/.ready GROUPS='dev vision'.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_flash_runtime.tools.libraries import LIBRARIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "libraries.md"
MODELS = Path(__file__).with_name("sound_and_pictures.py")
# The newest, and one older release each, that work with the supported MLX.
RELEASES = (
    *("mlx-lm==0.32.2", "mlx-lm==0.31.3"),
    *("mlx-vlm==0.7.10", "mlx-vlm==0.6.17"),
    *("mlx-audio==0.6.2", "mlx-audio==0.5.9"),
    *("mflux==0.24.0", "mflux==0.20.0"),
)
# What mflux's transformers import, in the release that the page is about.
MFLUX = ("mflux==0.24.0", "piexif", "toml")

INTRODUCTION = """\
# Libraries of models: what is patched, and where they run

Written by `PYTHONPATH=fixtures python benchmarks/libraries.py --write`.

Besides MLX's own attention these functions are patched, in these libraries and wherever else a
module has a copy of them: they are known by name and parameters, and before one is used its results
on small inputs are held against the formula. *patched* means that they agree; what *does something
else* is left as it is, and the report names it as soon as it was called.
"""
_LOOK = """
import sys
from mlx_flash_runtime.tools.libraries import LIBRARIES, state_of
print(*(state_of(place) for place in LIBRARIES[sys.argv[1]]), sep="\\n")
"""


def look_at(library: str, folder: str | None = None) -> list[str]:
    """The state of each of the library's places, in a Python of its own that finds the library in
    `folder` first."""
    return in_python(folder, "-c", _LOOK, library).splitlines()


def row(library: str, version: str, states: list[str]) -> str:
    """One release's line."""
    return f"| {library} {version} | {' | '.join(states)} |"


def page(releases: tuple[str, ...]) -> str:
    """The whole page: a table a library, and that of models."""
    parts = [INTRODUCTION]
    for library, places in LIBRARIES.items():
        names = [f"`{place.module.partition('.')[2]}.{place.function}`" for place in places]
        lines = [f"| release | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for release in releases:
            name, _, version = release.partition("==")
            if name == library:
                with installed(release) as folder:
                    lines.append(row(library, version, look_at(library, folder)))
        parts.append("\n".join(lines) + "\n")
    with installed(*MFLUX) as folder:
        parts.append(in_python(folder, str(MODELS)))
    return "\n".join(parts)


@contextmanager
def installed(*packages: str) -> Iterator[str]:
    """A folder with those packages, and without what they depend on."""
    with TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*install, "--target", folder, *packages], check=True)
        yield folder


def in_python(folder: str | None, *arguments: str) -> str:
    """What a Python of its own prints that looks for modules in `folder` first."""
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Prints or writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("releases", nargs="*", metavar="RELEASE")
    parser.add_argument("--write", action="store_true", help=f"write it to docs/{PAGE.name}")
    options = parser.parse_args()
    text = page(tuple(options.releases) or RELEASES)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
