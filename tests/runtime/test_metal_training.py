"""The Metal kernels of a gradient, by emulated threads, against the gradient in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from arithmetic import agree
from attention_cases import Case, assert_as_exact_as, make, runner
from backends import pretend
from metal_kernel import emulated
from metal_kernel.calls import DEVICE, mlx, sizes
from metal_kernel.on_steel import forget, metal_of_steel, read_here  # noqa: F401  # a fixture

from mlx_flash_runtime import explain, stock
from mlx_flash_runtime.kernels.metal import checked, gradient, intervals, steel
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Prefix, Segments, Structure, Window, window_mask
from mlx_flash_runtime.routes import metal_kernel, reference
from mlx_flash_runtime.settings import Settings

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),
]

# A window that begins and ends in the midst of tiles, keys that no query sees, and no whole tiles.
SMALL = Problem(1, 2, 1, 50, 110, 64, 64, "float32", "window", (50, 110), Window(40), training=True)
CASES = {
    "a chunk after a cache": (
        Case(64, 130, key_heads=1, batch=2, mask=("window", (33,)), sinks=True, **sizes(96)),
        mx.float32,
    ),
    "no whole tiles": (
        Case(50, 70, key_heads=1, mask=("window", (20,)), **sizes(128)),
        mx.float16,
    ),
    "a window of one key": (Case(64, 64, mask=("window", (1,)), **sizes(80)), mx.bfloat16),
    "causal, values of another head dim": (
        Case(49, 81, mask="causal", sinks=True, **sizes(96, 64)),
        mx.bfloat16,
    ),
    "packed documents": (
        Case(70, 70, key_heads=1, mask=("segments", (37, 1, 32)), **sizes(64)),
        mx.float32,
    ),
    "a prefix": (Case(50, 50, key_heads=1, mask=("prefix", (40,)), **sizes(64)), mx.float32),
    "softcap": (
        Case(64, 90, key_heads=1, mask=("window", (70,)), softcap=1.5, **sizes(72)),
        mx.float32,
    ),
}


@pytest.mark.parametrize(("case", "dtype"), CASES.values(), ids=CASES)
def test_gradients_are_as_exact_as_mlx(
    case: Case, dtype: mx.Dtype, on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "is_right", lambda problem: True)
    independent = mlx if case.softcap is None else runner(reference, None, case.softcap)
    own = runner(metal_kernel, None, case.softcap, training=True)
    assert_as_exact_as(independent, own, make(case, dtype))


def test_a_gradient_of_a_gradient_is_that_of_mlx(
    on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "is_right", lambda problem: True)
    call = make(Case(50, 110, key_heads=1, mask=("window", (40,)), **sizes(64)), mx.float32)

    def slopes(attention: Any) -> mx.array:
        of_primals = call.function(attention)

        def steepness(q: mx.array) -> mx.array:
            return mx.grad(lambda q: of_primals(q, *call.primals[1:]).square().sum())(q).sum()

        return mx.grad(steepness)(call.primals[0])

    own = slopes(runner(metal_kernel, None, training=True))
    assert agree(own, slopes(mlx), rtol=1e-3, atol=1e-4)


def test_what_is_broken_shows(
    on_metal: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the check that a Mac makes, after which no Metal kernel is used any more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(checked, "_refused", "")
    text = gradient._text()
    line = "wanted.frag_at(0, j)[jj] - state.delta"
    assert line in text
    monkeypatch.setattr(gradient, "_text", lambda: text.replace(line, "wanted.frag_at(0, j)[jj]"))
    assert not checked.is_right(replace(SMALL, query_length=90, key_length=8000))
    assert "it is wrong by" in checked._refused


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pointers_keep_to_their_address_spaces(
    dtype: str, on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_spaces = pytest.importorskip("metal_kernel.address_spaces")
    found: list[str] = []
    monkeypatch.setattr(mx.fast, "metal_kernel", address_spaces.noting(found))
    monkeypatch.setattr(steel, "_read", read_here)
    problem = replace(SMALL, dtype=dtype, softcap=2.0)
    checked._error(problem, None)
    assert found == []
    text = gradient._text()
    wrong = text.replace("  products.clear();", "  const device T* wrong = tile;\n")
    assert wrong != text
    monkeypatch.setattr(gradient, "_text", lambda: wrong)
    forget()
    checked._error(problem, None)
    assert "__local" in found[0]


@pytest.mark.parametrize(
    ("mask", "structure", "queries", "keys"),
    [
        ("causal", None, 50, 90),
        ("window", Window(3), 50, 90),
        ("window", Window(60), 70, 70),
        ("segments", Segments((20, 1, 40, 9)), 50, 70),
        ("prefix", Prefix(30), 50, 70),
    ],
)
def test_each_key_has_the_first_and_the_last_query_that_see_it(
    mask: MaskKind, structure: Structure | None, queries: int, keys: int
) -> None:
    problem = Problem(1, 1, 1, queries, keys, 64, 64, "float32", mask, (), structure)
    visible = problem.visible
    assert visible is not None
    first, last = intervals.queries_of_keys(problem)
    for key, own_first, own_last in zip(range(keys), first.tolist(), last.tolist(), strict=True):
        positions = range(keys - queries, keys)
        seeing = [
            query
            for query, position in enumerate(positions)
            if visible.first(position) <= key <= visible.last(position)
        ]
        assert list(range(own_first, own_last + 1)) == seeing


def training(mask: MaskKind, structure: Structure | None, **changes: Any) -> Problem:
    """A sequence of 8,192 tokens, in a layer of gpt-oss but for its sinks."""
    shape = () if structure is None else (8192, 8192)
    case = Problem(1, 64, 8, 8192, 8192, 64, 64, "bfloat16", mask, shape, structure)
    return replace(case, training=True, **changes)


def test_where_it_promises_half_of_blocks_of_queries_it_is_taken() -> None:
    short, long = (training("window", Window(size)) for size in (128, 512))
    told = explain(short, device=DEVICE)
    assert told.route == "metal_kernel"
    assert told.kernel_work is not None
    assert told.blocks_work is not None
    assert 2 * told.kernel_work.cost(DEVICE) <= told.blocks_work.cost(DEVICE)
    assert f"counted, blocks of queries: {told.blocks_work}" in str(told)
    assert explain(replace(short, sinks=True), device=DEVICE).route == "metal_kernel"
    assert explain(long, device=DEVICE).route == "query_blocks"
    m5 = replace(DEVICE, nax=True)
    assert explain(short, device=m5).route == "metal_kernel"
    assert explain(training("window", Window(256)), device=m5).route == "query_blocks"
    assert explain(training("causal", None), device=DEVICE).route == "native"
    assert explain(replace(short, training=False), device=DEVICE).blocks_work is None


def test_packed_documents_are_taken_apart_where_mlx_fuses_their_gradient() -> None:
    """Else it is blocks of queries that the kernel is held against."""
    short, long = (training("segments", Segments((size,) * (8192 // size))) for size in (128, 512))
    assert explain(short, device=DEVICE).route == "lowered"
    unfused = replace(DEVICE, mlx=(0, 32, 3))
    told = explain(short, device=unfused)
    assert told.route == "metal_kernel"
    assert told.kernel_work is not None
    assert told.blocks_work is not None
    assert 2 * told.kernel_work.cost(unfused) <= told.blocks_work.cost(unfused)
    assert explain(long, device=unfused).route == "query_blocks"


def test_a_call_is_planned_for_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, DEVICE)
    monkeypatch.setattr(stock.gradient, "shows", lambda: True)
    monkeypatch.setattr(stock.gradient, "is_traced", lambda: True)
    q, k = mx.zeros((1, 64, 8192, 64)), mx.zeros((1, 8, 8192, 64))
    plan = Planner(Settings(True)).lookup(q, k, k, window_mask(8192, 128), mx.zeros(64))
    assert plan.decision.route == "metal_kernel"
    assert plan.choice is not None
    assert plan.choice.problem.training


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (training("bool", None), "for masks that are known by what they say"),
        (
            training("window", Window(128), head_dim=192, value_head_dim=128),
            "for head dims up to 128",
        ),
        (training("window", Window(9), query_length=48), "few queries has no gradient"),
    ],
)
def test_what_has_no_such_kernel_says_why(problem: Problem, reason: str) -> None:
    holds, why = metal_kernel.holds(problem, DEVICE)
    assert not holds
    assert reason in why
