"""What the planner has seen before changes nothing: it plans a call as one that is new would."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_flash_runtime.patching import patch
from mlx_flash_runtime.planning.planner import Planner, forget_plans, planner_for
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


def outcome(attend: Any, arguments: list[Any], mask: Any) -> Any:
    """What a call gives: a type and a shape, or an error by its first line."""
    try:
        out = attend(*arguments, scale=0.25, mask=mask)
        mx.eval(out)
    except (TypeError, ValueError) as error:
        return type(error), str(error).splitlines()[0]
    return out.dtype, out.shape


@pytest.mark.parametrize("mask", [None, "causal"])
@pytest.mark.parametrize("route", [None, "unfused"])
def test_wrong_calls_end_as_without_the_patch_where_a_right_one_is_known(
    route: str | None, mask: Any
) -> None:
    right = [mx.zeros((1, 4, 24, 16)), mx.zeros((1, 2, 24, 16)), mx.zeros((1, 2, 24, 16))]
    wrong: list[list[Any]] = [[array.astype(mx.int32) for array in right]]
    for i, array in enumerate(right):
        wrong += [[*right[:i], value, *right[i + 1 :]] for value in wrongs(array)]
    wanted = [outcome(mx.fast.scaled_dot_product_attention, arguments, mask) for arguments in wrong]
    patch.install(Planner(Settings(True, None, route)))
    attend = mx.fast.scaled_dot_product_attention
    for arguments, expected in zip(wrong, wanted, strict=True):
        mx.eval(attend(*right, scale=0.25, mask=mask))
        assert outcome(attend, arguments, mask) == expected


def wrongs(array: mx.array) -> list[Any]:
    """What may stand in the place of that array by mistake: as many numbers in another shape too,
    which no plan is found by."""
    batch, heads, length, head_dim = array.shape
    as_many = [
        mx.zeros((batch, length, heads, head_dim)),
        mx.zeros((batch * heads, length, head_dim)),
        mx.zeros((batch, heads, length, head_dim // 4, 4)),
        mx.zeros((heads, batch, length, head_dim)),
        mx.zeros((batch, heads, length // 2, 2 * head_dim)),
    ]
    return wrong_values(array.shape, array.dtype) + as_many


def test_types_of_one_size_have_plans_of_their_own() -> None:
    planner = Planner(Settings(True, None, None))
    patch.install(planner)
    for dtype in (mx.bfloat16, mx.float16):
        q = mx.zeros((1, 4, 24, 16), dtype)
        mx.eval(mx.fast.scaled_dot_product_attention(q, q, q, scale=0.25))
    planned = {plan.problem.dtype for plan in planner.plans.values() if plan.problem}
    assert planned == {"bfloat16", "float16"}


def test_many_settings_do_not_grow_for_ever() -> None:
    planners = [weakref.ref(planner_for(Settings(True, 8 * i))) for i in range(1, 300)]
    gc.collect()
    assert sum(planner() is not None for planner in planners) < 100


def test_plans_are_forgotten_by_every_planner_in_use() -> None:
    in_use = planner_for(Settings(True, 8))
    q = mx.zeros((1, 4, 24, 16))
    in_use.lookup(q, q, q, None, None)
    for i in range(2, 300):
        planner_for(Settings(True, 8 * i))
    forget_plans()
    assert not in_use.plans
