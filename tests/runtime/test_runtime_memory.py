"""Nothing that a program makes is held by the runtime alone, and a long run stays flat."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import mlx.core as mx
import pytest

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention, report
from mlx_flash_runtime.planning import layers

CALL = """\
def attend(x):
    return fast.scaled_dot_product_attention(x, x, x, scale=1.0)
"""


def made(number: int = 0) -> dict[str, Any]:
    """A program made of text, with another constant in it each time."""
    names: dict[str, Any] = {"fast": mx.fast}
    exec(compile(f"{CALL}number = {number}\n", "made", "exec"), names)
    return names


def test_code_that_a_program_has_made_goes_with_it() -> None:
    enable_flash_attention()
    x = mx.zeros((1, 1, 4, 8))
    tables = (layers._codes, layers._is_method, layers._by_site)
    made()["attend"](x)
    gc.collect()
    before = [len(table) for table in tables]
    codes = []
    for number in range(50):
        attend = made(number)["attend"]
        attend(x)
        codes.append(weakref.ref(attend.__code__))
        del attend
    gc.collect()
    assert [code() for code in codes] == [None] * 50
    assert [len(table) for table in tables] == before
    (layer,) = (layer for layer in report().as_dict()["layers"] if layer["name"].startswith("made"))
    assert layer["calls"] == 51


def one_round(number: int, calls: int) -> None:
    """Calls of many shapes in two threads, from code that is made anew, over toggles."""
    attend = made(number)["attend"]

    def work(offset: int) -> None:
        for index in range(calls):
            length = 1 + (number * calls + index * 7 + offset) % 1000
            attend(mx.zeros((1, 1, length, 8)))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 1)]
    for thread in threads:
        thread.start()
    enable_flash_attention(number % 2 == 0)
    for thread in threads:
        thread.join()
    enable_flash_attention()


@pytest.mark.parametrize("rounds", [int(os.environ.get("SOAK_ROUNDS", "16"))])
def test_a_long_run_stays_flat(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A small table of plans: full soon, so that what grows after that grows for ever.
    planner = sys.modules["mlx_flash_runtime.planning.planner"]
    monkeypatch.setattr(planner, "_MOST_PLANS", 100)
    sizes = []
    tracemalloc.start()
    try:
        for number in range(rounds):
            one_round(number, 250)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        disable_flash_attention()
    # The first rounds fill the tables. After that, 50 bytes kept for each call would show.
    filled = 6
    middle = (filled + rounds) // 2
    early, late = min(sizes[filled:middle]), min(sizes[middle:])
    assert late < early + 50 * 500 * (rounds - middle), sizes
