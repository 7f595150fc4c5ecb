"""The Metal kernel for few queries, by emulated threads, against attention in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from string import Template

import mlx.core as mx
import pytest
from attention_cases import Case, assert_as_exact_as, make, runner
from backends import pretend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metal_kernel import emulated
from metal_kernel.calls import DEVICE, mlx, sizes
from metal_kernel.translation import Failure

from mlx_flash_runtime.kernels.metal import checked, few_queries
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.problem import MaskKind, Problem
from mlx_flash_runtime.problem.masks import Window
from mlx_flash_runtime.routes import metal_kernel, reference

pytestmark = [
    pytest.mark.skipif(emulated.why_not() is not None, reason=str(emulated.why_not())),
    pytest.mark.xdist_group("metal-emulated"),  # each kernel is compiled once
]


def forget() -> None:
    few_queries._first.cache_clear()
    few_queries._second.cache_clear()
    checked.run.cache_clear()


@pytest.fixture
def on_metal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Mac, whose kernels are right: that they are found to be is tested apart."""
    pretend(monkeypatch, DEVICE)
    monkeypatch.setattr(mx.fast, "metal_kernel", emulated.metal_kernel)
    forget()
    monkeypatch.setattr(checked, "is_right", lambda problem: True)
    yield
    forget()


CASES = {
    "one query": (Case(1, 70, **sizes(64)), mx.float32),
    "a group of 8": (Case(1, 65, heads=8, key_heads=1, **sizes(128)), mx.bfloat16),
    "few keys": (Case(1, 8, **sizes(8)), mx.float32),
    "more keys than a part has": (
        Case(2, 600, key_heads=1, mask="causal", **sizes(80)),
        mx.float16,
    ),
    "left padding": (
        Case(5, 40, heads=4, batch=2, mask=("bool", (2, 1, 1, 40)), **sizes(72)),
        mx.bfloat16,
    ),
    "a mask for each head": (
        Case(3, 40, heads=4, batch=2, mask=("additive", (2, 4, 3, 40)), **sizes(112)),
        mx.float32,
    ),
    "latents": (Case(1, 70, heads=16, key_heads=1, **sizes(576, 512)), mx.float16),
    "values of another head dim": (
        Case(12, 70, mask="causal", sinks=True, **sizes(192, 128)),
        mx.bfloat16,
    ),
    "a window": (Case(3, 300, key_heads=1, mask=("window", (33,)), **sizes(20, 36)), mx.float16),
    "a draft of 48": (Case(48, 80, key_heads=1, mask="causal", **sizes(64)), mx.float16),
    "documents": (Case(40, 40, mask=("segments", (13, 20, 7)), **sizes(256)), mx.float32),
    "a prefix": (Case(20, 20, mask=("prefix", (7,)), **sizes(160)), mx.bfloat16),
    "queries that see no key": (
        Case(7, 90, mask=("rows hidden", (7, 90)), **sizes(40)),
        mx.float32,
    ),
}


@pytest.mark.parametrize(("case", "dtype"), CASES.values(), ids=CASES)
def test_it_is_as_exact_as_mlx(case: Case, dtype: mx.Dtype, on_metal: None) -> None:
    assert_as_exact_as(mlx, runner(metal_kernel, None), make(case, dtype))


