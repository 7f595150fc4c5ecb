"""The Metal kernel for many queries and a bool mask, but for what a GPU computes: which tiles it is
told of, and when it is taken. See test_metal_tile_skipping.py for the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metal_kernel.calls import DEVICE, mlx

from mlx_flash_runtime import explain
from mlx_flash_runtime.kernels.metal import checked, intervals, mask_tiles, tile_skipping
from mlx_flash_runtime.ops import written_out
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.routes import metal_kernel


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


def test_a_bool_mask_is_taken_where_it_hides_enough() -> None:
    shape = 16384, 16384
    large = Problem(1, 32, 8, *shape, 128, 128, "bfloat16", "bool", shape)
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


def in_operations(*, inputs: list[mx.array], **call: Any) -> tuple[mx.array]:
    """What the kernel gives for its inputs, `[B, L, H, D_v]`, from what it is told of the mask."""
    q, k, v, factor, *said = inputs
    length, keys = q.shape[2], k.shape[2]
    if len(said[1].shape) == 1:
        first, last = (x[:, None] for x in said)
        sees = (mx.arange(keys) >= first) & (mx.arange(keys) <= last)
    else:
        mask, tiles = said
        size = dict(call["template"])["BK"]
        numbers = mx.arange(keys) // size
        block = mx.any(tiles[..., None, :] // 2 == numbers[:, None], axis=-1)
        sees = mask & mx.repeat(block, tile_skipping.BLOCK, axis=-2)[..., :length, :]
    return (written_out.attention(q, k, v, scale=factor[0], mask=sees).swapaxes(1, 2),)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's operations, in the place of the kernel."""
    monkeypatch.setattr(checked, "is_right", lambda problem: True)
    monkeypatch.setattr(tile_skipping, "_kernel", lambda *kind: in_operations)


@pytest.fixture
def any_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs whether or not a mask hides enough."""
    monkeypatch.setattr(mask_tiles.Looks, "hides_enough", lambda *masks: True)


def test_mlx_s_own_attention_runs_where_a_mask_hides_too_little(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bool] = []

    def kernel(**call: Any) -> tuple[mx.array]:
        taken.append(True)
        return in_operations(**call)

    monkeypatch.setattr(tile_skipping, "_kernel", lambda *kind: kernel)
    monkeypatch.setattr(metal_kernel, "most_seen", lambda problem, device: 0.3)
    q = mx.random.normal((1, 2, 256, 64))
    problem = Problem.of(q, q, q, blocks(256, 64))
    assert problem is not None
    run = metal_kernel.launch(problem, DEVICE, None)
    for size, is_ours in ((64, True), (256, False)):
        taken.clear()
        mask = blocks(256, size)
        out = run(q, q, q, scale=0.125, mask=mask, sinks=None)
        assert mx.allclose(out, mlx(q, q, q, scale=0.125, mask=mask), atol=1e-5)
        assert bool(taken) == is_ours


@pytest.mark.parametrize("in_place", [False, True])
def test_a_replay_goes_by_the_mask_that_it_is_given(
    in_place: bool, stand_in: None, any_mask: None
) -> None:
    """Within `mx.compile`, and of a mask that is changed in place."""
    q = mx.random.normal((2, 2, 96, 64))
    mask = blocks(96, 40)
    problem = Problem.of(q, q, q, mask)
    assert problem is not None
    run = metal_kernel.launch(problem, DEVICE, None)
    traces = []

    def attend(q: mx.array, mask: mx.array) -> mx.array:
        traces.append(1)
        return run(q, q, q, scale=0.125, mask=mask, sinks=None)

    function = attend if in_place else mx.compile(attend)
    for size in (40, 32, 7):
        q = q + 1
        if in_place:
            mask[:] = blocks(96, size)
        else:
            mask = blocks(96, size)
        wanted = mlx(q, q, q, scale=0.125, mask=mask)
        assert mx.allclose(function(q, mask), wanted, atol=1e-5)
    assert len(traces) == (3 if in_place else 1)


def test_a_window_is_replayed(stand_in: None) -> None:
    q, mask = mx.random.normal((1, 2, 96, 64)), window_mask(96, 21)
    problem = Problem.of(q, q, q, mask)
    assert problem is not None
    run = metal_kernel.launch(problem, DEVICE, None)
    intervals.keys_of_queries.cache_clear()
    compiled = mx.compile(lambda q: run(q, q, q, scale=0.125, mask=mask, sinks=None))
    for x in (q, q + 1):
        assert mx.allclose(compiled(x), mlx(x, x, x, scale=0.125, mask=mask), atol=1e-5)


def test_within_compile_a_mask_is_not_looked_at() -> None:
    looks = mask_tiles.Looks(32, 32, 1.0)
    found: list[bool] = []

    def look(mask: mx.array) -> mx.array:
        found.append(looks.hides_enough(mask, mask[None, None]))
        return mask

    mx.compile(look)(blocks(96, 32))
    assert found == [False]
    assert looks.left == mask_tiles._MOST_LOOKS
