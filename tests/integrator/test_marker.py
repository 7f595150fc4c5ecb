"""`# flash-integrate: skip` counts as a comment of the file, and as nothing else."""

from __future__ import annotations

import tokenize

import pytest

from flash_integrate.errors import UnreadableSource
from flash_integrate.inserted.marker import skip_marker_line

MARKER = b"# flash-integrate: skip"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (MARKER, 1),
        (b"#!/usr/bin/env python\n#flash-integrate:skip\n", 2),
        (
            b"import mlx\n\n"
            b"def f():\n    # flash-integrate: skip (routes its own kernel)\n    pass\n",
            4,
        ),
        (b"import mlx  # flash-integrate: skip\n", 1),
        (b"import mlx  # noqa: F401  # flash-integrate: skip\n", 1),
        (b"\xef\xbb\xbf" + MARKER + b"\r\nimport mlx\r\n", 1),
        (b"# coding: latin-1\nname = '\xe9'\n" + MARKER, 3),
        (b"import mlx\r" + MARKER + b"\rx = 1\r", 2),
        (b"text = '''\n" + MARKER + b"\n'''\nx = 1  " + MARKER + b"\n", 4),
        (MARKER + b"\n{{ not Python at all\n", 1),
    ],
)
def test_a_comment_is_found_with_its_line(data: bytes, line: int) -> None:
    assert skip_marker_line(data) == line


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"import mlx\n",
        b"text = '''\n" + MARKER + b"\n'''\n",
        b'print("  # flash-integrate: skip")\n',
        b"# flash-integrate: skip-tests\n",
        b"# flash-integrate: skipped\n",
        b"# write `# flash-integrate: skip` to keep the tool out\n",
        b"# Flash-Integrate: Skip\n",
    ],
)
def test_nothing_else_counts(data: bytes) -> None:
    assert skip_marker_line(data) is None


@pytest.mark.parametrize(
    "data", [b"x = (\n'''" + MARKER + b"\n", b"if x:\n        y\n    z\n" + MARKER + b"\n"]
)
def test_a_file_that_can_not_be_cut_into_tokens_up_to_the_words_is_an_error(data: bytes) -> None:
    with pytest.raises(UnreadableSource):
        skip_marker_line(b"x = ' # flash-integrate: skip'\n" + data)


def test_bytes_that_do_not_fit_the_encoding_are_an_error_with_the_line() -> None:
    with pytest.raises(UnreadableSource) as caught:
        skip_marker_line(b"import mlx\n# caf\xe9\n" + MARKER)
    assert caught.value.line == 2


def test_a_file_without_the_words_is_not_cut_into_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tokenize, "generate_tokens")
    assert skip_marker_line(b"import mlx\n# flash\n") is None
