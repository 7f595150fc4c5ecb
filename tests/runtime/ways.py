"""The ways to compute attention, each with the cases that MLX's transformations are tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from attention_cases import Case, Function, runner
from backends import CUDA, KERNEL, METAL, on_cpu, pretend, stand_in_for_the_cuda_kernel

from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.routes import (
    blockwise,
    cpu_kernel,
    cuda_kernel,
    lowered,
    query_blocks,
    reference,
)
from mlx_flash_runtime.stock.release import mlx_release, mlx_version


@dataclass(frozen=True)
class Way:
    """A route, on a device that it is for where that need not be this one."""

    route: Any
    device: Device | None = None
    training: bool = False

    def __str__(self) -> str:
        place = f" on {self.device.backend}" if self.device else ""
        return f"{self.route.name}{place}{' in training' if self.training else ''}"

    def attention(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> Function:
        """Attention by the route, with MLX's arguments."""
        if self.route is cuda_kernel:
            stand_in_for_the_cuda_kernel(monkeypatch, lambda call: reference.run(call, KERNEL))
        if self.device:
            pretend(monkeypatch, self.device)
        return runner(
            self.route,
            case.block_size,
            case.softcap,
            training=self.training,
            # On CUDA the fused kernels are those of half precision.
            dtype="float16" if self.route is lowered else None,
        )


ANY = Case(11, 14, heads=4, batch=2, head_dim=8, value_head_dim=8, block_size=4)
CASES = [
    replace(ANY, query_length=14, mask="causal"),
    replace(ANY, mask=("rows hidden", (2, 1, 11, 14)), sinks=True),
    replace(ANY, mask=("additive", (4, 11, 14)), sinks=True),
    replace(ANY, mask=("window", (5,)), softcap=2.0),
]
WITHOUT_SOFTCAP = [replace(case, softcap=None) for case in CASES]
FUSED = replace(ANY, head_dim=64, value_head_dim=64)
STRUCTURED = [
    replace(FUSED, mask=("window", (5,)), sinks=True),
    replace(FUSED, query_length=14, mask=("segments", (3, 10, 1))),
    replace(FUSED, head_dim=60, value_head_dim=60, mask="causal"),
]
PREFIX = replace(FUSED, query_length=14, mask=("prefix", (6,)))
BOOL = replace(FUSED, mask=("bool", (2, 1, 11, 14)), sinks=True)

# What every pair of transformations is tried on, and one transformation besides.
WAYS = {
    Way(blockwise): CASES,
    Way(query_blocks): WITHOUT_SOFTCAP,
    **({Way(cpu_kernel): CASES} if on_cpu else {}),
    Way(lowered, METAL): STRUCTURED,
    Way(lowered, CUDA): STRUCTURED,
    Way(lowered, CUDA, training=True): STRUCTURED,
    Way(cuda_kernel, KERNEL): [CASES[0], replace(CASES[1], sinks=False)],
}
MORE = {
    Way(blockwise): [ANY],
    Way(query_blocks): [ANY],
    **({Way(cpu_kernel): [ANY, *STRUCTURED, PREFIX]} if on_cpu else {}),
    Way(lowered, METAL): [PREFIX],
    Way(lowered, CUDA): [PREFIX, BOOL],
    Way(lowered, CUDA, training=True): [
        PREFIX,
        BOOL,
        replace(FUSED, mask="causal", sinks=True),
    ],
}


def each(*tables: dict[Way, list[Case]]) -> list[Any]:
    """Every way with every case of these, as parameters of a test."""
    return [
        pytest.param(way, case, id=f"{way}-{case}")
        for table in tables
        for way, cases in table.items()
        for case in cases
    ]


def skip_where_jvp_is_wrong(case: Case) -> None:
    """Ends a test that takes the jvp of a mask which MLX 0.31 has wrong."""
    if case.mask and mlx_release(mlx_version()) < (0, 32):
        pytest.skip("the jvp of mx.where with a constant is wrong in this MLX")
