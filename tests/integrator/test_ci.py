"""The pre-commit hook, the action and the shell completion, as `.pre-commit-hooks.yaml`,
`action.yml` and `docs/ci.md` give them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import Run, commit_all

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "flash-integrate"


class Summary(NamedTuple):
    """What a run of the action left: its exit status and the job's summary."""

    status: int
    text: str


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


@pytest.fixture(scope="module")
def action(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Summary]:
    """The action, installed as a runner would, run on a repo's paths."""
    temp = tmp_path_factory.mktemp("runner")
    definition = yaml.safe_load((ROOT / "action.yml").read_text())
    install, check = definition["runs"]["steps"]
    own = {**os.environ, "RUNNER_TEMP": str(temp), "GITHUB_ACTION_PATH": str(ROOT)}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
    subprocess.run([*shell, install["run"]], env=own, check=True)

    def run(repo: Path, paths: str) -> Summary:
        summary = temp / "summary.md"
        summary.write_text("# of another step\n")
        given = {name: each["default"] for name, each in definition["inputs"].items()}
        given["paths"] = paths
        inputs = {
            variable: given[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)[1]]  # type: ignore[index]
            for variable, value in check["env"].items()
        }
        environment = {**own, **inputs, "GITHUB_STEP_SUMMARY": str(summary)}
        done = subprocess.run([*shell, check["run"]], cwd=repo, env=environment)
        return Summary(done.returncode, summary.read_text())

    return run


def test_the_action_fails_with_a_summary_until_the_scripts_are_integrated(
    action: Callable[[Path, str], Summary], flash_integrate: Run, repo: Path
) -> None:
    commit_all(repo)
    found = action(repo, ".")
    assert found.status == 1
    assert found.text.startswith("# of another step\n")
    assert "run.py" in found.text
    sarif = json.loads((repo / "flash-integrate.sarif").read_text())
    assert sarif["runs"][0]["results"]
    (repo / "flash-integrate.sarif").unlink()
    flash_integrate(repo)
    assert action(repo, ".").status == 0
    assert action(repo, "; touch broken").status == 2
    assert not (repo / "broken").exists()


def completion(shell: str) -> str:
    """The completion script that the command line in the docs makes."""
    pattern = rf"^(?:eval \"\$\()?(_FLASH_INTEGRATE_COMPLETE={shell}_source flash-integrate)"
    [line] = re.findall(pattern, (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE)
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("words", "completed"), [("--dry", "--dry-run"), ("--only argp", "argparse-script")]
)
def test_bash_completes_options_and_codemods(words: str, completed: str) -> None:
    lines = [
        f'PATH="{COMMAND.parent}:$PATH"',
        completion("bash"),
        f"COMP_WORDS=(flash-integrate {words}) COMP_CWORD={len(words.split())}",
        "_flash_integrate_completion flash-integrate",
        'echo "${COMPREPLY[@]}"',
        "complete -p flash-integrate",
    ]
    result = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert result.stdout.splitlines()[0] == completed
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
