"""MLX's own kernel for many queries, told to skip what a mask hides: from the headers of the MLX
that is here, by emulated threads, against attention in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mlx.core as mx
import numpy as np
import pytest
from attention_cases import Case, assert_as_exact_as, make, runner
from metal_kernel import emulated
from metal_kernel.calls import DEVICE, mlx, sizes
from metal_kernel.on_steel import forget, metal_of_steel, read_here  # noqa: F401  # a fixture
from metal_kernel.translation import Failure

from mlx_flash_runtime import explain
from mlx_flash_runtime.kernels.metal import checked, intervals, mask_tiles, steel
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Prefix, Segments, Structure, Window
from mlx_flash_runtime.routes import metal_kernel, reference

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),
]


@pytest.fixture
def any_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs whether or not a mask hides enough."""
    monkeypatch.setattr(mask_tiles.Looks, "hides_enough", lambda *masks: True)


CASES = {
    "a window": (Case(70, 70, mask=("window", (20,)), **sizes(64)), mx.float32),
    "a window of one key": (Case(70, 70, mask=("window", (1,)), **sizes(64)), mx.float32),
    "a chunk after a cache": (
        Case(64, 200, heads=4, key_heads=2, batch=2, mask=("window", (33,)), **sizes(64)),
        mx.float32,
    ),
    "documents": (
        Case(100, 100, mask=("segments", (1, 40, 31, 28)), sinks=True, **sizes(128)),
        mx.float16,
    ),
    "a prefix": (Case(70, 70, mask=("prefix", (45,)), **sizes(96, 64)), mx.bfloat16),
    "causal": (Case(49, 81, heads=4, mask="causal", **sizes(192, 128)), mx.bfloat16),
    "head dim 72": (Case(64, 96, mask=("window", (40,)), **sizes(72)), mx.float16),
    "a bool mask": (Case(70, 100, mask=("rows hidden", (70, 100)), **sizes(80)), mx.float32),
    "a bool mask for each batch": (
        Case(64, 96, heads=4, batch=2, mask=("bool", (2, 1, 1, 96)), sinks=True, **sizes(128)),
        mx.bfloat16,
    ),
    "a bool mask for each head": (
        Case(64, 96, batch=2, mask=("bool", (2, 1, 96)), **sizes(192, 128)),
        mx.float16,
    ),
}


@pytest.mark.parametrize(("case", "dtype"), CASES.values(), ids=CASES)
def test_it_is_as_exact_as_mlx(case: Case, dtype: mx.Dtype, on_metal: None, any_mask: None) -> None:
    """Behind the check that a Mac makes."""
    assert_as_exact_as(mlx, runner(metal_kernel, None), make(case, dtype))


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_tiles_that_a_mask_hides(softcap: float | None, on_metal: None, any_mask: None) -> None:
    """Of documents in no order, one of which has no keys."""
    case = Case(100, 140, key_heads=1, sinks=softcap is None, softcap=softcap, **sizes(64))
    call = make(case, mx.float32)
    of_query = np.repeat([2, 0, 1, 3], [40, 20, 39, 1])
    of_key = np.repeat([1, 2, 0], [33, 63, 44])
    call.mask = mx.array(of_query[:, None] == of_key)
    assert_as_exact_as(runner(reference, None, softcap), runner(metal_kernel, None, softcap), call)


