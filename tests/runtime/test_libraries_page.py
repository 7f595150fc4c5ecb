"""docs/libraries.md says what is recognised in the releases that are installed."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from mlx_flash_runtime.tools.libraries import LIBRARIES, state_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_page_says_what_is_recognised(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    libraries = importlib.import_module("libraries")
    try:
        installed = version(library)
    except PackageNotFoundError:
        pytest.skip(f"{library} is not installed")
    page = libraries.PAGE.read_text(encoding="utf-8")
    assert page.startswith(libraries.INTRODUCTION)
    states = [state_of(place) for place in LIBRARIES[library]]
    if f"{library}=={installed}" in libraries.RELEASES:
        assert libraries.row(library, installed, states) in page.splitlines()
    else:  # another release than the page knows: at least as good as the newest there
        assert set(states) == {"patched"}
