"""What holds for the tests of every folder."""

from __future__ import annotations

import compileall
import gc
import shutil
import signal
import threading
from pathlib import Path

import hypothesis
import pytest

import fused_kernels

ROOT = Path(__file__).parent

# Who starts the tests in the background of a shell has Ctrl-C ignored, and every process started
# here would inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# By default an example may take 200 ms and making the first ten a second, as a clock on the wall
# has it: less than Hypothesis takes to read the whole project, which it does once a checkout.
hypothesis.settings.register_profile(
    "without a clock",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("without a clock")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles what the processes that tests start import, once rather than in each: where
    PYTHONDONTWRITEBYTECODE is set, as in containers, none of them keeps what it has compiled."""
    if hasattr(config, "workerinput"):  # the process that started this one has done it
        return
    for folder in ("integrator", "codemods", "runtime"):
        compileall.compile_dir(ROOT / folder, quiet=2)
    folder_of_kernels = fused_kernels.prepare()
    if folder_of_kernels is not None:
        config.add_cleanup(lambda: shutil.rmtree(folder_of_kernels, ignore_errors=True))


def pytest_collection_finish() -> None:
    """What is there once all tests are known stays until the end: Python's garbage collector need
    not look at it again each time."""
    gc.collect()
    gc.freeze()
