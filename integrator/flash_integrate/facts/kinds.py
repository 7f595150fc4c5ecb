"""What a file is by its path alone."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_TEST_FILE = re.compile(r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_tests?\.py$|tests?\.py$|conftest\.py$)")
_TOOL_FILE = re.compile(r"(^|/)(setup|noxfile|fabfile|dodo|__init__)\.py$")
_CONVERTER = re.compile(r"(^|[_-])(convert(er)?|(de)?quantize|fuse|merge|split|export|upload|download)([_-]|$)")


def is_test(name: PurePosixPath) -> bool:
    return _TEST_FILE.search(name.as_posix()) is not None


def is_converter(name: PurePosixPath) -> bool:
    return _CONVERTER.search(name.stem) is not None


def skip_by_name(name: PurePosixPath) -> str | None:
    """Why a file is left alone whatever it holds, told from its path."""
    if is_test(name):
        return "a test"
    if _TOOL_FILE.search(name.as_posix()):
        return "a package's __init__" if name.name == "__init__.py" else "a build or tool script"
    return None
