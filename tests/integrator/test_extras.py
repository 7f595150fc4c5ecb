"""What goes with the scripts, as the command does and says it: the runtime's copy, the
requirement, the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.vendor.origin import origin

RUNTIME = origin().requirement
SCRIPT_METADATA = """\
# /// script
# requires-python = ">=3.10"
# dependencies = ["rich", "mlx-lm; sys_platform == 'darwin'"]
# ///
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def listed(repo: Path) -> Path:
    """The repo with requirements, and a folder with a script and requirements of its own."""
    (repo / "requirements.txt").write_text("mlx-lm\nnumpy\n")
    (repo / "sub").mkdir()
    (repo / "sub" / "requirements.txt").write_text("mlx\n")
    (repo / "sub" / "run.py").write_text(SCRIPT)
    return repo


def test_a_revert_takes_the_requirement_out_too(flash_integrate: Run, listed: Path) -> None:
    before = tree(listed)
    flash_integrate(listed, "--add-dependency")
    assert (listed / "requirements.txt").read_text() == f"mlx-lm\n{RUNTIME}\nnumpy\n"
    result = flash_integrate(listed, "--revert")
    assert b"wrote requirements.txt\nwrote sub/requirements.txt\n" in result.stderr
    assert tree(listed) == before
    again = flash_integrate(listed, "--revert")
    assert (again.returncode, b"nothing to revert" in again.stderr) == (0, True)


def test_a_requirement_stays_while_a_script_needs_it(flash_integrate: Run, listed: Path) -> None:
    flash_integrate(listed, "--add-dependency")
    flash_integrate(listed / "sub", "--revert")
    assert (listed / "sub" / "requirements.txt").read_text() == "mlx\n"
    assert "mlx-flash-runtime" in (listed / "requirements.txt").read_text()


def test_a_requirement_without_a_patched_script_is_taken_out_if_it_is_asked_for(
    flash_integrate: Run, listed: Path
) -> None:
    (listed / "requirements.txt").write_text("mlx-lm\nmlx-flash-runtime\n")
    assert b"nothing to revert" in flash_integrate(listed, "--revert").stderr
    assert (listed / "requirements.txt").read_text() == "mlx-lm\nmlx-flash-runtime\n"
    assert (
        b"nothing to revert" not in flash_integrate(listed, "--revert", "--add-dependency").stderr
    )
    assert (listed / "requirements.txt").read_text() == "mlx-lm\n"


def test_a_manifest_that_can_not_be_read_does_not_keep_scripts_from_being_reverted(
    flash_integrate: Run, listed: Path
) -> None:
    flash_integrate(listed)
    (listed / "pyproject.toml").write_text("[project\n")
    result = flash_integrate(listed, "--revert")
    assert (result.returncode, b"pyproject.toml: not valid TOML" in result.stderr) == (0, True)
    assert (listed / "run.py").read_text() == SCRIPT


def test_the_copy_is_one_line_of_the_summary(flash_integrate: Run, listed: Path) -> None:
    before = tree(listed)
    wrote = flash_integrate(listed, "--vendor").stderr.decode().splitlines()
    files = sum(path.is_file() for path in (listed / "mlx_flash_runtime").rglob("*"))
    lines = [line for line in wrote if line.startswith("wrote")]
    assert lines == [f"wrote mlx_flash_runtime/ ({files} files)", "wrote sub/mlx_flash_runtime.py"]
    removed = flash_integrate(listed, "--revert").stderr.decode().splitlines()
    lines = [line for line in removed if line.startswith("removed")]
    assert lines == [
        f"removed mlx_flash_runtime/ ({files} files)",
        "removed sub/mlx_flash_runtime.py",
    ]
    assert tree(listed) == before


@pytest.mark.parametrize("options", [["--add-dependency"], []])
def test_a_script_that_lists_its_own_dependencies_is_left_to_its_author(
    flash_integrate: Run, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "run.py").write_text(SCRIPT_METADATA + SCRIPT)
    (tmp_path / "requirements.txt").write_text("mlx\n")
    result = flash_integrate(tmp_path, *options)
    line = f"{RUNTIME} ; sys_platform == 'darwin'"
    note = f'run.py lists its own dependencies: add "{line}" there.'
    assert note in result.stderr.decode()
    assert (tmp_path / "requirements.txt").read_text() == "mlx\n"
    (tmp_path / "run.py").write_text(
        (tmp_path / "run.py").read_text().replace("rich", "mlx-flash-runtime")
    )
    assert "dependencies" not in flash_integrate(tmp_path, *options).stderr.decode()
