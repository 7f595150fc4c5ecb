"""Functions that a repo's packaging installs as commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from outcomes import changed, run

TALK = '''\
from mlx_lm import load


def start():
    """Talk."""
    load("tiny")


def helper():
    pass
'''


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("pyproject.toml", '[project.scripts]\ntalk = "pkg.talk:start"\n'),
        (
            "pyproject.toml",
            '[tool.poetry.scripts]\ntalk = {reference = "pkg.talk:start", type = "console"}\n',
        ),
        ("setup.cfg", "[options.entry_points]\nconsole_scripts =\n    talk = pkg.talk:start\n"),
        (
            "setup.py",
            "from setuptools import setup\n"
            "setup(entry_points={'console_scripts': ['talk=pkg.talk:start']})\n",
        ),
        (
            "setup.py",
            "from setuptools import setup\n"
            'setup(entry_points="""\n[console_scripts]\ntalk=pkg.talk:start""")\n',
        ),
    ],
)
def test_a_function_that_packaging_installs(tmp_path: Path, manifest: str, text: str) -> None:
    outcomes = run(tmp_path, {manifest: text, "src/pkg/__init__.py": "", "src/pkg/talk.py": TALK})
    assert changed(outcomes) == {"src/pkg/talk.py": "console-script"}
    expected = (
        b'    """Talk."""\n    try:\n        from mlx_flash_runtime import enable_flash_attention\n'
    )
    assert expected in outcomes["src/pkg/talk.py"].after


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("pyproject.toml", '[project.entry-points."talk.plugins"]\ntalk = "pkg.talk:start"\n'),
        ("pyproject.toml", '[project.scripts\ntalk = "pkg.talk:start"\n'),
        ("pyproject.toml", "project = 1\n"),
        ("setup.cfg", "[options.entry_points]\ntalk.plugins =\n    talk = pkg.talk:start\n"),
        ("setup.cfg", "console_scripts = talk = pkg.talk:start\n"),
        (
            "setup.py",
            "from setuptools import setup\nsetup(entry_points={'talk': ['talk=pkg.talk:start']})\n",
        ),
    ],
)
def test_plugins_and_broken_manifests_install_no_command(
    tmp_path: Path, manifest: str, text: str
) -> None:
    assert (
        changed(run(tmp_path, {manifest: text, "pkg/__init__.py": "", "pkg/talk.py": TALK})) == {}
    )


def test_a_function_that_a_package_takes_over_from_a_module(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": '[project.scripts]\ntalk = "pkg.cli:talk"\n',
        "pkg/__init__.py": "",
        "pkg/cli/__init__.py": "from .main import start as talk\n",
        "pkg/cli/main.py": TALK,
    }
    assert changed(run(tmp_path, files)) == {"pkg/cli/main.py": "console-script"}
