"""What MLX fuses, as MLX answers: on this machine, and on devices that are not here, for which the
tables of its releases answer in its place."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from backends import CUDA, METAL, METAL_31, on_cpu, pretend

from mlx_flash_runtime import stock
from mlx_flash_runtime.masks import window_mask
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import Device, MaskKind, Problem
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.stock import asked, gradient
from mlx_flash_runtime.stock.fused import is_chosen, is_fused_if_forced
from mlx_flash_runtime.stock.table import Table, newest, why_not
from mlx_flash_runtime.tools.doctor import record

PROBLEM = Problem(1, 4, 2, 1024, 1024, 64, 64, dtype="float16", mask="causal")
HUGE = replace(PROBLEM, query_length=2**20, key_length=2**20)


@pytest.fixture(autouse=True)
def nothing_was_asked() -> None:
    for answers in (asked._is_fused, asked._is_fused_if_forced, asked.can_be_read, gradient._probe):
        answers.cache_clear()


def test_asking_computes_nothing() -> None:
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for mask in ("none", "causal", "bool", "additive", "window"):
        for training in (False, True):
            problem = replace(HUGE, mask=mask, sinks=True, training=training)  # type: ignore[arg-type]
            assert asked.is_fused(problem) is not None
    mx.synchronize()
    assert mx.get_peak_memory() - before < 2**20


@pytest.mark.skipif(not on_cpu, reason="says what MLX answers on the CPU")
def test_on_the_cpu_mlx_answers_that_nothing_is_fused() -> None:
    for training in (False, True):
        assert asked.is_fused(replace(PROBLEM, training=training)) is False
    assert not asked.is_fused_if_forced(PROBLEM)


@pytest.mark.parametrize("training", [False, True])
def test_the_answer_is_the_same_where_a_gradient_is_traced(training: bool) -> None:
    problem = replace(PROBLEM, training=training)
    outside = asked.is_fused(problem)
    asked._is_fused.cache_clear()
    inside: list[bool | None] = []

    def ask(x: mx.array) -> mx.array:
        inside.append(asked.is_fused(problem))
        return x.sum()

    mx.grad(ask)(mx.ones((3,)))
    mx.vmap(ask)(mx.ones((3, 2)))
    mx.compile(ask)(mx.ones((5,)))
    assert inside == [outside] * 3


def test_asking_leaves_no_streams_behind() -> None:
    def number_of_a_new_one() -> int:
        device = mx.default_device()
        return int(repr(mx.new_stream(device)).rstrip(")").rpartition(", ")[2])

    asked.is_fused(PROBLEM)
    before = number_of_a_new_one()
    for length in range(100, 110):
        for training in (False, True):
            asked.is_fused(replace(PROBLEM, query_length=length, training=training))
    assert number_of_a_new_one() == before + 1


def traced_here(monkeypatch: pytest.MonkeyPatch, everywhere: bool = False) -> None:
    """As on a GPU while this thread traces a gradient, or, before MLX 0.32, any thread does."""
    own = threading.get_ident()
    monkeypatch.setattr(gradient, "shows", lambda: True)

    def is_traced(stream: mx.Stream | None = None) -> bool:
        # A thread that asks without a stream would be given one for good.
        assert stream is not None or threading.get_ident() == own
        return everywhere or threading.get_ident() == own

    monkeypatch.setattr(gradient, "is_traced", is_traced)


def test_a_question_about_the_outside_of_a_gradient_is_asked_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced_here(monkeypatch)
    seen = []

    def attention(*arrays: mx.array, **options: Any) -> mx.array:
        seen.append(gradient.is_traced(options["stream"]))
        return original(*arrays, **options)

    original = stock.attention
    monkeypatch.setattr(stock, "attention", attention)
    asked.is_fused(PROBLEM)
    asked.is_fused_if_forced(PROBLEM)
    assert seen == [False, False]


def test_where_a_gradient_hides_the_answer_the_table_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced_here(monkeypatch, everywhere=True)
    assert asked.is_fused(PROBLEM) is None
    assert is_chosen(PROBLEM, replace(METAL, here=True))
    assert not is_chosen(replace(PROBLEM, head_dim=40), replace(METAL, here=True))


def test_a_graph_without_known_names_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(file: Any, *_: mx.array) -> None:
        file.write('digraph { { 1 [label ="Attention", shape=rectangle]; } }')

    monkeypatch.setattr(mx, "export_to_dot", draw)
    assert asked.is_fused(PROBLEM) is None
    assert not asked.can_be_read()
    monkeypatch.delattr(mx, "export_to_dot")
    assert asked.is_fused(HUGE) is None


def test_a_call_that_mlx_refuses_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: mx.array, **__: Any) -> mx.array:
        raise ValueError("no gradient of sinks")

    monkeypatch.setattr(stock, "attention", refuse)
    assert asked.is_fused(replace(PROBLEM, training=True)) is False


def test_tokens_that_are_decoded_are_asked_about_once_for_many_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = []
    monkeypatch.setattr(
        asked, "_names", lambda problem, _: questions.append(problem) or {"Softmax"}
    )
    for keys in range(1000, 3000):
        asked.is_fused(Problem(1, 4, 2, 1, keys, 64, 64))
    assert [problem.key_length for problem in questions] == [512, 1024, 2048]


class FakeMLX:
    """MLX's function on a device that is not here, by the table of its release: whether it is in a
    gradient is what the test says. What the table has no fused kernel for is left to MLX here,
    which is a CPU's graph of operations; the rest is an array of the right shape."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device, self.table, self.in_gradient = device, newest(device), False
        self.original = stock.attention
        monkeypatch.setattr(stock, "attention", self.attention)
        monkeypatch.setattr(mx.metal, "is_available", lambda: True)
        monkeypatch.setattr(mx, "grad", self.grad)

    def grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*arrays: Any) -> Any:
            self.in_gradient = True
            try:
                return function(*arrays)
            finally:
                self.in_gradient = False

        return inside

    def attention(self, q: Any, k: Any, v: Any, *, scale: float, mask: Any = None, **more: Any):  # type: ignore[no-untyped-def]
        forced = more.pop("force_fused", None)
        if forced is not None and self.device.mlx < (0, 32, 2):
            raise TypeError("incompatible function arguments")
        kind: MaskKind = "none" if mask is None else "bool"
        sizes = (1, q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3])
        problem = Problem(*sizes, dtype="float32", mask=kind)
        table = self.table
        # With force, Metal before 0.32.4 takes the kernel of the forward pass in a gradient, too.
        training = self.in_gradient and not (forced and not table.training and table.fused)
        if self.device.backend == "cuda":
            training = self.in_gradient
        rows = table.training if training else (*table.fused, *(table.forced if forced else ()))
        # No queries at all are few queries, and a multiple of any step.
        if why_not(rows, replace(problem, query_length=max(1, q.shape[2])), self.device) is None:
            return mx.zeros((*q.shape[:3], v.shape[3]))
        if forced:
            raise ValueError("force_fused=True but no fused kernel is available")
        return self.original(q, k, v, scale=scale, mask=mask)


