"""Which calls MLX has fused kernels for, by backend and release, as its sources say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
from attention_cases import Case, make, runner
from backends import on_cpu

from mlx_flash_runtime import stock
from mlx_flash_runtime.planning.machine import current_device, has_nax
from mlx_flash_runtime.problem import Device, Problem
from mlx_flash_runtime.routes import forced
from mlx_flash_runtime.stock.fused import (
    error_of,
    fused_head_dims,
    is_fused,
    is_fused_if_forced,
)
from mlx_flash_runtime.stock.table import FOLDER, Row, Table, known_releases

GIB = 2**30
VECTOR = frozenset({64, 96, 128})
PREFILL = Problem(1, 16, 8, 1024, 1024, 64, 64, dtype="bfloat16", mask="causal")
DECODE = replace(PREFILL, query_length=1, mask="none")
# Every pair of head dims that a release has anything for, and some that none has.
PAIRS = [(size, size) for size in (32, 40, 64, 72, 80, 96, 112, 128, 160, 192, 256, 512)]
PAIRS += [(192, 128), (96, 64), (64, 128)]

OLDEST = frozenset({64, 80, 128})
FULL = OLDEST | {72, 96}
FEW = VECTOR | {256}


class Column(NamedTuple):
    """A column of what Metal fuses, for one family of chips: head dims, a pair where values have
    another one. More than 8 queries: of any length and mask, in any type; and those with a rule of
    their own, as the fewest queries for which a causal call is fused. Up to 8 queries. In training.
    And those that run by force alone, with more than 8 queries and up to 8."""

    many: frozenset[Any]
    by_rule: dict[int, int]
    few: frozenset[Any]
    training: frozenset[Any] = frozenset()
    forced: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


FORCED = (frozenset({192, 256}), frozenset({192}))
NEWEST = FULL | {(96, 64)}
NEWEST_FEW = FEW | {(192, 128), (96, 64), 512}
TRAINED = NEWEST | {192, 256}
COLUMNS = {
    ((0, 31, 0), False): Column(OLDEST, {}, FEW),
    ((0, 31, 2), False): Column(OLDEST, {}, FEW),
    ((0, 32, 0), False): Column(OLDEST, {}, FEW | {(192, 128)}),
    ((0, 32, 1), False): Column(FULL, {}, FEW | {(192, 128)}),
    ((0, 32, 2), False): Column(FULL, {}, FEW | {(192, 128)}, forced=FORCED),
    ((0, 32, 3), False): Column(NEWEST, {256: 2048}, NEWEST_FEW, forced=FORCED),
    ((0, 32, 4), False): Column(NEWEST, {256: 2048, 512: 1024}, NEWEST_FEW, TRAINED, FORCED),
    ((0, 31, 0), True): Column(OLDEST, {}, FEW),
    ((0, 32, 0), True): Column(OLDEST, {}, FEW | {(192, 128)}),
    ((0, 32, 1), True): Column(FULL, {}, FEW | {(192, 128)}),
    ((0, 32, 2), True): Column(FULL, {256: 1024}, FEW | {(192, 128)}, forced=FORCED),
    ((0, 32, 3), True): Column(
        NEWEST, {256: 1024, 512: 1024}, NEWEST_FEW, forced=(FORCED[0] | {512}, FORCED[1])
    ),
    ((0, 32, 4), True): Column(
        NEWEST,
        {256: 1024, 512: 1024},
        NEWEST_FEW,
        TRAINED | {512},
        (FORCED[0] | {512}, FORCED[1]),
    ),
}


def metal(release: tuple[int, ...], nax: bool) -> Device:
    return Device("metal", release, 32 * GIB, "Darwin", nax=nax)


def pairs(sizes: frozenset[Any]) -> set[tuple[int, int]]:
    return {(size, size) if isinstance(size, int) else size for size in sizes}


def fused(base: Problem, device: Device) -> set[tuple[int, int]]:
    """The head dims with which MLX has a fused kernel for `base` that it takes by itself."""
    found = set()
    for head_dim, value_head_dim in PAIRS:
        case = replace(base, head_dim=head_dim, value_head_dim=value_head_dim)
        if is_fused(case, device)[0]:
            found.add((head_dim, value_head_dim))
    return found


@pytest.fixture(params=COLUMNS, ids=str)
def column(request: pytest.FixtureRequest) -> tuple[Device, Column]:
    return metal(*request.param), COLUMNS[request.param]


def test_metal_more_than_8_queries(column: tuple[Device, Column]) -> None:
    device, facts = column
    assert device.mlx in known_releases()
    for mask in ("none", "causal", "bool", "additive", "window"):
        for dtype in ("float32", "float16", "bfloat16"):
            for queries in (9, 100, 1000):
                base = replace(PREFILL, query_length=queries, mask=mask, dtype=dtype)
                assert fused(base, device) == pairs(facts.many), (mask, dtype, queries)
    assert set(fused_head_dims(device)) == {size for size in facts.many if isinstance(size, int)}
    # A causal mask asks for as many keys as queries.
    assert fused(replace(PREFILL, key_length=1000), device) == set()
    assert fused(replace(PREFILL, key_length=1000, mask="none"), device) == pairs(facts.many)


def test_metal_large_head_dims_by_rule(column: tuple[Device, Column]) -> None:
    device, facts = column
    for size in (192, 256, 512):
        # 64 heads: enough blocks of queries for M5.
        base = replace(PREFILL, query_heads=64, head_dim=size, value_head_dim=size)
        least = None
        for queries in (512, 1023, 1024, 2047, 2048, 8192):
            case = replace(base, query_length=queries, key_length=queries)
            if least is None and is_fused(case, device)[0]:
                least = queries
            assert is_fused(case, device)[0] == (least is not None)
        assert least == facts.by_rule.get(size)


def test_metal_256_by_the_rule_of_0_32_4() -> None:
    before_m5, m5 = metal((0, 32, 4), False), metal((0, 32, 4), True)
    base = replace(PREFILL, query_length=2048, key_length=2048, head_dim=256, value_head_dim=256)
    for change, of_older, of_m5 in (
        ({}, True, True),
        ({"key_length": 4096}, False, True),
        ({"mask": "bool"}, False, True),
        ({"mask": "none"}, False, False),
        ({"dtype": "float32"}, False, True),
        ({"sinks": True}, True, True),
    ):
        case = replace(base, **change)  # type: ignore[arg-type]
        assert is_fused(case, before_m5)[0] == of_older, change
        assert is_fused(case, m5)[0] == of_m5, change
    exact = replace(m5, tf32=False)
    assert not is_fused(replace(base, dtype="float32"), exact)[0]
    assert is_fused(base, exact)[0]
    # 0.32.2 has no fused kernel for its array masks yet.
    older = metal((0, 32, 2), True)
    assert is_fused(base, older)[0]
    assert not is_fused(replace(base, mask="bool"), older)[0]


def test_metal_512_by_the_rule_of_0_32_4() -> None:
    before_m5, m5 = metal((0, 32, 4), False), metal((0, 32, 4), True)
    base = replace(PREFILL, query_heads=32, head_dim=512, value_head_dim=512)  # 1024 blocks of 32
    for change, of_older, of_m5 in (
        ({}, True, True),
        ({"key_length": 4096}, True, True),
        ({"mask": "bool"}, False, False),
        ({"mask": "none"}, False, False),
        ({"dtype": "float32"}, False, True),
        ({"sinks": True}, False, True),
        ({"query_heads": 16}, True, False),
        ({"query_heads": 16, "batch": 2}, True, True),
    ):
        case = replace(base, **change)  # type: ignore[arg-type]
        assert is_fused(case, before_m5)[0] == of_older, change
        assert is_fused(case, m5)[0] == of_m5, change
    assert not is_fused(replace(base, dtype="float32"), replace(m5, tf32=False))[0]


def test_metal_up_to_8_queries(column: tuple[Device, Column]) -> None:
    device, facts = column
    few = pairs(facts.few)
    for dtype in ("float32", "float16", "bfloat16"):
        for queries, heads, wanted in (
            (1, (8, 1), few),
            (1, (16, 8), few - {(512, 512)}),  # 512: GQA 8 alone
            (8, (16, 4), few - {(512, 512)}),
            (8, (16, 2), set()),  # more than 32 rows
            (1, (33, 1), set()),
        ):
            for mask in ("none", "causal", "bool"):
                query_heads, key_heads = heads
                case = Problem(1, query_heads, key_heads, queries, 1024, 0, 0, dtype, mask)
                also = {(512, 512)} if mask == "bool" else set()
                assert fused(case, device) == wanted - also, (queries, heads, mask)
    short = Problem(1, 8, 1, 1, 1023, 0, 0, "float16")
    assert fused(short, device) == few - {(512, 512)}
    assert fused(replace(short, query_length=4, key_length=3), device) == set()


def test_metal_training(column: tuple[Device, Column]) -> None:
    device, facts = column
    base = replace(PREFILL, training=True)
    for change in ({}, {"mask": "none"}, {"query_length": 9}, {"dtype": "float32"}):
        assert fused(replace(base, **change), device) == pairs(facts.training)  # type: ignore[arg-type]
    for mask in ("bool", "additive", "window"):
        assert fused(replace(base, mask=mask), device) == set()
    assert fused(replace(base, sinks=True), device) == set()
    assert fused(replace(base, query_length=8), device) == set()


def test_metal_training_ends_in_errors_with_sinks_and_with_few_queries(
    column: tuple[Device, Column],
) -> None:
    device, facts = column
    with_sinks = replace(PREFILL, training=True, sinks=True)
    few = replace(PREFILL, training=True, query_length=8, query_heads=8)
    if facts.training:
        assert "attention sinks" in str(error_of(with_sinks, device))
        assert "logsumexp" in str(error_of(few, device))
    else:
        assert error_of(with_sinks, device) is error_of(few, device) is None
    # What is unfused to begin with has none: another head dim, a mask that is an array.
    for case in (with_sinks, few):
        assert error_of(replace(case, mask="bool"), device) is None
        assert error_of(replace(case, head_dim=40, value_head_dim=40), device) is None
        assert error_of(replace(case, training=False), device) is None


def test_metal_by_force(column: tuple[Device, Column]) -> None:
    device, facts = column
    for base, wanted in zip((PREFILL, DECODE), facts.forced, strict=True):
        # 1024 queries of 256 and 512: M5 fuses the first by itself.
        found = set()
        for size in (64, 192, 256, 512):
            case = replace(base, mask="none", head_dim=size, value_head_dim=size)
            if is_fused_if_forced(case, device):
                found.add(size)
        assert found == wanted
        assert not is_fused_if_forced(replace(case, training=True), device)


@pytest.mark.parametrize("release", [(0, 31, 0), (0, 32, 2), (0, 32, 4)], ids=str)
def test_cuda_is_the_same_in_every_release(release: tuple[int, ...]) -> None:
    device = Device("cuda", release, 80 * GIB)
    up_to_128 = {(head, value) for head, value in PAIRS if head <= 128 and value <= 128}
    assert fused(PREFILL, device) == fused(replace(PREFILL, mask="bool"), device) == up_to_128
    assert fused(replace(PREFILL, training=True), device) == up_to_128
    assert fused(replace(PREFILL, dtype="float32"), device) == set()
    assert fused(replace(PREFILL, key_length=1000), device) == set()
    assert fused(replace(PREFILL, query_length=1000, training=True), device) == set()
    assert fused(DECODE, device) == {(size, size) for size in VECTOR}
    assert fused(replace(DECODE, mask="bool"), device) == set()
    sinks = replace(PREFILL, training=True, sinks=True)
    assert not is_fused(sinks, device)[0]
    assert "sinks" in str(error_of(sinks, device))
    assert set(fused_head_dims(device)) == set(range(8, 129, 8))
    assert not any(is_fused_if_forced(case, device) for case in (PREFILL, DECODE))


def test_the_cpu_has_none() -> None:
    device = Device("cpu", (0, 32, 4), 16 * GIB)
    assert fused(PREFILL, device) == fused(DECODE, device) == set()
    assert fused_head_dims(device) == ()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_data_file_says_how_it_was_known(path: Path) -> None:
    table = Table.of(json.loads(path.read_text(encoding="utf-8")))
    assert table.known.startswith(("read in ", "asked of "))
    release = ".".join(map(str, table.releases[0]))
    assert path.stem == f"{table.families[0]}_{release}"


def test_a_row_asks_for_nothing_that_is_unknown() -> None:
    with pytest.raises(ValueError, match="asks for head_dim, which"):
        Row.of({"head_dim": [64]})


@pytest.mark.parametrize(
    ("architecture", "macos", "nax"),
    [
        ("applegpu_g16s", "26.2", False),  # M4 Max
        ("applegpu_g17s", "26.2", True),  # M5 Max
        ("applegpu_g17g", "27.0", True),
        ("applegpu_g17g", "26.1", False),
        ("applegpu_g17p", "26.2", False),  # a phone's
        ("applegpu_g18p", "26.2.1", True),
        ("", "26.2", False),
    ],
)
def test_the_chip_by_its_name(architecture: str, macos: str, nax: bool) -> None:
    assert has_nax(architecture, macos) == nax


@pytest.mark.parametrize("without", [{"cudnn": False}, {"capability": (7, 5)}], ids=str)
def test_cuda_without_cudnn_has_the_kernel_for_few_queries_alone(without: Any) -> None:
    device = Device("cuda", (0, 32, 4), 16 * GIB, **without)
    assert is_fused(DECODE, device)[0]
    assert not is_fused(PREFILL, device)[0]
    assert fused_head_dims(device) == ()


def test_forced_is_mlx_s_own_call_with_one_more_word(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(40, 63, heads=4, head_dim=256, value_head_dim=256, mask="causal", sinks=True)
    call = make(case, mx.float16)
    seen = []

    def spy(*arrays: mx.array, **options: object) -> mx.array:
        seen.append(options)
        return original(
            *arrays, **{name: x for name, x in options.items() if name != "force_fused"}
        )

    original = stock.attention
    monkeypatch.setattr(stock, "attention", spy)
    q, k, v, sinks = call.primals
    own = runner(forced, None)(q, k, v, scale=call.scale, mask="causal", sinks=sinks)
    wanted = original(q, k, v, scale=call.scale, mask="causal", sinks=sinks)
    assert mx.array_equal(own, wanted)
    assert [options["force_fused"] for options in seen] == [True]


@pytest.mark.skipif(not on_cpu, reason="states what MLX answers on the CPU")
def test_mlx_refuses_to_be_forced_where_the_facts_have_no_kernel() -> None:
    if current_device().mlx < (0, 32, 2):
        pytest.skip("this MLX cannot be forced")
    q, k, v = make(Case(40, 40, head_dim=64, value_head_dim=64), mx.float16).primals
    with pytest.raises(ValueError, match="fused"):
        mx.eval(runner(forced, None)(q, k, v, scale=0.125))
    assert not is_fused(PREFILL, current_device())[0]
