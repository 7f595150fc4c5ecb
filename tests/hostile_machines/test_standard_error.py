"""A patched program goes on, and ends as it would unpatched, where nothing can be written to
standard error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from patched_program import ATTEND, DONE, PROGRAM, run

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")

SHELLS = [
    pytest.param('exec "$@" 2>/dev/full', id="full", marks=FULL),
    pytest.param('exec "$@" 2>&-', id="closed"),
]
# What the program does to standard error, or to what writes to it, before it is patched.
NO_READER = "import os\nreader, writer = os.pipe()\nos.close(reader)\nos.dup2(writer, 2)\n"
BEFORE = {
    "no reader": NO_READER,
    "no reader, and the signal asked for": NO_READER
    + "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n",
    "None": "import sys\nsys.stderr = None\n",
    "closed by the program": "import sys\nsys.stderr.close()\n",
    "a stream that raises": (
        "import io, sys\nclass Broken(io.StringIO):\n"
        "    def write(self, text):\n        raise RuntimeError(text)\n"
        "sys.stderr = Broken()\n"
    ),
    "a file opened to be read": "import sys\nsys.stderr = open(__file__)\n",
    "the descriptor closed": "import os\nos.close(2)\n",
}
# Everything that the runtime has to say: that it is on, that a calibration is none, the report, or
# why there is none.
TALKATIVE = {
    "MLX_FLASH_CALIBRATION": "/",
    "MLX_FLASH_REPORT": "1",
    "MLX_FLASH_ROUTE": "blockwise",
}
WARNING = {"MLX_FLASH_CALIBRATION": "/", "MLX_FLASH_REPORT": "/missing/report.json"}


@pytest.mark.parametrize("variables", [TALKATIVE, WARNING], ids=["report", "warning"])
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["", "unbuffered"])
@pytest.mark.parametrize("shell", SHELLS)
def test_standard_error_of_the_shell(
    shell: str, options: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    done = run(PROGRAM, tmp_path, *options, shell=shell, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("variables", [TALKATIVE, WARNING], ids=["report", "warning"])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_standard_error_of_the_program(
    before: str, variables: dict[str, str], tmp_path: Path
) -> None:
    done = run(before + PROGRAM, tmp_path, **variables)
    unpatched = run(before + ATTEND + DONE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert (unpatched.returncode, unpatched.stdout, unpatched.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("kind", ["no reader", "closed by the program", "the descriptor closed"])
def test_logging_that_was_set_up_on_it(kind: str, tmp_path: Path) -> None:
    set_up = "import logging\nlogging.basicConfig(level='INFO')\n"
    done = run(set_up + BEFORE[kind] + PROGRAM, tmp_path, **WARNING)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_program_s_own_exit_status_stays(shell: str, tmp_path: Path) -> None:
    done = run(PROGRAM + "raise SystemExit(3)\n", tmp_path, shell=shell, **TALKATIVE)
    assert (done.returncode, done.stdout) == (3, "done\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_bad_variable_is_status_2_also_where_it_cannot_be_told(
    shell: str, tmp_path: Path
) -> None:
    done = run(PROGRAM, tmp_path, shell=shell, MLX_FLASH_BLOCK_SIZE="7")
    assert (done.returncode, done.stdout) == (2, "")
    nowhere = run("", tmp_path, "-m", "mlx_flash_runtime", "nowhere.py", shell=shell)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")


def test_a_stream_of_the_program_s_own_gets_the_words(tmp_path: Path) -> None:
    before = "import io, sys\nsys.stderr = io.StringIO()\n"
    done = run(before + PROGRAM + "print(sys.stderr.getvalue())\n", tmp_path, **TALKATIVE)
    assert done.stdout.startswith("done\n")
    assert "\nflash attention: on" in done.stdout
    assert "/ is ignored: it is not a regular file" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_program_has_left_in_the_buffer_comes_first(tmp_path: Path) -> None:
    done = run(
        "import sys\nsys.stderr.write('mine, ')\n" + PROGRAM, tmp_path, MLX_FLASH_ROUTE="blockwise"
    )
    assert done.stderr.startswith("mine, flash attention: on")


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "a\udcff").mkdir()
    done = run(PROGRAM, tmp_path, MLX_FLASH_CALIBRATION=tmp_path / "a\udcff")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "a\\udcff is ignored: it is not a regular file" in done.stderr


@pytest.mark.parametrize("option", ["-Werror", "-bb"])
def test_warnings_as_errors(option: str, tmp_path: Path) -> None:
    done = run(PROGRAM, tmp_path, option, "-X", "dev", **TALKATIVE)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Traceback" not in done.stderr


def test_nothing_is_lost_where_the_reader_is_slow(tmp_path: Path) -> None:
    long = "from mlx_flash_runtime.environment.log import say\nsay('x' * 1_000_000)\n"
    slowly = '"$@" 2>&1 >output | (sleep 0.5; wc -c); exit ${PIPESTATUS[0]}'
    done = run(long, tmp_path, shell=slowly)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1000001", "")