GPUS = {
    "metal 0.31.0": METAL_31,
    "metal 0.32.2": replace(METAL, mlx=(0, 32, 2)),
    "metal 0.32.3": replace(METAL, mlx=(0, 32, 3)),
    "metal 0.32.4": METAL,
    "m5 0.32.2": replace(METAL, mlx=(0, 32, 2), nax=True),
    "m5 0.32.4": replace(METAL, nax=True),
    "cuda 0.31.0": replace(CUDA, mlx=(0, 31, 0)),
    "cuda 0.32.4": CUDA,
    "cuda without cudnn": replace(CUDA, cudnn=False),
}


@pytest.mark.skipif(not on_cpu, reason="asks a stand-in for MLX")
@pytest.mark.parametrize("name", GPUS)
def test_a_gradient_shows_on_every_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlx = FakeMLX(GPUS[name], monkeypatch)
    assert gradient.shows()
    seen = []
    mx.grad(lambda: seen.append(gradient.is_traced()))()
    assert (gradient.is_traced(), seen, mlx.in_gradient) == (False, [True], False)


@pytest.mark.parametrize("device", [METAL_31, METAL, replace(METAL, nax=True), CUDA], ids=str)
def test_the_planner_plans_a_gradient_as_one(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, device)
    monkeypatch.setattr(gradient, "shows", lambda: True)
    now = {"traced": False}
    monkeypatch.setattr(gradient, "is_traced", lambda: now["traced"])
    planner = Planner(Settings(True))
    q, k = (mx.zeros((1, heads, 4096, 64), mx.float16) for heads in (8, 2))
    mask = window_mask(4096, 256)
    for traced in (False, True, False):
        now["traced"] = traced
        choice = planner.lookup(q, k, k, mask, None).choice
        assert choice is not None
        assert choice.problem.training == traced


