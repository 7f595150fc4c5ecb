"""Links that a repo brings: nothing outside it is read or written through them; what is inside is
edited in place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostile_run import SCRIPT, contents, is_patched, run

from flash_integrate.vendor.origin import origin


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A checkout with one script, beside a folder that is none of its business."""
    repo = tmp_path / "repo"
    repo.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=repo, check=True)
    (repo / "run.py").write_text(SCRIPT)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run.py").write_text(SCRIPT)
    (outside / "requirements.txt").write_text("mlx\n")
    (outside / "secret").write_text("secret = word\n")
    return repo


def test_the_copy_is_not_written_through_a_link(repo: Path) -> None:
    (repo / "mlx_flash_runtime").symlink_to("../outside")
    before = contents(repo.parent)
    result = run(repo, "--vendor", "--force")
    assert (result.returncode, "leads out of the repo by a link" in result.stderr) == (2, True)
    assert contents(repo.parent) == before


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("requirements", "../outside"),
        ("requirements.txt", "../outside/requirements.txt"),
        ("requirements.txt", "{absolute}/requirements.txt"),
        ("pyproject.toml", "../outside/secret"),
    ],
)
def test_requirements_that_lead_out_stay_and_the_scripts_are_done(
    repo: Path, link: str, target: str
) -> None:
    (repo / "sub").mkdir()  # not the top: whose pyproject.toml is also the tool's own configuration
    (repo / "run.py").rename(repo / "sub" / "run.py")
    (repo / "sub" / link).symlink_to(
        target.format(absolute=repo.parent / "outside").replace("../", "../../")
    )
    outside = contents(repo.parent / "outside")
    result = run(repo, "--add-dependency", "--force")
    assert (result.returncode, "leads out of the repo by a link" in result.stderr) == (2, True)
    assert is_patched(repo / "sub" / "run.py")
    assert contents(repo.parent / "outside") == outside
    assert (repo / "sub" / link).is_symlink()


def test_a_linked_requirements_file_stays_a_link_and_its_target_is_edited_once(repo: Path) -> None:
    (repo / "requirements-base.txt").write_text("mlx\n")
    (repo / "requirements.txt").symlink_to("requirements-base.txt")
    run(repo, "--add-dependency", "--force")
    assert (repo / "requirements.txt").readlink() == Path("requirements-base.txt")
    assert (repo / "requirements-base.txt").read_text() == f"mlx\n{origin().requirement}\n"
    run(repo, "--revert", "--force")
    assert (repo / "requirements.txt").is_symlink()
    assert (repo / "requirements-base.txt").read_text() == "mlx\n"


@pytest.mark.parametrize(
    "named", ["linked.py", "folder", "folder/run.py", "folder/../outside/run.py"]
)
def test_a_named_link_that_leads_out_is_not_followed(repo: Path, named: str) -> None:
    """The shell's `repo/*` names links as well."""
    (repo / "linked.py").symlink_to("../outside/run.py")
    (repo / "folder").symlink_to("../outside")
    outside = contents(repo.parent / "outside")
    result = run(named, "run.py", "--force", cwd=repo)
    assert (result.returncode, "leads out of its repo" in result.stderr) == (2, True)
    assert is_patched(repo / "run.py")
    assert contents(repo.parent / "outside") == outside


def test_a_link_outside_every_checkout(repo: Path) -> None:
    """An unpacked archive: its links to files stay in their folder. A link that somebody laid to a
    folder is a way."""
    archive = repo.parent / "archive"
    archive.mkdir()
    (archive / "linked.py").symlink_to("../outside/run.py")
    assert run(archive / "linked.py").returncode == 2
    assert not is_patched(repo.parent / "outside" / "run.py")
    (repo.parent / "way").symlink_to("outside")
    assert run(repo.parent / "way").returncode == 0
    assert is_patched(repo.parent / "outside" / "run.py")


def test_a_named_link_inside_the_repo_is_edited_at_its_target(repo: Path) -> None:
    (repo / "linked.py").symlink_to("run.py")
    assert run(repo / "linked.py", "--force").returncode == 0
    assert (repo / "linked.py").is_symlink()
    assert is_patched(repo / "run.py")


def test_local_imports_are_not_looked_for_outside(repo: Path) -> None:
    (repo.parent / "outside" / "attention.py").write_text(
        "import mlx_lm\n\nrun = mlx_lm.generate\n"
    )
    (repo / "attention.py").symlink_to("../outside/attention.py")
    (repo / "uses.py").write_text("from attention import run\n\nrun()\n")
    run(repo / "uses.py", "--force")
    assert not is_patched(repo / "uses.py")
    (repo / "attention.py").unlink()
    (repo / "attention.py").write_text("import mlx_lm\n\nrun = mlx_lm.generate\n")
    run(repo / "uses.py", "--force")
    assert is_patched(repo / "uses.py")


@pytest.mark.parametrize("target", ["loop", "missing"])
def test_links_in_a_circle_and_to_nothing(repo: Path, target: str) -> None:
    for name in (
        "loop",
        ".gitignore",
        "requirements.txt",
        "setup.cfg",
        "found.py",
        "mlx_flash_runtime",
    ):
        (repo / name).symlink_to(target)
    result = run(repo, "--force")
    assert is_patched(repo / "run.py")
    # A .gitignore was meant to say something.
    assert result.returncode == (2 if target == "loop" else 0)
