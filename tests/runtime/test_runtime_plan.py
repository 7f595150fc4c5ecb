"""The routes of problems, for devices that are not here as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from backends import CPU, CUDA, KERNEL, KERNEL_80, METAL, METAL_31

from mlx_flash_runtime.planning.choice import choose
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock.release import mlx_release


def problem(
    length: int = 1024, keys: int | None = None, head_dim: int = 64, **changes: Any
) -> Problem:
    base = Problem(
        1, 16, 8, length, keys or length, head_dim, head_dim, dtype="bfloat16", mask="causal"
    )
    return replace(base, **changes)


def route(device: Device, case: Problem, **settings: Any) -> tuple[str, str]:
    return choose(case, device, Settings(enabled=True, **settings)).decision


FUSED = "MLX has a fused kernel"


@pytest.mark.parametrize(
    ("device", "case", "reason"),
    [
        (METAL, problem(), FUSED),
        (METAL, problem(mask="bool", mask_shape=(1024, 1024)), FUSED),
        (METAL, problem(dtype="float32", head_dim=96), FUSED),
        (METAL_31, problem(96, head_dim=96), "no fused kernel for this head dim,"),
        (METAL, problem(head_dim=256), "no fused kernel for this head dim,"),
        (METAL, problem(1, 4096, head_dim=256), FUSED),
        (
            METAL,
            problem(8, 4096, head_dim=80),
            "no fused kernel for this head dim with few queries",
        ),
        (METAL, problem(1, 4096, head_dim=192, value_head_dim=128), FUSED),
        (
            METAL_31,
            problem(1, 4096, head_dim=192, value_head_dim=128),
            "values of another head dim with few queries",
        ),
        (METAL, problem(head_dim=192, value_head_dim=128), "values of another head dim"),
        (METAL, problem(1024, 512), "a causal mask over more queries than keys"),
        (METAL, problem(1024, 512, mask="none"), FUSED),
        (METAL, problem(8, 4096, query_heads=64), "this many query heads per key head"),
        (METAL, problem(8, 4, mask="none"), "more queries than keys"),
        (CUDA, problem(), FUSED),
        (CUDA, problem(head_dim=40), FUSED),
        (CUDA, problem(mask="none", head_dim=256, training=True), "this head dim"),
        (CUDA, problem(2048, mask="none", head_dim=256), "this head dim"),
        (CUDA, problem(64, head_dim=264), "this head dim"),
        (replace(CUDA, tf32=False), problem(mask="none", dtype="float32"), "float32"),
        (CUDA, problem(1, 4096), FUSED),
        (CUDA, problem(1, 4096, dtype="float32"), FUSED),
        (CUDA, problem(1, 4096, head_dim=80), "this head dim with few queries"),
        (
            CUDA,
            problem(1, 4096, mask="bool", mask_shape=(1, 4096)),
            "an array mask with few queries",
        ),
        (CUDA, problem(1024, 512, training=True), "a causal mask over more queries than keys"),
    ],
)
def test_mlx_stays_where_it_is_fused_and_where_nothing_is_faster(
    device: Device, case: Problem, reason: str
) -> None:
    name, why = route(device, case)
    assert name == ("native" if reason == FUSED else "unfused")
    assert reason in why


@pytest.mark.parametrize(
    ("device", "case"),
    [
        (METAL, problem(32768, head_dim=160)),
        (CUDA, problem(32768, dtype="float32", training=True)),
        (CPU, problem(16384, mask="none")),
        (CPU, problem(8, 2**26, mask="none")),
    ],
)
def test_scores_that_do_not_fit_run_in_blocks(device: Device, case: Problem) -> None:
    chosen = choose(case, device, Settings(enabled=True))
    assert chosen.decision.route == ("blockwise" if device is CPU else "query_blocks")
    assert "unfused" not in dict(chosen.refused)
    assert chosen.extra_memory < device.memory / 4


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (problem(1024), "blockwise"),
        (problem(512), "blockwise"),
        (problem(256), "unfused"),  # bfloat16
        (problem(256, dtype="float16"), "blockwise"),
        (problem(256, dtype="float32"), "blockwise"),
        (problem(128, dtype="float32"), "unfused"),
        (problem(1, 8192), "unfused"),
        (problem(512, 4096, dtype="float32"), "unfused"),  # nearly all of the mask is visible
        (problem(512, 4096, dtype="float32", head_dim=128), "blockwise"),
        (problem(1024, mask="none", dtype="float32"), "unfused"),
        (problem(1024, mask="none", dtype="float32", head_dim=128), "blockwise"),
        (problem(1024, mask="additive", mask_shape=(1024, 1024), head_dim=128), "unfused"),
    ],
)
def test_cpu_takes_blocks_where_they_were_measured_faster(case: Problem, name: str) -> None:
    assert route(CPU, case)[0] == name


def test_our_kernel_for_the_cpu_is_left_where_there_are_hardly_any_keys() -> None:
    built = replace(CPU, own_kernel=True)
    assert route(built, problem(1, 1))[0] == route(built, problem(2, mask="none"))[0] == "unfused"
    assert route(built, problem(3))[0] == route(built, problem(1, 8192))[0] == "cpu_kernel"
    assert route(built, problem(1, 1, softcap=30.0))[0] == "cpu_kernel"


def test_a_kernel_that_metal_avoids_is_taken_where_scores_do_not_fit() -> None:
    assert route(METAL, problem(32768, head_dim=192))[0] == "forced"
    assert route(METAL, problem(2048, head_dim=192))[0] == "unfused"
    assert route(METAL, problem(32768, head_dim=192, training=True))[0] == "native"
    assert route(METAL, problem(32768, head_dim=256))[0] == "native"
    assert route(METAL_31, problem(32768, head_dim=256))[0] == "query_blocks"


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (problem(64), "cuda_kernel"),  # of what MLX fuses, what is short
        (problem(512), "cuda_kernel"),
        (problem(256, head_dim=128, mask="none"), "cuda_kernel"),
        (problem(512, head_dim=128), "cuda_kernel"),
        (problem(512, head_dim=128, mask="none"), "native"),
        (problem(20, 4096), "cuda_kernel"),
        (problem(10, 8192), "native"),
        (problem(1024), "native"),
        (problem(64, sinks=True), "native"),
        (problem(64, mask="bool", mask_shape=(64, 64)), "native"),
        (problem(8, 64), "native"),
        (problem(64, dtype="float32"), "cuda_kernel"),
        (problem(8192, dtype="float32"), "cuda_kernel"),
        (problem(8192, dtype="float32", mask="none"), "cuda_kernel"),
        (problem(8192, dtype="float32", head_dim=128), "cuda_kernel"),
        (problem(4096, dtype="float32", head_dim=128, mask="none"), "cuda_kernel"),
        (problem(8192, dtype="float32", head_dim=128, mask="none"), "unfused"),
        (problem(2048, dtype="float32", head_dim=256), "cuda_kernel"),
        (problem(256, dtype="float32", head_dim=256, mask="none"), "cuda_kernel"),
        (problem(512, dtype="float32", head_dim=256, mask="none"), "unfused"),
        (
            problem(8192, dtype="float32", head_dim=60),
            "unfused",
        ),  # MLX multiplies those in float32 proper
        (problem(8, 64, dtype="float32", head_dim=80), "unfused"),
        (problem(8192, head_dim=256), "cuda_kernel"),
        (problem(1024, head_dim=256, mask="none"), "cuda_kernel"),
        (problem(2048, head_dim=256, mask="none"), "unfused"),
        (problem(512, 4096, head_dim=256), "unfused"),  # nearly all of the mask is visible
    ],
)
def test_cuda_takes_its_kernel_where_it_was_measured_faster(case: Problem, name: str) -> None:
    assert route(KERNEL_80, case)[0] == name
    assert route(KERNEL_80, replace(case, training=True))[0] != "cuda_kernel"
    assert route(replace(KERNEL_80, capability=(7, 5)), case)[0] != "cuda_kernel"
    assert route(CUDA, case)[0] != "cuda_kernel"  # which cannot compile it
    if case.dtype == "float32":
        assert route(KERNEL, case)[0] == name  # which has no other products for it


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (problem(64), "cuda_kernel"),  # of what MLX fuses, what is not long
        (problem(2048), "cuda_kernel"),
        (problem(4096), "native"),
        (problem(1024, head_dim=128, mask="none"), "cuda_kernel"),
        (problem(2048, head_dim=128), "cuda_kernel"),
        (problem(2048, head_dim=128, mask="none"), "native"),
        (problem(20, 16384, head_dim=128), "cuda_kernel"),
        (problem(500, 4096), "cuda_kernel"),
        (problem(500, 4096, head_dim=128), "native"),  # too few blocks of threads for so many keys
        (problem(64, sinks=True), "native"),
        (problem(8, 64), "cuda_kernel"),  # the kernel for few queries
        (problem(4, 64), "native"),  # MLX's own
        (problem(64, mask="bool", mask_shape=(64, 64)), "cuda_kernel"),
        (problem(8192, mask="bool", mask_shape=(8192, 8192)), "cuda_kernel"),
        (problem(512, mask="additive", mask_shape=(512, 512)), "native"),
        (
            problem(2048, mask="bool", mask_shape=(2048, 2048), head_dim=36),
            "lowered",
        ),  # rows are no whole chunks
        (problem(8192, head_dim=256), "cuda_kernel"),
        (problem(8192, head_dim=256, mask="none"), "cuda_kernel"),
        (problem(2048, head_dim=192, value_head_dim=128, mask="none"), "cuda_kernel"),
        (problem(2048, head_dim=256, mask="additive", mask_shape=(2048, 2048)), "cuda_kernel"),
        (problem(2048, head_dim=264), "unfused"),
    ],
)
def test_a_gpu_with_products_of_warpgroups_takes_it_for_more(case: Problem, name: str) -> None:
    assert route(KERNEL, case)[0] == name
    assert route(CUDA, case)[0] != "cuda_kernel"


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_windows_run_on_a_kernel_that_skips_what_they_hide(head_dim: int) -> None:
    masks = {"mask": "window", "mask_shape": (8192, 8192), "structure": Window(512)}
    window = problem(8192, head_dim=head_dim, **masks)
    assert route(KERNEL, window) == (
        "cuda_kernel",
        "one kernel on tensor cores, without scores in memory",
    )
    assert route(KERNEL_80, window)[0] == ("cuda_kernel" if head_dim == 256 else "lowered")
    assert route(KERNEL_80, replace(window, dtype="float32"))[0] == (
        "query_blocks" if head_dim == 256 else "cuda_kernel"
    )
    assert route(KERNEL, replace(window, training=True))[0] == "cuda_kernel"
    before_the_first_key = replace(window, key_length=4096, mask_shape=(8192, 4096))
    assert route(KERNEL, before_the_first_key)[0] != "cuda_kernel"


def test_where_nothing_was_measured_mlx_stays() -> None:
    for device in (METAL, replace(CPU, system="Darwin")):
        name, why = route(device, problem(2048, dtype="float32", head_dim=256))
        assert name == "unfused"
        assert why.endswith("blocks are not known to be faster on this device")


def test_skipped_share_counts_blocks() -> None:
    assert problem(128).skipped_share() == 0
    assert problem(256).skipped_share() == 0.25
    assert problem(1024).skipped_share() == pytest.approx(28 / 64)
    assert problem(100, 1000).skipped_share() == 0
    assert problem(1000, 100).skipped_share() == 0
    assert problem(1024, mask="none").skipped_share() == 0


def test_a_preferred_route_is_asked_first_and_may_refuse() -> None:
    assert route(METAL, problem(), route="blockwise")[0] == "blockwise"
    assert route(METAL, problem(), route="reference")[0] == "reference"
    assert route(CPU, problem(), route="native")[0] == "blockwise"
    assert route(CPU, problem(), route="unfused")[0] == "unfused"
    assert route(CPU, problem(64, dtype="float32"), route="blockwise")[0] == "blockwise"


def test_block_size_is_the_user_s_where_there_are_blocks() -> None:
    assert choose(problem(), CPU, Settings(True)).block_size == 128
    assert choose(problem(), CPU, Settings(True, block_size=64)).block_size == 64
    assert choose(problem(), METAL, Settings(True, block_size=64)).block_size is None


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.32.4", (0, 32, 4)),
        ("0.32.5.dev2026+ab", (0, 32, 5)),
        ("0.33", (0, 33)),
        ("next", ()),
        ("1.2rc1", (1,)),
    ],
)
def test_release_of_a_version(version: str, release: tuple[int, ...]) -> None:
    assert mlx_release(version) == release
