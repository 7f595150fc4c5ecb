"""The pre-commit hook and the shell completion, as `.pre-commit-hooks.yaml` and `docs/ci.md` give
them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Run, commit_all

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "flash-integrate"


def test_the_hook_fails_until_the_scripts_are_integrated(flash_integrate: Run, repo: Path) -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["pass_filenames"] is False
    command = [
        COMMAND.parent / shlex.split(hook["entry"])[0],
        *shlex.split(hook["entry"])[1:],
        *hook["args"],
    ]
    commit_all(repo)
    assert subprocess.run(command, cwd=repo, capture_output=True).returncode == 1
    flash_integrate(repo)
    assert subprocess.run(command, cwd=repo, capture_output=True).returncode == 0


def test_a_single_file_can_be_judged_otherwise_than_in_its_repo(
    flash_integrate: Run, tmp_path: Path
) -> None:
    """Why the hook does not take file names: only the whole repo shows that another file imports
    the script."""
    (tmp_path / "work.py").write_text(
        "from mlx_lm import generate, load\n\nprint(generate(*load('m'), 'hello'))\n"
    )
    (tmp_path / "user.py").write_text("import work\n")
    assert flash_integrate("--check", "work.py", cwd=tmp_path).returncode == 1
    assert flash_integrate("--check", ".", cwd=tmp_path).returncode == 0


def completion(shell: str) -> str:
    """The completion script that the command line in the docs makes."""
    pattern = rf"^(?:eval \"\$\()?(_FLASH_INTEGRATE_COMPLETE={shell}_source flash-integrate)"
    [line] = re.findall(pattern, (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_bash_completes_options() -> None:
    lines = [
        f'PATH="{COMMAND.parent}:$PATH"',
        completion("bash"),
        "COMP_WORDS=(flash-integrate --dry) COMP_CWORD=1",
        "_flash_integrate_completion flash-integrate",
        'echo "${COMPREPLY[@]}"',
        "complete -p flash-integrate",
    ]
    result = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert result.stdout.splitlines()[0] == "--dry-run"
    assert "-F _flash_integrate_completion flash-integrate" in result.stdout


@pytest.mark.parametrize(
    ("shell", "registers"),
    [
        ("zsh", "compdef _flash_integrate_completion flash-integrate"),
        ("fish", "complete --no-files --command flash-integrate"),
    ],
)
def test_other_shells_get_their_script(shell: str, registers: str) -> None:
    assert registers in completion(shell)
