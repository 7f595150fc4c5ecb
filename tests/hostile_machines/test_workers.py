"""A program says that flash attention is on once, however many processes it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from patched_program import ENABLE, run

ON = "flash attention: on"

MULTIPROCESSING = f"""\
{ENABLE}
import multiprocessing
def work(number):
    enable_flash_attention(block_size=8 * number)
if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    with context.Pool(2) as pool:
        pool.map(work, [1, 2, 3, 4], chunksize=1)
    with context.Pool(2) as pool:
        pool.map(work, [1, 2], chunksize=1)
"""
AGAIN = f"""\
{ENABLE}
import subprocess, sys
if not sys.argv[1:]:
    for turn in range(3):
        subprocess.run([sys.executable, __file__, str(turn)], check=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(method: str, tmp_path: Path) -> None:
    done = run(f"METHOD = {method!r}\n{MULTIPROCESSING}", tmp_path)
    assert (done.returncode, done.stderr.count(ON)) == (0, 1), done.stderr


def test_the_same_program_started_again(tmp_path: Path) -> None:
    done = run(AGAIN, tmp_path)
    assert (done.returncode, done.stderr.count(ON)) == (0, 1), done.stderr


def test_another_program_says_it_for_itself(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(ENABLE, encoding="utf-8")
    start = "import subprocess, sys\nsubprocess.run([sys.executable, 'other.py'], check=True)\n"
    done = run(ENABLE + start, tmp_path)
    assert (done.returncode, done.stderr.count(ON)) == (0, 2), done.stderr


def test_a_program_that_turns_it_on_again_says_so(tmp_path: Path) -> None:
    again = "enable_flash_attention(False)\nenable_flash_attention()\n"
    assert run(ENABLE + again, tmp_path).stderr.count(ON) == 2