def test_softcapped_scores(on_metal: None) -> None:
    case = Case(2, 70, heads=4, mask="causal", softcap=1.5, **sizes(64))
    assert_as_exact_as(
        runner(reference, None, 1.5), runner(metal_kernel, None, 1.5), make(case, mx.float32)
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Of any sizes, for one of few kernels."""
    queries = draw(st.integers(1, 20))
    keys = queries + draw(st.integers(8, 90))
    key_heads, group = draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2), (1, 8)]))
    batch = draw(st.integers(1, 2))
    mask = draw(
        st.sampled_from(
            [None, "causal", ("bool", (batch, 1, queries, keys)), ("rows hidden", (queries, keys))]
        )
    )
    heads = key_heads * group
    return Case(queries, keys, heads, key_heads, batch=batch, mask=mask, **sizes(64))


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_any_sizes(on_metal: None, case: Case) -> None:
    assert_as_exact_as(mlx, runner(metal_kernel, None), make(case, mx.float32))


PADDED = Problem(1, 6, 2, 3, 400, 20, 36, "float32", "causal", sinks=True)


def test_what_is_whole_is_not_found_broken(on_metal: None) -> None:
    assert not is_found()


@pytest.mark.parametrize(
    ("text", "line", "instead"),
    [
        ("_BODY", "threadgroup_barrier(mem_flags::mem_threadgroup);", ""),
        ("_BODY", "tiles_of_part * flash::TILE);", "(tiles_of_part + 1) * flash::TILE);"),
        ("_text", "key <= mask.position", "key < mask.position"),
        ("_text", "key > mask.position - mask.window", "key >= mask.position - mask.window"),
        ("_text", "key <= last ? masked", "key < last ? masked"),
        ("_text", "min(key + 1, last)", "min(key, last)"),
    ],
)
def test_what_is_broken_shows(
    text: str, line: str, instead: str, on_metal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of those that `metal_kernel/mutants.py` tries."""
    if text == "_BODY":
        body = few_queries._BODY.template
        assert line in body
        monkeypatch.setattr(few_queries, "_BODY", Template(body.replace(line, instead)))
    else:
        original = few_queries._text
        assert line in original("few_queries.metal")
        monkeypatch.setattr(
            few_queries, "_text", lambda name: original(name).replace(line, instead)
        )
    assert is_found()


def is_found() -> bool:
    """Whether the kernel, as it now is, is wrong, or its result a matter of luck."""
    window = replace(PADDED, mask="window", structure=Window(33))
    try:
        return max(checked._error(one, None) for one in (PADDED, window)) > 1e-3
    except Failure:
        return True


KINDS: list[tuple[MaskKind, bool, float | None]] = [
    ("none", False, None),
    ("causal", True, None),
    ("window", False, 2.0),
    ("bool", True, None),
    ("additive", False, None),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("mask", "sinks", "softcap"), KINDS)
def test_pointers_keep_to_their_address_spaces(
    mask: MaskKind, sinks: bool, softcap: float | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address_spaces = pytest.importorskip("metal_kernel.address_spaces")
    found: list[str] = []
    monkeypatch.setattr(mx.fast, "metal_kernel", address_spaces.noting(found))
    forget()
    structure = Window(9) if mask == "window" else None
    small = Problem(1, 2, 1, 3, 73, 96, 64, dtype, mask, (), structure, sinks, softcap)
    checked._error(small, None)
    for bits in (4, 8):
        checked._error(small, Bits(bits, 32))
    forget()
    assert found == []


@given(
    head_dim=st.integers(8, 576),
    value_head_dim=st.integers(8, 576),
    queries=st.integers(1, 48),
    heads=st.sampled_from([(1, 1), (32, 8), (64, 8), (128, 1)]),
    keys=st.integers(1, 2**20),
    batch=st.integers(1, 64),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_every_cut_is_whole(
    head_dim: int,
    value_head_dim: int,
    queries: int,
    heads: tuple[int, int],
    keys: int,
    batch: int,
    dtype: str,
) -> None:
    problem = Problem(batch, *heads, queries, keys, head_dim, value_head_dim, dtype)
    cut = few_queries.cut_of(problem)
    rows = heads[0] // heads[1] * queries
    assert cut.blocks * cut.tiles * 8 >= rows > (cut.blocks - 1) * cut.tiles * 8
    assert cut.slices * cut.value_dims >= value_head_dim > (cut.slices - 1) * cut.value_dims
    assert cut.value_dims <= 256
    dims = -(-head_dim // (8 * cut.run)) * 8 * cut.run
    assert cut.tiles * 8 * dims * problem.item_bytes <= 2**15
    assert cut.tiles in (1, 2, 4)
    assert cut.splits >= 1
