"""The threads of Metal kernels without a Mac, see `metal_kernel/emulated.py`: that MLX's own kernel
is right in this emulation, and that what would be wrong on a Mac is wrong in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mlx.core as mx
import pytest
from metal_kernel import emulated
from metal_kernel.translation import INCLUDE, Failure, compiled, flattened

STEEL = "mlx/backend/metal/kernels/steel/attn/kernels/steel_attention.h"

pytestmark = pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not()))


@pytest.mark.xdist_group("mlx-metal")
def test_the_kernel_of_mlx_is_right(metal_wheel: Path, tmp_path: Path) -> None:
    with ZipFile(metal_wheel) as files:
        headers = [name for name in files.namelist() if "/kernels/steel/" in name]
        files.extractall(tmp_path, headers)
    header = tmp_path / "steel_attention.h"
    folders = [INCLUDE, tmp_path / "mlx" / "include"]
    header.write_text(flattened(STEEL, folders), encoding="utf-8")
    program = Path(__file__).parent / "metal_kernel" / "stock_kernel.cpp"
    source = program.read_text(encoding="utf-8")
    binary = compiled(source, "stock_kernel", f'-DKERNEL="{header}"')
    done = subprocess.run([binary], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert "\n0 failures" in done.stdout


REVERSED = """
  threadgroup float held[THREADS];
  const uint own = thread_index_in_threadgroup;
  held[own] = x[own];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[own] = held[THREADS - 1 - own];
"""


def run(source: str, threads: int = 64) -> mx.array:
    """A kernel that reverses its input, or what became of it."""
    kernel = emulated.metal_kernel("reversed", ["x"], ["y"], source)
    (y,) = kernel(
        inputs=[mx.arange(threads, dtype=mx.float32)],
        template=[("THREADS", threads)],
        output_shapes=[(threads,)],
        output_dtypes=[mx.float32],
        grid=(threads, 1, 1),
        threadgroup=(threads, 1, 1),
    )
    return y


def test_a_kernel_with_threadgroup_memory_runs() -> None:
    assert mx.array_equal(run(REVERSED), mx.arange(64, dtype=mx.float32)[::-1])


@pytest.mark.parametrize(
    ("line", "instead", "fault"),
    [
        ("threadgroup_barrier(mem_flags::mem_threadgroup);", "", "order of the simdgroups"),
        (
            "threadgroup_barrier(mem_flags::mem_threadgroup);",
            "if (own < 32) threadgroup_barrier(mem_flags::mem_threadgroup);",
            "for ever",
        ),
        ("y[own] =", "y[own + 1] =", "beyond its outputs"),
        ("held[THREADS];", "held[THREADS * 129];", "32 KiB"),
        ("held[own] = x[own];", "held[own] = z[own];", "was not declared"),
    ],
)
def test_what_is_broken_shows(line: str, instead: str, fault: str) -> None:
    assert line in REVERSED
    with pytest.raises(Failure, match=fault):
        run(REVERSED.replace(line, instead))


def test_what_lies_beyond_an_input_is_nan() -> None:
    assert mx.isnan(run("y[thread_index_in_threadgroup] = x[thread_index_in_threadgroup + 1];")[-1])


def test_rows_of_an_array_of_any_strides_lie_apart() -> None:
    def kernel(**options: Any) -> mx.array:
        source = "y[0] = x_strides[0] > 12;"
        kernel = emulated.metal_kernel("stride", ["x"], ["y"], source, **options)
        shapes = {"output_shapes": [(1,)], "output_dtypes": [mx.float32]}
        (y,) = kernel(
            inputs=[mx.zeros((2, 3, 4))], grid=(32, 1, 1), threadgroup=(32, 1, 1), **shapes
        )
        return y

    assert kernel().item() == 0
    assert kernel(ensure_row_contiguous=False).item() == 1


def test_a_pointer_of_another_address_space_shows() -> None:
    address_spaces = pytest.importorskip("metal_kernel.address_spaces")
    kernel = emulated.metal_kernel("reversed", ["x"], ["y"], REVERSED)
    text = kernel.text(
        [mx.zeros((64,))],
        template=[("THREADS", 64)],
        output_shapes=[(64,)],
        output_dtypes=[mx.float32],
        grid=(64, 1, 1),
        threadgroup=(64, 1, 1),
    )
    assert address_spaces.faults(text) == []
    for space in ("device", "thread", "constant"):
        wrong = text.replace("y[own] =", f"const {space} float* z = held; y[own] = z[own] +")
        (fault,) = address_spaces.faults(wrong)
        assert "__local" in fault
