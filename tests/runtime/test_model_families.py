"""Every family of mlx-lm, patched against unpatched: its logits, with every kind of cache, and its
LoRA gradients."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import mlx_lm.models
import model_runs
import pytest
from backends import on_cpu, skipped_where_mlx_lacks_it
from model_runs import Answers, Run

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention, report
from mlx_flash_runtime.planning.layers import forget
from mlx_flash_runtime.routes import ROUTES
from model_families import LEFT_OUT, LORA_KEYS, MLX_LM, STOCK_FAILS, WRAPPERS, families, make

# Beside MLX's own attention, and the definition, which has tests enough.
OWN_ROUTES = [
    route.name for route in ROUTES if route.name not in ("native", "forced", "unfused", "reference")
]
RUNS: list[Run] = [
    model_runs.without_cache,
    model_runs.cached,
    model_runs.quantized,
    model_runs.batched,
]


@pytest.fixture(autouse=True)
def experts_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, products with experts that are not said to be sorted.

    On CUDA MLX 0.32.4 reads the rows of a sorted one by the stride of an axis of length one, which
    depends on what buffer an addition before it wrote into: of gpt_oss, whose experts have biases,
    the same call without the patch has two answers, as it happens.
    """
    if on_cpu:
        return
    product: Any = mx.gather_mm

    def unsorted(*args: Any, sorted_indices: bool = False, **more: Any) -> mx.array:
        out: mx.array = product(*args, **more)
        return out

    monkeypatch.setattr(mx, "gather_mm", unsorted)


def supported(kind: str) -> list[str]:
    return [family for family in families() if family not in STOCK_FAILS.get(kind, {})]


def computed(run: Run, model: nn.Module) -> Answers:
    answers = run(model)
    mx.eval(answers)
    return answers


def stock(run: Run, model: nn.Module) -> Answers:
    """The answers of a model without the patch; what fails so is mlx-lm's own, and known of one
    release, or MLX's on this device."""
    try:
        with skipped_where_mlx_lacks_it():
            return computed(run, model)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if mlx_lm.__version__ == MLX_LM:
            raise
        pytest.skip(f"mlx-lm {mlx_lm.__version__} itself fails: {error}")


class Neighbours:
    """The answers of `model` without the patch where every weight is one rounding error away; each
    is computed when it is first asked for, after a call of `before`."""

    def __init__(
        self, run: Run, model: nn.Module, count: int, before: Callable[[], None] = lambda: None
    ) -> None:
        self._run, self._model, self._count, self._before = run, model, count, before
        self._answers: list[Answers] = []

    def __iter__(self) -> Iterator[Answers]:
        for seed in range(self._count):
            if seed == len(self._answers):
                disable_flash_attention()
                self._before()
                with model_runs.rounded(self._model, seed):
                    self._answers.append(computed(self._run, self._model))
            yield self._answers[seed]


def calls_by_route() -> dict[str, int]:
    calls: dict[str, int] = report().as_dict()["routes"]
    return calls


@pytest.mark.parametrize(
    ("run", "family"),
    [
        pytest.param(run, family, id=f"{run.__name__}-{family}")
        for run in RUNS
        for family in supported(run.__name__)
    ],
)
def test_logits_on_every_route(run: Run, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(family)
    with model_runs.same_quantization() as again:
        plain = stock(run, model)
        near = Neighbours(run, model, 1, before=again)
        ran: set[str] = set()
        seen: set[str] = set()
        for route in OWN_ROUTES:
            again()
            forget()
            monkeypatch.setenv("MLX_FLASH_ROUTE", route)
            enable_flash_attention(block_size=8)
            own = run(model)
            routes = calls_by_route()
            seen.update(routes)
            if route in routes:  # else there is nothing new to compute
                ran.add(route)
                model_runs.assert_within_rounding(own, plain, near)
    # A family with attention takes a route of ours, or one that dequantizes first.
    assert ran or "quantized" in seen or not seen


@pytest.mark.parametrize("family", supported("long"))
def test_long_prefill_as_planned(family: str) -> None:
    model = make(family)
    plain = stock(model_runs.long, model)
    enable_flash_attention()
    own = computed(model_runs.long, model)
    # Of some families, every second neighbour chooses other keys.
    near = Neighbours(model_runs.long, model, 2)
    model_runs.assert_within_rounding(own, plain, near)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("family", supported("gradients"))
def test_lora_gradients(family: str, checkpointed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_runs.with_lora(make(family), LORA_KEYS.get(family))
    with model_runs.checkpointed(model) if checkpointed else nullcontext():
        plain = stock(model_runs.gradients, model)
        monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
        enable_flash_attention(block_size=8)
        own = computed(model_runs.gradients, model)
        near = Neighbours(model_runs.gradients, model, 2)
        model_runs.assert_within_rounding(own, plain, near)
    reached = [bool(mx.any(gradient != 0)) for gradient in plain.values()]
    assert sum(reached) > len(reached) / 2  # not those behind a rounding or a choice of keys


@pytest.mark.parametrize(
    ("kind", "family"),
    [(kind, family) for kind, failing in STOCK_FAILS.items() for family in failing],
)
def test_stock_fails_where_the_table_says_so(kind: str, family: str) -> None:
    def run() -> Answers:
        model = make(family)
        return computed(
            getattr(model_runs, kind), model_runs.with_lora(model) if kind == "gradients" else model
        )

    with pytest.raises((AttributeError, NotImplementedError, TypeError, ValueError)):
        run()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_runs_the_family_that_it_wraps(wrapper: str) -> None:
    family = WRAPPERS[wrapper]
    assert {type(layer) for layer in make(family, wrapper=wrapper).layers} == {
        type(layer) for layer in make(family).layers
    }


@pytest.mark.skipif(mlx_lm.__version__ != MLX_LM, reason=f"counts the modules of mlx-lm {MLX_LM}")
def test_every_model_of_mlx_lm_is_in_a_table() -> None:
    modules = {
        path.stem
        for path in Path(mlx_lm.models.__path__[0]).glob("*.py")
        if re.search(r"^class ModelArgs\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert modules == {family.partition(":")[0] for family in families()} | set(WRAPPERS) | set(
        LEFT_OUT
    )