def a_problem(rng: random.Random) -> Problem:
    """Any problem of those that tables tell apart."""
    head_dim, value_head_dim = rng.choice(record._HEAD_DIMS)
    few = rng.random() < 0.4
    queries = rng.choice(record._FEW if few else record._MANY)
    group = rng.choice(record._GROUPS) if few else record._GROUP
    keys = rng.choice((queries, 4096, max(1, queries // 2)))
    return Problem(
        *(1, record._HEADS, record._HEADS // group, queries, keys, head_dim, value_head_dim),
        dtype=rng.choice(("float16", "bfloat16", "float32")),
        mask=rng.choice(("none", "causal", "bool")),
        sinks=rng.random() < 0.5,
    )


@pytest.mark.parametrize("name", ["metal 0.32.4", "m5 0.32.4", "cuda 0.32.4"])
def test_what_is_recorded_is_read_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = GPUS[name]
    monkeypatch.setattr(asked, "is_fused", lambda problem: is_chosen(problem, device))
    monkeypatch.setattr(
        asked, "is_fused_if_forced", lambda problem: is_fused_if_forced(problem, device)
    )
    monkeypatch.setattr(record, "_error_of", lambda problem: "not done yet")
    text = record.as_text(record.record(replace(device, name="that GPU")))
    table = Table.of(json.loads(text))
    assert table.known == "asked of MLX on that GPU by mlx-flash doctor --record"
    assert table.families == newest(device).families
    rng = random.Random(5)
    for _ in range(2000):
        problem = a_problem(rng)
        in_gradient = replace(problem, training=True)
        read = [why_not(rows, problem, device) is None for rows in (table.fused, table.training)]
        assert read == [is_chosen(problem, device), is_chosen(in_gradient, device)], problem
        forced = why_not(table.forced, problem, device) is None
        assert forced == is_fused_if_forced(problem, device), problem
    assert len(text.splitlines()) < 80
    # Few queries in a gradient are not fused on CUDA to begin with.
    assert len(table.raises) == (2 if device.backend == "metal" else 1)


@pytest.mark.skipif(on_cpu, reason="needs a GPU that MLX has fused kernels for")
def test_what_was_asked_is_what_ran() -> None:
    """At least 200 calls, outside of gradients and inside: those that MLX says it fuses never have
    their scores in memory, and the others do."""
    device, rng = current_device(), random.Random(3)
    seen: dict[tuple[bool, bool], int] = {}
    while sum(seen.values()) < 240 or min(seen.values()) < 20:
        problem = a_large_problem(rng, device)
        fused = asked.is_fused(problem)
        scores = problem.item_bytes * problem.score_count
        found = memory_of(problem)
        assert fused == (found < scores), (problem, found)
        kind = (bool(fused), problem.training)
        seen[kind] = seen.get(kind, 0) + 1
        assert sum(seen.values()) < 1000, f"the problems are too much alike: {seen}"
    print("\nfused and in training:", seen)


def a_large_problem(rng: random.Random, device: Device) -> Problem:
    """One whose scores are much larger than all else. Few queries only on CUDA: Metal's kernel for
    them keeps as much in memory as their scores are; array masks as numbers to add, since cuDNN is
    given bool masks as large as the scores."""
    sizes = (40, 64, 72, 80, 96, 128, 192, 256)
    training = rng.random() < 0.5
    if device.backend == "cuda" and not training and rng.random() < 0.2:
        heads, key_heads, queries, keys = 32, 8, rng.randint(1, 8), 2**17
    else:
        heads, key_heads = 4, rng.choice((1, 2, 4))
        queries = rng.choice((2000, 2048, 8192) if training else (9, 130, 1024, 2048, 8192))
        keys = rng.choice((queries if queries == 8192 else 16384, 16384))
    size = rng.choice(sizes)
    return Problem(
        *(1, heads, key_heads, queries, keys, size, size),
        dtype=rng.choice(("float16", "bfloat16", "float32")),
        mask=rng.choice(("none", "causal", "additive")),
        sinks=not training and rng.random() < 0.2,
        training=training,
    )


def memory_of(problem: Problem) -> int:
    """Bytes of MLX's own function at its peak, beyond what it is given."""
    p, dtype = problem, getattr(mx, problem.dtype)
    q = mx.random.normal((1, p.query_heads, p.query_length, p.head_dim)).astype(dtype)
    # One key more than there are: a slice of them, made in the call, is what a model decodes from.
    # From keys that lie there as they are, MLX decodes through cuDNN at more head dims.
    held = p.key_length + (p.query_length <= 8)
    k, v = (mx.random.normal((1, p.key_heads, held, p.head_dim)).astype(dtype) for _ in range(2))
    mask: Any = {"none": None, "causal": "causal", "additive": mx.zeros((p.key_length,), dtype)}
    sinks = mx.zeros((p.query_heads,), dtype) if p.sinks else None

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        if held > p.key_length:
            k, v = (x[:, :, : p.key_length] for x in (k, v))
        return stock.attention(q, k, v, scale=0.1, mask=mask[p.mask], sinks=sinks)

    mx.eval(q, k, v, mask["additive"])
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    if p.training:
        mx.eval(mx.vjp(attend, [q, k, v], [q]))
    else:
        mx.eval(attend(q, k, v))
    mx.synchronize()
    return mx.get_peak_memory() - before
