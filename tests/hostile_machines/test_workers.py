"""A program says that flash attention is on once, however many processes it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from patched_program import ENABLE, run

ON = "flash attention: on"
# Not evaluated: MLX's threads do not live on in a process that was forked.
ATTEND = """\
import mlx.core as mx
x = mx.ones((1, 1, 4, 8))
mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)
"""
# Every call on a route of ours: then there is something to say.
OURS = {"MLX_FLASH_ROUTE": "blockwise"}

MULTIPROCESSING = f"""\
{ENABLE}{ATTEND}
import multiprocessing
def work(number):
    enable_flash_attention(block_size=8 * number)
    mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)
if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    with context.Pool(2) as pool:
        pool.map(work, [1, 2, 3, 4], chunksize=1)
    with context.Pool(2) as pool:
        pool.map(work, [1, 2], chunksize=1)
"""
AGAIN = f"""\
{ENABLE}{ATTEND}
import subprocess, sys
if not sys.argv[1:]:
    for turn in range(3):
        subprocess.run([sys.executable, __file__, str(turn)], check=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(method: str, tmp_path: Path) -> None:
    done = run(f"METHOD = {method!r}\n{MULTIPROCESSING}", tmp_path, **OURS)
    assert (done.returncode, done.stderr.count(ON)) == (0, 1), done.stderr


def test_the_same_program_started_again(tmp_path: Path) -> None:
    done = run(AGAIN, tmp_path, **OURS)
    assert (done.returncode, done.stderr.count(ON)) == (0, 1), done.stderr


def test_another_program_says_it_for_itself(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(ENABLE + ATTEND, encoding="utf-8")
    start = "import subprocess, sys\nsubprocess.run([sys.executable, 'other.py'], check=True)\n"
    done = run(ENABLE + ATTEND + start, tmp_path, **OURS)
    assert (done.returncode, done.stderr.count(ON)) == (0, 2), done.stderr


def test_a_program_that_turns_it_on_again_says_so(tmp_path: Path) -> None:
    again = "enable_flash_attention(False)\n" + ENABLE + ATTEND
    assert run(ENABLE + ATTEND + again, tmp_path, **OURS).stderr.count(ON) == 2


def test_a_program_without_attention_is_told_so(tmp_path: Path) -> None:
    silent = {"MLX_FLASH_QUIET": "1"}
    told = run(ENABLE + "print('mine')\n", tmp_path)
    assert told.stdout == "mine\n"
    assert told.stderr.startswith(ON)
    assert "), but this process made no attention call" in told.stderr
    assert run(ENABLE, tmp_path, **silent).stderr == ""
    assert run(ENABLE + ATTEND, tmp_path, **silent, **OURS).stderr == ""
    assert run(ENABLE + "enable_flash_attention(False)\n", tmp_path).stderr == ""
    assert ON not in run(ENABLE + "raise KeyError\n", tmp_path).stderr


LEFT_TO_A_WORKER = f"""\
import multiprocessing
def work():
    from mlx_flash_runtime import enable_flash_attention
    enable_flash_attention(inherit=True)
    import mlx.core as mx
    x = mx.ones((1, 1, 4, 8))
    mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)
if __name__ == "__main__":
    {ENABLE.replace(chr(10), chr(10) + "    ")}
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
"""


def test_a_program_that_leaves_attention_to_a_worker_is_not_warned(tmp_path: Path) -> None:
    told = run(LEFT_TO_A_WORKER, tmp_path, **OURS)
    assert (told.returncode, told.stderr.count(ON)) == (0, 1), told.stderr
    assert told.stderr.endswith("; attention is left to the processes that this one started\n")
    assert run(LEFT_TO_A_WORKER, tmp_path, **OURS, MLX_FLASH_QUIET="1").stderr == ""


def test_a_program_that_gains_nothing_is_told_so(tmp_path: Path) -> None:
    told = run(ENABLE + ATTEND + ATTEND, tmp_path, MLX_FLASH_ROUTE="unfused")
    assert told.stderr.startswith(ON)
    assert told.stderr.endswith("); MLX's own function was best for 2 calls\n")


def test_of_processes_that_were_launched_together_the_first_speaks(tmp_path: Path) -> None:
    for rank, said in (("0", 1), ("1", 0)):
        done = run(ENABLE + ATTEND, tmp_path, MLX_RANK=rank, MLX_FLASH_REPORT="1", **OURS)
        assert (done.stderr.count(ON), done.stderr.count("attention layer")) == (said, said)
        run(ENABLE + ATTEND, tmp_path, MLX_RANK=rank, MLX_FLASH_REPORT="report.json", **OURS)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["report.1.json", "report.json"]
