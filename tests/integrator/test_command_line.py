"""The command as its user meets it: exit codes, output, what is written and what is left alone."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import SCRIPT, Run, commit_all, git

from flash_integrate.cli import applying, main


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_dry_run_prints_a_diff_and_writes_nothing(flash_integrate: Run, repo: Path) -> None:
    before = tree(repo)
    result = flash_integrate(repo, "--dry-run")
    assert result.returncode == 0
    assert b"+++ b/run.py\n" in result.stdout
    assert b"--disable-flash-attention" in result.stdout
    assert b"1 would change" in result.stderr
    assert b"\x1b[" not in result.stdout + result.stderr
    assert tree(repo) == before


def test_git_apply_of_the_dry_run_is_the_real_run(
    flash_integrate: Run, repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit_all(repo)
    diff = tmp_path_factory.mktemp("diff") / "flash.diff"
    diff.write_bytes(flash_integrate(repo, "--dry-run").stdout)
    git(repo, "apply", str(diff))
    patched = tree(repo)
    git(repo, "checkout", "-q", ".")
    assert flash_integrate(repo).returncode == 0
    assert tree(repo) == patched


def test_apply_then_apply_again_then_revert(flash_integrate: Run, repo: Path) -> None:
    before = tree(repo)
    assert flash_integrate(repo).returncode == 0
    after = tree(repo)
    assert after["run.py"] != before["run.py"]
    assert after["model.py"] == before["model.py"]
    again = flash_integrate(repo)
    assert b"1 already integrated" in again.stderr
    assert tree(repo) == after
    assert flash_integrate(repo, "--revert", "--dry-run").stdout.count(b"\n-") > 10
    assert tree(repo) == after
    assert flash_integrate(repo, "--revert").returncode == 0
    assert tree(repo) == before


def test_check_exits_1_when_there_is_work(flash_integrate: Run, repo: Path) -> None:
    before = tree(repo)
    assert flash_integrate(repo, "--check").returncode == 1
    assert tree(repo) == before
    flash_integrate(repo)
    assert flash_integrate(repo, "--check").returncode == 0


def test_revert_keeps_what_the_user_wrote_since(flash_integrate: Run, repo: Path) -> None:
    flash_integrate(repo)
    patched = (repo / "run.py").read_text()
    (repo / "run.py").write_text(
        patched.replace("    args = ", "    # parse\n    args = ") + "print('done')\n"
    )
    assert flash_integrate(repo, "--revert").returncode == 0
    expected = SCRIPT.replace("    args = ", "    # parse\n    args = ") + "print('done')\n"
    assert (repo / "run.py").read_text() == expected


def test_revert_leaves_a_file_alone_that_would_not_parse_without_the_call(
    flash_integrate: Run, repo: Path
) -> None:
    flash_integrate(repo)
    patched = (repo / "run.py").read_text()
    start = patched.index("    try:\n        from mlx_flash_runtime")
    end = patched.index("\n", patched.index("enable_flash_attention(not")) + 1
    # The user has put the call under a header of their own: taken out, the header would have no
    # body.
    call = textwrap.indent(patched[start:end], "    ")
    broken = f"{patched[:start]}    if args:\n{call}{patched[end:]}"
    (repo / "run.py").write_text(broken)
    compile(broken, "run.py", "exec")
    result = flash_integrate(repo, "--revert")
    assert result.returncode == 2
    assert b"would not be valid" in result.stderr
    assert (repo / "run.py").read_text() == broken


def test_a_broken_file_is_reported_with_its_line_and_the_rest_is_done(
    flash_integrate: Run, repo: Path
) -> None:
    (repo / "broken.py").write_text("import mlx\n\ndef f(:\n    pass\n")
    (repo / "latin.py").write_bytes(b"import mlx\nname = '\xe9'\n")
    result = flash_integrate(repo)
    assert result.returncode == 2
    assert b"broken.py:3" in result.stderr
    assert b"latin.py:2" in result.stderr
    assert b"1 changed" in result.stderr
    assert b"2 failed" in result.stderr
    assert b"Traceback" not in result.stderr
    assert "enable_flash_attention" in (repo / "run.py").read_text()


@pytest.mark.parametrize(
    "nesting", ["(" * 300 + "1" + ")" * 300, "1" + " + 1" * 20000], ids=["nested", "chain"]
)
def test_code_too_deep_for_the_parsers_is_reported(
    flash_integrate: Run, repo: Path, nesting: str
) -> None:
    deep = f"from mlx_lm import chat\nx = {nesting}\nchat.main()\n"
    (repo / "deep.py").write_text(deep)
    result = flash_integrate(repo)
    assert result.returncode in (0, 2)
    assert b"Traceback" not in result.stderr
    if result.returncode:
        assert b"deep.py" in result.stderr
        assert (repo / "deep.py").read_text() == deep
    assert "enable_flash_attention" in (repo / "run.py").read_text()


def test_refuses_to_write_over_uncommitted_changes(flash_integrate: Run, repo: Path) -> None:
    commit_all(repo)
    (repo / "run.py").write_text(SCRIPT + "# work in progress\n")
    before = tree(repo)
    result = flash_integrate(repo)
    assert result.returncode == 2
    assert b"run.py" in result.stderr
    assert b"--force" in result.stderr
    assert tree(repo) == before
    assert flash_integrate(repo, "--dry-run").returncode == 0
    assert flash_integrate(repo, "--force").returncode == 0
    assert (repo / "run.py").read_text().endswith("# work in progress\n")


def test_changes_in_files_that_are_not_touched_do_not_matter(
    flash_integrate: Run, repo: Path
) -> None:
    commit_all(repo)
    (repo / "notes.py").write_text("print('changed')\n")
    assert flash_integrate(repo).returncode == 0
    # What it wrote itself can be taken out again without --force.
    assert flash_integrate(repo, "--revert").returncode == 0
    assert git(repo, "diff", "--name-only").split() == [b"notes.py"]


def test_exclude(flash_integrate: Run, repo: Path) -> None:
    (repo / "old").mkdir()
    (repo / "old" / "run.py").write_text(SCRIPT)
    flash_integrate(repo, "--exclude", "old/", "--exclude", "model*")
    assert (repo / "old" / "run.py").read_text() == SCRIPT
    assert (repo / "run.py").read_text() != SCRIPT


def test_what_git_ignores_and_environments_are_left_out(flash_integrate: Run, repo: Path) -> None:
    kept = ["scratch/run.py", "lib/site-packages/run.py", "myenv/run.py", "sub/generated_run.py"]
    for name in [*kept, "sub/run.py"]:
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(SCRIPT)
    (repo / "myenv" / "pyvenv.cfg").touch()
    (repo / ".gitignore").write_text("scratch/\n")
    (repo / "sub" / ".gitignore").write_text("generated_*\n")
    flash_integrate(repo)
    assert all((repo / name).read_text() == SCRIPT for name in kept)
    assert (repo / "sub" / "run.py").read_text() != SCRIPT


def test_copies_of_other_projects_are_left_alone_unless_they_are_named(
    flash_integrate: Run, repo: Path
) -> None:
    copies = ["Vendor/lib/run.py", "pkg/third_party/run.py", "pkg/_vendor/run.py"]
    for name in copies:
        (repo / name).parent.mkdir(parents=True)
        (repo / name).write_text(SCRIPT)
    (repo / "Vendor" / "setup.py").write_text("import setuptools\n")
    (repo / "vendor.py").write_text(SCRIPT)

    def changed(*options: object) -> set[str]:
        run = flash_integrate(*options, "--check", "--json", "-")
        files = json.loads(run.stdout)["files"]
        return {item["path"] for item in files if item["status"] == "would-change"}

    shown = flash_integrate(repo, "--dry-run").stderr.decode()
    assert "in a folder for copies of other projects: name it to have it changed (3)" in shown
    assert changed(repo) == {"run.py", "vendor.py"}
    assert changed(repo / "Vendor") == {"lib/run.py"}
    assert changed(repo / "pkg" / "_vendor" / "run.py") == {"run.py"}
    assert changed(repo, repo / "Vendor" / "lib") == {"run.py", "vendor.py", "Vendor/lib/run.py"}
    explained = flash_integrate("--explain", repo).stdout.decode()
    assert "Vendor/lib/run.py: skipped: in a folder for copies" in explained
    # What a script runs is followed into such a copy.
    (repo / "own.py").write_text("from Vendor.lib.say import say\n\nsay()\n")
    text = "from mlx_lm import generate, load\n\ndef say():\n    generate(*load('m'), 'hello')\n"
    (repo / "Vendor" / "lib" / "say.py").write_text(text)
    assert changed(repo) == {"run.py", "vendor.py", "own.py"}
    settings = '[tool.flash-integrate]\ninclude = ["/run.py", "/Vendor/"]\n'
    (repo / "pyproject.toml").write_text(settings)
    assert changed(repo) == {"run.py", "Vendor/lib/run.py"}


def test_a_symlink_is_not_followed_and_its_target_is_edited_once(
    flash_integrate: Run, repo: Path
) -> None:
    (repo / "link.py").symlink_to("run.py")
    result = flash_integrate(repo, repo / "run.py")
    assert b"1 changed" in result.stderr
    assert (repo / "link.py").is_symlink()
    assert (repo / "run.py").read_text().count("import enable_flash_attention") == 1


def test_permissions_stay_and_no_temporary_file_is_left(flash_integrate: Run, repo: Path) -> None:
    (repo / "run.py").chmod(0o750)
    names = set(os.listdir(repo))
    flash_integrate(repo)
    assert stat.S_IMODE((repo / "run.py").stat().st_mode) == 0o750
    assert set(os.listdir(repo)) == names


def test_json_names_every_file_with_its_outcome(
    flash_integrate: Run, repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    report = tmp_path_factory.mktemp("report") / "report.json"
    (repo / "broken.py").write_text("import mlx\nx = = 1\n")
    flash_integrate(repo, "--dry-run", "--json", report)
    document = json.loads(report.read_text())
    assert document["mode"] == "apply --dry-run"
    assert document["summary"] == {
        "changed": 0,
        "would-change": 1,
        "reverted": 0,
        "would-revert": 0,
        "already-integrated": 0,
        "skipped": 2,
        "failed": 1,
    }
    files = {entry["path"]: entry for entry in document["files"]}
    assert files["run.py"]["codemod"] == "argparse-script"
    assert files["broken.py"]["line"] == 2
    assert files["model.py"]["reason"] == "a library module: nothing in it starts a program"


def test_a_single_file_still_has_its_local_imports_seen_through(
    flash_integrate: Run, repo: Path
) -> None:
    script = "import model\n\nif __name__ == '__main__':\n    print(model.attention(64, 4))\n"
    (repo / "use.py").write_text(script)
    result = flash_integrate(repo / "use.py")
    assert b"use.py:4 -> model.py:" in result.stderr
    assert (repo / "use.py").read_text() != script
    assert (repo / "run.py").read_text() == SCRIPT


def test_colours_on_demand(flash_integrate: Run, repo: Path) -> None:
    assert b"\x1b[32m+" in flash_integrate(repo, "--dry-run", "--color", "always").stdout
    assert b"\x1b[" not in flash_integrate(repo, "--dry-run", "--color", "never").stdout


@pytest.mark.parametrize("args", [["no/such/folder"], ["--no-such-option", "."]])
def test_a_wrong_command_line_exits_2(flash_integrate: Run, repo: Path, args: list[str]) -> None:
    result = flash_integrate(*args, cwd=repo)
    assert result.returncode == 2
    assert result.stderr.startswith(b"Usage: ")
    assert result.stderr.splitlines()[-1].startswith(b"error: ")


def test_without_a_path_it_is_the_current_folder(flash_integrate: Run, repo: Path) -> None:
    here, named = (flash_integrate(*args, "--dry-run", cwd=repo) for args in ([], ["."]))
    assert here.stdout == named.stdout
    assert b"+++ b/run.py\n" in here.stdout


def test_where_nothing_is_to_do_one_line_says_so(flash_integrate: Run, repo: Path) -> None:
    flash_integrate(repo)
    told = (
        b"nothing to do: 1 already integrated, 2 skipped: "
        b"a library module: nothing in it starts a program (1), no MLX (1)\n"
    )
    for option in ([], ["--check"], ["--dry-run"]):
        result = flash_integrate(repo, *option)
        assert (result.stdout, result.stderr) == (b"", told)
    flash_integrate(repo, "--revert")
    again = flash_integrate(repo, "--revert").stderr
    assert again == b"nothing to revert: 3 skipped: not integrated by this tool (3)\n"


def test_quiet_says_nothing_but_what_failed(flash_integrate: Run, repo: Path) -> None:
    loud, quiet = (flash_integrate(repo, "--dry-run", *more) for more in ([], ["--quiet"]))
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, b"")
    (repo / "broken.py").write_text("import mlx\nx = = 1\n")
    result = flash_integrate(repo, "-q")
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"broken.py:2  failed" in result.stderr
    assert b"run.py" not in result.stderr
    assert (repo / "run.py").read_text() != SCRIPT


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
@pytest.mark.parametrize("options", [["--dry-run"], ["--explain"], ["--json", "-"]])
def test_names_and_code_in_any_script_are_shown_in_any_locale(
    repo: Path, encoding: str, options: list[str]
) -> None:
    (repo / "模型 × é.py").write_text(SCRIPT.replace("hello", "你好 ×"), encoding="utf-8")
    command = [sys.executable, "-m", "flash_integrate", str(repo), "--check", *options]
    if "--explain" in options:
        command.remove("--check")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(command, capture_output=True, env=environment)
    assert result.returncode in (0, 1), result.stderr
    assert (result.stdout + result.stderr).count(b".py") > 1


def test_ctrl_c_says_of_each_file_whether_it_was_written(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "second.py").write_text(SCRIPT)
    write = applying.write

    def interrupted(path: Path, *others: Any) -> None:
        if path.name == "second.py":
            raise KeyboardInterrupt
        write(path, *others)

    monkeypatch.setattr(applying, "write", interrupted)
    result = CliRunner().invoke(main, [str(repo)])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-3:] == [
        "Interrupted:",
        "written: run.py",
        "not written: second.py",
    ]


def test_a_folder_without_python_is_no_error(flash_integrate: Run, tmp_path: Path) -> None:
    result = flash_integrate(tmp_path)
    assert result.returncode == 0
    assert b"no Python files found" in result.stderr


def explained(flash_integrate: Run, repo: Path, *options: str) -> str:
    result = flash_integrate(repo / "run.py", "--explain", *options)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode()


def test_explain_names_the_codemods_that_came_near_and_no_others(
    flash_integrate: Run, repo: Path
) -> None:
    text = explained(flash_integrate, repo)
    assert text.startswith("run.py: argparse-script changes it: ")
    assert "  main-guard: fits, and is asked later\n" in text
    assert "click-command" not in text
    assert "console-script" not in text


def test_explain_does_not_call_a_script_a_library_for_what_was_left_out(
    flash_integrate: Run, repo: Path
) -> None:
    text = explained(flash_integrate, repo, "--only", "console-script")
    assert "would be changed by argparse-script, which is left out" in text
    assert "a library module" not in text


BELONGS = "only starts cli.py, where the call belongs, and "


@pytest.mark.parametrize(
    ("start", "reason", "with_only"),
    [
        ("cli", f"{BELONGS}this run does not change it", f"{BELONGS}argparse-script is left out"),
        ("by_hand", *["its only attention is written by hand"] * 2),
    ],
)
def test_the_reason_why_a_script_is_left_alone_that_starts_another(
    flash_integrate: Run, tmp_path: Path, start: str, reason: str, with_only: str
) -> None:
    (tmp_path / "cli.py").write_text(
        "import argparse\n\nimport mlx_lm\n\n\ndef main():\n"
        "    parser = argparse.ArgumentParser()\n    args = parser.parse_args()\n"
        "    mlx_lm.generate(args)\n"
    )
    by_hand = "    return mx.softmax((q @ q.T) * mx.sigmoid(q), axis=-1) @ q\n"
    (tmp_path / "by_hand.py").write_text(f"import mlx.core as mx\n\n\ndef main(q):\n{by_hand}")
    guard = "if __name__ == '__main__':\n    main()\n"
    (tmp_path / "start.py").write_text(f"from {start} import main\n\n{guard}")
    for options, expected in ([], reason), (["--only", "console-script"], with_only):
        result = flash_integrate(tmp_path / "start.py", "--explain", *options)
        assert result.stdout.decode().startswith(f"start.py: skipped: {expected}")


def test_explain_of_an_integrated_file_finds_no_fault_with_what_was_inserted(
    flash_integrate: Run, repo: Path
) -> None:
    flash_integrate(repo)
    text = explained(flash_integrate, repo)
    assert text.startswith("run.py: already integrated: imports the runtime (line ")
    assert "of its own" not in text
    assert "argparse-script" not in text


def test_explain_of_a_file_that_can_not_be_read_fails(flash_integrate: Run, repo: Path) -> None:
    (repo / "broken.py").write_text("import mlx\nx = = 1\n")
    result = flash_integrate(repo, "--explain")
    assert result.returncode == 2
    assert b"broken.py:2: failed: " in result.stdout
    assert b"run.py: argparse-script changes it" in result.stdout
