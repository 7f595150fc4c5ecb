"""Files that are written in one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_flash_runtime.environment import whole_files


def test_a_file_is_replaced_with_the_mode_that_it_shall_have(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, mode in ((b"first", 0o600), (b"second", 0o644)):
        whole_files.write(path, content, mode)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        whole_files.write(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]
