"""What the planner has seen before changes nothing: it plans a call as one that is new would."""

from __future__ import annotations

import random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.settings import Settings

Arguments = tuple[Any, Any, Any, Any, Any, Any]


def wrong_values(shape: tuple[int, ...], dtype: mx.Dtype) -> list[Any]:
    """Arrays of nearly that shape and type, and what is no array."""
    return [
        mx.zeros(shape, mx.int32),
        mx.zeros(shape, mx.float16),
        mx.zeros(shape, mx.complex64),
        mx.zeros(shape[:-1], dtype),
        mx.zeros((*shape[:2], shape[2] + 1, shape[3]), dtype),
        mx.zeros((*shape[:3], shape[3] + 8), dtype),
        mx.zeros((shape[0], shape[1] + 1, *shape[2:]), dtype),
        mx.zeros((2 * shape[0], *shape[1:]), dtype),
        np.zeros(shape, np.float32),
        mx.zeros(shape, dtype).tolist(),
        None,
    ]


def any_arguments(rng: random.Random) -> Arguments:
    """Arguments of a call, right or wrong, of few shapes: the same ones come again and again."""
    queries = rng.choice([1, 1, 2, 24])
    keys = rng.choice([24, 30, 33])
    shapes = [(1, 4, queries, 16), (1, 2, keys, 16), (1, 2, keys, 16)]
    arrays: list[Any] = [mx.zeros(shape) for shape in shapes]
    wrong = rng.randrange(6)
    if wrong < 3:
        arrays[wrong] = rng.choice(wrong_values(shapes[wrong], mx.float32))
    structured = window_mask(min(queries, keys), 8, keys)
    changed = window_mask(min(queries, keys), 8, keys)
    changed[0, 0] = False
    masks: list[Any] = [
        None,
        None,
        "causal",
        "full",
        "",
        mx.ones((queries, keys), mx.bool_),
        mx.zeros((queries, keys)),
        mx.zeros((1, 4, queries, keys)),
        mx.ones((1, 1, 1, keys), mx.bool_),
        mx.zeros((keys,)),
        mx.zeros((keys,), mx.int32),
        mx.zeros((queries, keys + 1)),
        mx.zeros((5, keys)),
        mx.zeros((1, 1, 1, 1, keys)),
        mx.array(True),
        structured,
        changed,
        np.ones((queries, keys), bool),
        [[True]],
        7,
    ]
    sinks = [None, None, None, mx.zeros((4,)), mx.zeros((2,)), mx.zeros((4,), mx.int32), [0.0] * 4]
    softcaps = [None, None, None, 30.0, 50.0]
    mask = rng.choice(masks) if wrong > 3 else rng.choice([None, "causal", masks[7]])
    sink = rng.choice(sinks) if wrong > 4 else None
    return (*arrays, mask, sink, rng.choice(softcaps))


# None is this machine, with first calls and gradients as they are here.
DEVICES: list[Device | None] = [
    None,
    Device("metal", (0, 32, 4), 2**34),
    Device("cuda", (0, 32, 4), 2**37, own_kernel=True),
]


def told(planner: Planner, arguments: Arguments) -> tuple[Any, Any]:
    """How a call is counted, and for which problem it is run; MLX's own function runs any."""
    plan = planner.lookup(*arguments)
    runs_any = plan.choice is None or plan.choice.route.is_stock
    return plan.kind, None if runs_any else plan.problem


@pytest.mark.parametrize("route", [None, "blockwise"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("device", DEVICES, ids=["here", "metal", "cuda"])
def test_what_was_seen_before_changes_no_plan(
    device: Device | None, training: bool, route: str | None
) -> None:
    def make() -> Planner:
        return Planner(Settings(True, None, route), device, training)

    rng = random.Random(7)
    seen = make()
    for _ in range(600):
        arguments = any_arguments(rng)
        assert told(seen, arguments) == told(make(), arguments), arguments
