"""The CUDA kernel's threads without a GPU: as fibers of a C++ program in which its instructions
are emulated, compiled here, against attention in double. What it cannot tell is how fast it is,
and whether a GPU does as the emulation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_cpu_arithmetic import COMPILER

import mlx_flash_runtime

KERNEL = Path(mlx_flash_runtime.__file__).parent / "kernels" / "cuda" / "device"
TESTS = Path(__file__).parent / "cuda_kernel"
# By what the kernel's header has in its name.
PROGRAMS = {
    "gradient": "check_gradient.cpp",
    "few_queries": "check_few_queries.cpp",
    "attention": "check.cpp",
}

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="fibers are those of Linux's C library"),
]
FLAGS = (
    "-std=c++20",
    "-O1",
    "-U_FORTIFY_SOURCE",  # by which a jump to another fiber is taken for a fault
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)


@pytest.fixture(scope="session")
def standard_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """C++'s own headers as one that is compiled ahead: to read them takes as long as the rest."""
    header = tmp_path_factory.mktemp("headers") / "standard_library.h"
    text = (TESTS / "instructions.cuh").read_text(encoding="utf-8")
    included = [*re.findall(r"#include <\S+>", text), "#include <random>"]
    header.write_text("\n".join(included) + "\n", encoding="utf-8")
    command = [str(COMPILER), *FLAGS, "-x", "c++-header", str(header), "-o", f"{header}.gch"]
    subprocess.run(command, check=True)
    return header


def build(folder: Path, header: str, standard_library: Path, *more: str) -> Path:
    """Compiles the check of the kernel of that header with the emulated instructions, and with what
    the folder has of it already; `more` are flags for the compiler."""
    for path in [*TESTS.iterdir(), *KERNEL.glob("*.cuh")]:
        if not (folder / path.name).exists():
            shutil.copy(path, folder)
    flags = [*FLAGS, "-include", str(standard_library), f'-DHEADER="{header}"', *more]
    if header.startswith("warpgroup"):
        flags.append("-DBY_WARPGROUPS")
    program = next(name for word, name in PROGRAMS.items() if word in header)
    binary = folder / "check"
    done = subprocess.run(
        [str(COMPILER), *flags, str(folder / program), "-o", str(binary)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return binary


@pytest.mark.parametrize(
    "header",
    [
        "attention.cuh",
        "warpgroup_attention.cuh",
        "gradient.cuh",
        "warpgroup_gradient.cuh",
        "few_queries.cuh",
    ],
)
def test_every_case_is_within_the_rounding_of_its_type(
    header: str, standard_library: Path, tmp_path: Path
) -> None:
    binary = build(tmp_path, header, standard_library)
    done = subprocess.run([binary], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert " 0 failures" in done.stdout


@pytest.mark.parametrize(
    ("header", "broken", "line", "instead"),
    [
        (
            "warpgroup_attention.cuh",
            "warpgroup_attention.cuh",
            "wait_for_products<1>(own.scores);",
            "wait_for_products<2>(own.scores);",
        ),
        (
            "warpgroup_attention.cuh",
            "warpgroup_attention.cuh",
            "if (block + 1 < blocks) tiles.keys.wait_until_full(block + 1);",
            "",
        ),
        (
            "warpgroup_attention.cuh",
            "warpgroup_attention.cuh",
            "tiles.keys.arrive_empty(block);",
            "",
        ),
        (
            "warpgroup_attention.cuh",
            "warpgroup_products.cuh",
            "if (block >= STAGES) empty",
            "if (block >= 4) empty",
        ),
        ("warpgroup_attention.cuh", "warpgroup_products.cuh", "chunk % 8 ^ row % 8", "chunk % 8"),
        (
            "warpgroup_attention.cuh",
            "softmax.cuh",
            "key + i <= own_key - mask.window",
            "key + i < own_key - mask.window",
        ),
        (
            "warpgroup_gradient.cuh",
            "warpgroup_gradient.cuh",
            "if (block + 1 < all_blocks) tiles.passing.wait_until_full(block + 1);",
            "",
        ),
        (
            "warpgroup_gradient.cuh",
            "warpgroup_gradient.cuh",
            "wait_for_products<It::of_dv && !Consumer::full ? 1 : 0>(consumer.gradients);",
            "wait_for_products<2>(consumer.gradients);",
        ),
        (
            "warpgroup_gradient.cuh",
            "weights.cuh",
            "if (sum == infinity()) x = 0;",
            "if (sum == 0) x = 0;",
        ),
        (
            "warpgroup_gradient.cuh",
            "weights.cuh",
            "(keys - queries) + mask.window)",
            "(keys - queries) + mask.window - 64)",
        ),
        (
            "warpgroup_gradient.cuh",
            "warpgroup_gradient.cuh",
            "states + head * heads.states + start",
            "states + start",
        ),
        ("gradient.cuh", "sides.cuh", "multiplied(b[j * dout.step])", "widen(b[j * dout.step])"),
        (
            "gradient.cuh",
            "sides.cuh",
            "multiplied(reinterpret_cast<const T*>(&of_b)[j])",
            "widen(reinterpret_cast<const T*>(&of_b)[j])",
        ),
        ("few_queries.cuh", "folded_rows.cuh", "keys - folded.length + folded.query(row)", "row"),
        ("few_queries.cuh", "folded_rows.cuh", "if (key >= keys) x = -infinity();", ""),
        ("few_queries.cuh", "few_queries.cuh", "masks.read(start + KEYS_AT_ONCE);", ""),
        (
            "few_queries.cuh",
            "few_queries.cuh",
            "exchanged + i % 2 * WARPS",
            "exchanged + 0 * WARPS",
        ),
        ("few_queries.cuh", "key_readers.cuh", "column * BITS / 32 + i", "column * BITS / 32"),
        ("few_queries.cuh", "parts.cuh", "store_flag(flags + split, 0);", ";"),
        ("few_queries.cuh", "parts.cuh", "sum += weight * state.y;", "sum += state.y;"),
    ],
)
def test_what_is_broken_shows(
    header: str, broken: str, line: str, instead: str, standard_library: Path, tmp_path: Path
) -> None:
    text = (KERNEL / broken).read_text(encoding="utf-8")
    assert line in text
    (tmp_path / broken).write_text(text.replace(line, instead), encoding="utf-8")
    binary = build(tmp_path, header, standard_library, "-DBRIEF")
    done = subprocess.run([binary, "first"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