@pytest.mark.parametrize(
    ("name", "line", "instead"),
    [
        ("_INTERVALS", "last[last_query] / BK + 1", "last[last_query] / BK"),
        ("_INTERVALS", "first[first_query] / BK", "first[last_query] / BK"),
        ("_INTERVALS", "key + jj > to", "key + jj >= to"),
        ("_INTERVALS", "kb * BK < first[last_query]", "kb * BK < first[first_query]"),
        ("_INTERVALS", "j < own_tile_t::kTileCols", "j <= own_tile_t::kTileCols"),
        ("_TILES", "(kb - next_kb) * loader_k", "(kb) * loader_k"),
        ("_TILES", "tiles[own_tile] % 2 == 1", "tiles[own_tile] % 2 == 2"),
    ],
)
def test_what_is_broken_shows(
    name: str, line: str, instead: str, on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = getattr(steel, name)
    broken = tuple(one._replace(text=one.text.replace(line, instead)) for one in changes)
    assert broken != changes
    monkeypatch.setattr(steel, name, broken)
    structure = Window(40) if name == "_INTERVALS" else None
    mask: MaskKind = "window" if structure else "bool"
    small = Problem(1, 2, 1, 70, 134, 64, 64, "float32", mask, (), structure)
    assert is_found(small)


def is_found(small: Problem) -> bool:
    """Whether the kernel, as it now is, is wrong, or does what it may not."""
    try:
        return not checked._error(small, None) < 1e-3
    except Failure:
        return True


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pointers_keep_to_their_address_spaces(
    dtype: str, on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of MLX's text, too, which is looked at with ours."""
    address_spaces = pytest.importorskip("metal_kernel.address_spaces")
    found: list[str] = []
    monkeypatch.setattr(mx.fast, "metal_kernel", address_spaces.noting(found))
    monkeypatch.setattr(steel, "_read", read_here)
    window = Problem(1, 2, 1, 70, 134, 96, 64, dtype, "window", (), Window(40), True, 2.0)
    masked = replace(window, mask="bool", structure=None, sinks=False, softcap=None)
    for one in (window, masked):
        checked._error(one, None)
    assert found == []
    for name, line in (("_INTERVALS", "first"), ("_TILES", "tiles")):
        wrong = f"const threadgroup int* wrong = {line};\n"
        one = getattr(steel, name)[0]
        changed = one._replace(text=one.text.replace("if (SOFTCAP)", f"{wrong}if (SOFTCAP)"))
        monkeypatch.setattr(steel, name, (changed, *getattr(steel, name)[1:]))
    forget()
    for problem in (window, masked):
        found.clear()
        checked._error(problem, None)
        assert len(found) == 1
        assert "__global" in found[0]


@pytest.mark.xdist_group("mlx-metal")
def test_the_newest_headers_are_known(
    metal_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(metal_wheel) as files:
        names = [name for name in files.namelist() if name.startswith("mlx/include/mlx/backend")]
        files.extractall(tmp_path, names)

    def read(name: str) -> str:
        return (tmp_path / "mlx" / "include" / name).read_text(encoding="utf-8")

    monkeypatch.setattr(steel, "_read", read)
    steel.text.cache_clear()
    assert "first_block" in steel.text().body
    steel.text.cache_clear()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("kb < kb_lim", "kb != kb_lim"),
        ("int BV,", ""),  # as before 0.32.3, where values had no head dim of their own
    ],
)
def test_other_headers_have_no_such_kernel(
    line: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = steel._read
    monkeypatch.setattr(steel, "_read", lambda name: original(name).replace(line, instead))
    steel.text.cache_clear()
    window = Problem(1, 2, 1, 4096, 4096, 64, 64, "float32", "window", (), Window(33))
    holds, reason = metal_kernel.holds(window, DEVICE)
    steel.text.cache_clear()
    assert not holds
    assert "headers of this MLX's kernel are not those" in reason


@pytest.mark.parametrize(
    ("mask", "structure", "queries", "keys"),
    [
        ("causal", None, 5, 9),
        ("window", Window(3), 50, 90),
        ("prefix", Prefix(20), 70, 70),
        ("segments", Segments((1, 40, 31, 28)), 100, 100),
        ("segments", Segments((3, 2)), 4, 5),
    ],
)
def test_each_query_has_the_first_and_the_last_key_that_it_sees(
    mask: MaskKind, structure: Structure | None, queries: int, keys: int
) -> None:
    problem = Problem(1, 1, 1, queries, keys, 64, 64, "float32", mask, (), structure)
    visible, positions = problem.visible, range(keys - queries, keys)
    assert visible is not None
    first, last = intervals.keys_of_queries(problem)
    assert first.tolist() == [visible.first(position) for position in positions]
    assert last.tolist() == [visible.last(position) for position in positions]


def prefill(mask: MaskKind, structure: Structure | None, **changes: Any) -> Problem:
    """A prompt of 16,384 tokens."""
    shape = () if structure is None else (16384, 16384)
    case = Problem(1, 32, 8, 16384, 16384, 128, 128, "bfloat16", mask, shape, structure)
    return replace(case, **changes)


def test_where_it_promises_half_of_mlx_s_own_way_it_is_taken() -> None:
    """But not where a rewriting serves, which asks for no more than MLX's own kernels."""
    folded, long = (prefill("window", Window(size)) for size in (1024, 16000))
    told = explain(folded, device=DEVICE)
    assert told.route == "lowered"
    assert told.kernel_work is not None
    assert told.kernel_work.cost(DEVICE) < 0.1 * told.stock_work.cost(DEVICE)
    assert explain(long, device=DEVICE).route == "metal_kernel"
    assert explain(replace(long, training=True), device=DEVICE).route != "metal_kernel"
    assert explain(prefill("causal", None), device=DEVICE).route == "native"
    latents = prefill("causal", None, head_dim=192)
    assert explain(latents, device=DEVICE).route != "metal_kernel"
    assert metal_kernel.holds(latents, DEVICE)[0]
