"""A watch: whether the newest release of MLX for Macs has a kernel for attention, or a reason
against one, that this package has not looked at.

`metal_wheel.json` has the names of the kernels and the texts of the reasons in the wheel that the
newest table was read from. Where this fails, MLX has changed: read what it fuses now, add a data
file to `stock/releases/` if it is something else, and bring `metal_wheel.json` up to date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest

from mlx_flash_runtime.stock.release import mlx_release
from mlx_flash_runtime.stock.table import tables

pytestmark = pytest.mark.xdist_group("mlx-metal")  # one download
KNOWN = json.loads(Path(__file__).with_name("metal_wheel.json").read_text(encoding="utf-8"))
KERNEL = re.compile(rb"(?:steel_attention|sdpa)_[a-z0-9_]+(?=\0)")
# What stands around the reasons in the library, whose texts follow each other.
FIRST_REASON, AFTER_THEM = b"the fused kernels require a GPU", b"sdpa_vector_2pass_1"


class Wheel(NamedTuple):
    release: str
    kernels: list[str]
    reasons: list[str]


def kernels_in(library: bytes) -> list[str]:
    """Those for float16, of any mask: the others differ in that alone."""
    names = {name.decode() for name in KERNEL.findall(library)}
    names = {re.sub("_float16(_t)?", "", name, count=1) for name in names if "_float16" in name}
    return sorted({re.sub("_mask[a-z0-9]+_?$", "", name) for name in names})


def reasons_in(library: bytes) -> list[str]:
    start = library.index(FIRST_REASON)
    texts = library[start : library.index(AFTER_THEM, start)].split(b"\0")
    return sorted({text.decode() for text in texts if text})


@pytest.fixture(scope="module")
def newest(metal_wheel: Path) -> Wheel:
    with ZipFile(metal_wheel) as files:
        kernels = kernels_in(files.read("mlx/lib/mlx.metallib"))
        reasons = reasons_in(files.read("mlx/lib/libmlx.dylib"))
    return Wheel(metal_wheel.name.split("-")[1], kernels, reasons)


def test_the_newest_release_has_no_kernel_that_is_new(newest: Wheel) -> None:
    assert newest.kernels == KNOWN["kernels"], f"MLX {newest.release} has other kernels"


def test_the_newest_release_has_no_reason_that_is_new(newest: Wheel) -> None:
    assert newest.reasons == KNOWN["reasons"], f"MLX {newest.release} has other reasons"


def test_the_names_are_of_the_release_of_the_newest_table() -> None:
    newest_table = max(table.releases[-1] for table in tables() if "metal_nax" in table.families)
    assert mlx_release(KNOWN["release"]) == newest_table
    # Every head dim that the table has a kernel of its own for is in their names.
    few = {name for name in KNOWN["kernels"] if name.startswith("sdpa_vector_")}
    assert {name.removeprefix("sdpa_vector_") for name in few if "pass" not in name} == {
        "64_64",
        "96_64",
        "96_96",
        "128_128",
        "192_128",
        "192_192",
        "256_256",
        "512_512",
    }
