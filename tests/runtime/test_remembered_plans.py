"""What the planner has seen before changes nothing: it plans a call as one that is new would."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.settings import Settings

Arguments = tuple[Any, Any, Any, Any, Any, Any]


class Lookalike:
    """Has the shape and the type of an array, and is none."""

    def __init__(self, array: mx.array) -> None:
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim


def with_wrong_values(shape: tuple[int, ...], dtype: mx.Dtype) -> list[Any]:
    """Arrays of nearly that shape and type, and what is no array."""
    array = mx.zeros(shape, dtype)
    return [
        array,
        array,
        array,
        mx.zeros(shape, mx.int32),
        mx.zeros(shape, mx.float16),
        mx.zeros(shape, mx.complex64),
        mx.zeros(shape[:-1], dtype),
        mx.zeros((*shape[:2], shape[2] + 1, shape[3]), dtype),
        mx.zeros((*shape[:3], shape[3] + 8), dtype),
        mx.zeros((shape[0], shape[1] + 1, *shape[2:]), dtype),
        mx.zeros((2 * shape[0], *shape[1:]), dtype),
        np.zeros(shape, np.float32),
        array.tolist(),
        None,
    ]


def any_arguments(rng: random.Random) -> Arguments:
    """Arguments of a call, right or wrong, of few shapes: the same ones come again and again."""
    queries = rng.choice([1, 1, 2, 24])
    keys = rng.choice([24, 30, 33])
    q = rng.choice(with_wrong_values((1, 4, queries, 16), mx.float32))
    k = rng.choice(with_wrong_values((1, 2, keys, 16), mx.float32))
    v = rng.choice(with_wrong_values((1, 2, keys, 16), mx.float32))
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
    return q, k, v, rng.choice(masks), rng.choice(sinks), rng.choice(softcaps)


# None is this machine, with first calls and gradients as they are here.
DEVICES: list[Device | None] = [
    None,
    Device("metal", (0, 32, 4), 2**34),
    Device("cuda", (0, 32, 4), 2**37, own_kernel=True),
]


def told(planner: Planner, arguments: Arguments) -> tuple[Any, Any]:
    plan = planner.lookup(*arguments)
    return plan.kind, plan.problem


@pytest.mark.parametrize("route", [None, "blockwise"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("device", DEVICES, ids=["here", "metal", "cuda"])
def test_what_was_seen_before_changes_no_plan(
    device: Device | None, training: bool, route: str | None
) -> None:
    make: Callable[[], Planner] = lambda: Planner(Settings(True, None, route), device, training)
    rng = random.Random(7)
    seen = make()
    for _ in range(600):
        arguments = any_arguments(rng)
        assert told(seen, arguments) == told(make(), arguments), arguments
