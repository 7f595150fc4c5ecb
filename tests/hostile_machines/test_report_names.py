"""Whose a report is, where several processes want its name, and where a relative name is meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from patched_program import ATTEND, ENABLE, PROGRAM, environment, run

CALL = "mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0))\n"
# A program that starts another with the same environment, and goes on when that has ended.
PARENT = (
    "import subprocess, sys\n"
    + PROGRAM
    + "subprocess.run([sys.executable, 'child.py'], check=True)\n"
    + CALL * 2
)
CHILD = ENABLE + ATTEND + CALL
WAITING = PROGRAM + "sys.stdout.flush()\nsys.stdin.readline()\n"


def calls(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))["calls"]


def reports(folder: Path) -> list[Path]:
    """All of the reports in a folder, `report.json` first."""
    return sorted(folder.glob("report*"), key=lambda path: len(path.name))


def test_a_child_does_not_take_its_parent_s_report_away(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    done = run(PARENT, tmp_path, MLX_FLASH_REPORT="report.json")
    assert done.returncode == 0, done.stderr
    own, other = reports(tmp_path)
    assert (own.name, calls(own), calls(other)) == ("report.json", 3, 2)
    assert f"report.json is another process's report, this one's is {other.name}" in done.stderr


def start(folder: Path) -> subprocess.Popen[str]:
    """A program that has made its call of attention, and ends when it is told."""
    program = folder / "waiting.py"
    program.write_text("import sys\n" + WAITING, encoding="utf-8")
    started = subprocess.Popen(
        [sys.executable, str(program)],
        env=environment(MLX_FLASH_REPORT="report.json"),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "done\n"
    return started


def test_two_scripts_at_once_leave_two_reports(tmp_path: Path) -> None:
    for first_to_end in (0, 1):
        two = [start(tmp_path), start(tmp_path)]
        for number in (first_to_end, 1 - first_to_end):
            two[number].communicate("\n", timeout=60)
        own, other = reports(tmp_path)
        assert (own.name, other.name) == ("report.json", f"report.{two[1].pid}.json")
        assert calls(own) == calls(other) == 1
        other.unlink()


def test_a_name_is_free_again_after_a_run_however_that_ended(tmp_path: Path) -> None:
    killed = start(tmp_path)
    killed.kill()
    killed.communicate()
    for number in (1, 2):
        run(PROGRAM + CALL * number, tmp_path, MLX_FLASH_REPORT="report.json")
        assert reports(tmp_path) == [tmp_path / "report.json"]
        assert calls(tmp_path / "report.json") == 1 + number


def test_helpers_without_a_call_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(ENABLE, encoding="utf-8")
    done = run(PARENT, tmp_path, MLX_FLASH_REPORT="report.json")
    assert done.returncode == 0, done.stderr
    assert reports(tmp_path) == [tmp_path / "report.json"]
    assert calls(tmp_path / "report.json") == 3


def test_workers_that_are_spawned_or_forked_leave_the_report_to_the_program(tmp_path: Path) -> None:
    program = (
        "import multiprocessing\n"
        + ENABLE
        + "def work():\n    pass\n"
        + "if __name__ == '__main__':\n"
        + "".join(f"    {line}\n" for line in ATTEND.splitlines())
        + "    for method in ('spawn', 'fork'):\n"
        + "        worker = multiprocessing.get_context(method).Process(target=work)\n"
        + "        worker.start()\n        worker.join()\n        assert not worker.exitcode\n"
    )
    done = run(program, tmp_path, MLX_FLASH_REPORT="report.json")
    assert done.returncode == 0, done.stderr
    assert reports(tmp_path) == [tmp_path / "report.json"]
    assert calls(tmp_path / "report.json") == 1


def test_descriptors_that_the_program_closes_and_uses_again_are_not_written_to(
    tmp_path: Path,
) -> None:
    reuse = (
        "import os\nos.closerange(3, 64)\n"
        "kept = [open(f'kept{number}', 'w') for number in range(8)]\n"
    )
    done = run(PROGRAM + reuse, tmp_path, MLX_FLASH_REPORT="report.json")
    assert done.returncode == 0
    assert calls(tmp_path / "report.json") == 1
    assert {path.read_text() for path in tmp_path.glob("kept*")} == {""}


def test_relative_names_are_meant_where_the_program_started(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "calibration.json").write_text("[", encoding="utf-8")
    change = "import os\nos.chdir('elsewhere')\n"
    after_import = "import mlx_flash_runtime\n" + change + PROGRAM
    for program in (PROGRAM + change, after_import):
        done = run(
            program,
            tmp_path,
            MLX_FLASH_REPORT="report.json",
            MLX_FLASH_CALIBRATION="calibration.json",
        )
        assert done.returncode == 0, done.stderr
        assert f"{tmp_path / 'calibration.json'} is ignored" in done.stderr
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert calls(tmp_path / "report.json") == 1
        (tmp_path / "report.json").unlink()


def test_a_folder_that_the_program_makes(tmp_path: Path) -> None:
    make = "import os\nos.mkdir('out')\n"
    done = run(PROGRAM + make, tmp_path, MLX_FLASH_REPORT="out/report.json")
    assert done.returncode == 0
    assert calls(tmp_path / "out/report.json") == 1


def test_a_report_behind_a_link_is_written_where_the_link_points(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("an older report, which was longer than this one" * 1000, encoding="utf-8")
    target.chmod(0o640)
    (tmp_path / "report.json").symlink_to("target")
    run(PROGRAM, tmp_path, MLX_FLASH_REPORT="report.json")
    assert (tmp_path / "report.json").is_symlink()
    assert calls(target) == 1
    assert target.stat().st_mode & 0o777 == 0o640
