"""MLX's own kernel for many queries, told to skip what a mask hides: from the headers of the MLX
that is here, by emulated threads, against attention in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mlx.core as mx
import numpy as np
import pytest
from attention_cases import Case, assert_as_exact_as, make, runner
from backends import pretend
from hypothesis import given, settings
from hypothesis import strategies as st
from metal_kernel import emulated
from metal_kernel.calls import DEVICE, mlx, sizes
from metal_kernel.translation import Failure

from mlx_flash_runtime import explain
from mlx_flash_runtime.kernels.metal import checked, kernel, mask_tiles, steel, tile_skipping
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Prefix, Segments, Structure, Window
from mlx_flash_runtime.routes import metal_kernel, reference

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),
]


def forget() -> None:
    tile_skipping._kernel.cache_clear()
    steel.text.cache_clear()
    checked.run.cache_clear()


@pytest.fixture
def on_metal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pretend(monkeypatch, DEVICE)
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    monkeypatch.setattr(steel, "_read", emulated.header)
    monkeypatch.setattr(checked, "why_not", lambda: "")
    forget()
    yield
    forget()


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


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*(st.integers(1, 70) for _ in range(2))),
    axes=st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 3)]),
    block=st.integers(2, 20),
    seed=st.integers(0, 9),
)
def test_the_tiles_of_a_mask(
    sizes: tuple[int, int], axes: tuple[int, int], block: int, seed: int
) -> None:
    """Each by a loop; `block` is the size of what is seen or hidden together."""
    random = np.random.default_rng(seed)
    coarse = random.random((*axes, *(-(-size // block) for size in sizes))) < 0.4
    mask = coarse.repeat(block, -1).repeat(block, -2)[..., : sizes[0], : sizes[1]]
    found = np.array(mask_tiles.of(mx.array(mask), 32, 16)).reshape(-1)
    count = -(-sizes[1] // 16)
    expected: list[int] = []
    shown = 0
    for head in mask.reshape(-1, *sizes):
        for start in range(0, sizes[0], 32):
            rows = head[start : start + 32]
            is_blind = not rows.any(axis=-1).all()
            row = []
            for tile in range(count):
                seen = rows[:, 16 * tile : 16 * tile + 16]
                if seen.any() or is_blind:
                    row.append(2 * tile + (not (seen.all() and seen.shape == (32, 16))))
            shown += len(row)
            expected += row + [2 * count] * (count + 1 - len(row))
    assert found.tolist() == expected
    share = mask_tiles._share(mx.array(mask), 32, 16)
    assert share == pytest.approx(shown * (count + 1) / len(expected) / count)


def blocks(length: int, size: int) -> mx.array:
    """A mask by which each query sees the keys of its own block."""
    block = mx.arange(length) // size
    return block[:, None] == block


def test_a_mask_is_looked_at_once() -> None:
    looks = mask_tiles.Looks(32, 32, 0.3)
    mask = blocks(256, 64)
    assert looks.hides_enough(mask, mask[None, None])
    key = id(mask), 32, 32
    assert mask_tiles._shares[key] == 0.25
    mask[:] = True
    assert looks.hides_enough(mask, mask[None, None])
    del mask
    assert key not in mask_tiles._shares


def test_masks_that_hide_too_little_are_no_longer_looked_at() -> None:
    looks = mask_tiles.Looks(32, 32, 0.3)
    kept = [blocks(256, 128) for _ in range(mask_tiles._MOST_LOOKS)]
    for mask in kept:
        assert not looks.hides_enough(mask, mask[None, None])
    sparse = blocks(256, 32)
    assert not looks.hides_enough(sparse, sparse[None, None])
    assert (id(sparse), 32, 32) not in mask_tiles._shares


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
    first, last = tile_skipping._seen(problem)
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


def test_a_bool_mask_is_taken_where_it_hides_enough(
    on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = prefill("bool", None, mask_shape=(16384, 16384))
    told = explain(large, device=DEVICE)
    assert told.route == "metal_kernel"
    assert told.most_seen == pytest.approx(0.49, abs=0.01)
    assert "if the mask hid nothing; it may leave 49% of its tiles" in str(told)
    # The matrix units of an M5 are four times as fast, and this kernel has no use of them.
    on_m5 = explain(large, device=replace(DEVICE, nax=True))
    assert on_m5.most_seen == pytest.approx(0.14, abs=0.01)
    assert explain(replace(large, training=True), device=DEVICE).route != "metal_kernel"
    short = replace(large, query_length=256, key_length=256, mask_shape=(256, 256))
    assert explain(short, device=DEVICE).route == "native"


def test_mlx_s_own_attention_runs_where_a_mask_hides_too_little(
    on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "is_right", lambda problem: True)
    monkeypatch.setattr(kernel, "attention", lambda problem, arrays, bits: arrays[0])
    monkeypatch.setattr(metal_kernel, "most_seen", lambda problem, device: 0.3)
    q = mx.random.normal((1, 2, 256, 64))
    problem = Problem.of(q, q, q, blocks(256, 64))
    assert problem is not None
    run = metal_kernel.launch(problem, DEVICE, None)
    for size, is_ours in ((64, True), (256, False)):
        mask = blocks(256, size)
        out = run(q, q, q, scale=0.125, mask=mask, sinks=None)
        assert mx.array_equal(out, q if is_ours else mlx(q, q, q, scale=0.125, mask=mask))
