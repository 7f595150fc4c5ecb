"""The report: phases, layers, routes and reasons, as text and as data."""

from __future__ import annotations

import json
from collections import Counter
from functools import wraps
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from jsonschema import validate
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.llama import Model, ModelArgs

from mlx_flash_runtime import flash_attention_enabled, report
from mlx_flash_runtime.planning.counts import Kind
from mlx_flash_runtime.planning.layers import Counted
from mlx_flash_runtime.planning.planner import Planner
from mlx_flash_runtime.problem import PHASES, Device
from mlx_flash_runtime.report import Report
from mlx_flash_runtime.settings import Settings


class Attention(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(x, x, x, scale=0.1)


class Run:
    """What goes on for as long as a program trains or writes."""

    attention = Attention()

    def memory_after(self, x: mx.array) -> int:
        hidden = mx.ones((2**22,))
        mx.eval(hidden, self.attention(x))
        del hidden
        mx.synchronize()  # a GPU keeps what it still works on
        return mx.get_active_memory()


class ModuleThatRuns(Run, nn.Module):
    pass


class Arguments:
    def given(self, length: int) -> dict[str, Any]:
        given = locals()
        del given["self"]
        x = mx.zeros((1, 1, length, 8))
        mx.eval(mx.fast.scaled_dot_product_attention(x, x, x, scale=0.1))
        return given


def model() -> Model:
    return Model(
        ModelArgs(
            model_type="llama",
            hidden_size=16,
            num_hidden_layers=2,
            intermediate_size=16,
            num_attention_heads=2,
            rms_norm_eps=1e-5,
            vocab_size=16,
        )
    )


NUMBER, TEXT = {"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}


def record(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def table(of: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


ROUTES = table(NUMBER)
REASONS = {"type": "array", "items": record(route=TEXT, reason=TEXT, calls=NUMBER)}
BY_PHASE = {"propertyNames": {"enum": list(PHASES)}}
LAYER = record(
    **{
        "name": TEXT,
        "class": TEXT,
        "calls": NUMBER,
        "routes": ROUTES,
        "phases": table(ROUTES) | BY_PHASE,
    }
)
SCHEMA = record(
    version=TEXT,
    mlx=TEXT,
    device={"enum": ["cpu", "metal", "cuda"]},
    enabled={"type": "boolean"},
    block_size={"type": ["integer", "null"]},
    peak_memory=NUMBER,
    unrecognised={"type": "array", "items": TEXT},
    calls=NUMBER,
    routes=ROUTES,
    reasons=REASONS,
    phases=table(record(calls=NUMBER, layers=NUMBER, routes=ROUTES, reasons=REASONS)) | BY_PHASE,
    layers={"type": "array", "items": LAYER},
)


def checked(found: Report) -> dict[str, Any]:
    """The report as data, after JSON, as its docstring describes it, and consistent in itself."""
    data: dict[str, Any] = json.loads(json.dumps(found.as_dict()))
    validate(data, SCHEMA)
    parts = [data, *data["phases"].values()]
    for part in parts:
        assert (
            part["calls"]
            == sum(part["routes"].values())
            == sum(one["calls"] for one in part["reasons"])
        )
    assert data["calls"] == sum(phase["calls"] for phase in data["phases"].values())
    assert data["calls"] == sum(layer["calls"] for layer in data["layers"])
    for layer in data["layers"]:
        by_phase: Counter[str] = Counter()
        for routes in layer["phases"].values():
            by_phase.update(routes)
        assert layer["routes"] == by_phase
    return data


def test_prefill_and_decode_of_a_model() -> None:
    llama = model()
    cache = make_prompt_cache(llama)
    with flash_attention_enabled():
        llama(mx.zeros((1, 5), mx.int32), cache=cache)
        for _ in range(3):
            llama(mx.zeros((1, 1), mx.int32), cache=cache)
        data = checked(report())
    assert {phase: (part["layers"], part["calls"]) for phase, part in data["phases"].items()} == {
        "prefill or training": (2, 2),
        "decode": (2, 6),
    }
    assert [layer["name"] for layer in data["layers"]] == [
        "model.layers.0.self_attn",
        "model.layers.1.self_attn",
    ]


def test_training_of_a_model_that_stays_on_mlx_s_own_function() -> None:
    llama = model()
    tokens = mx.zeros((1, 5), mx.int32)
    with flash_attention_enabled():
        nn.value_and_grad(llama, lambda tokens: llama(tokens).sum())(tokens)
        data = checked(report())
    assert {phase: part["calls"] for phase, part in data["phases"].items()} == {
        "prefill or training": 2
    }


def test_training_on_a_device_that_shows_it() -> None:
    q = mx.zeros((1, 2, 300, 64), mx.float16)
    planner = Planner(Settings(True), Device("cuda", (0, 32, 4), 2**36), training=True)
    assert planner.lookup(q, q, q, "causal", None).kind[:2] == ("training", "lowered")
    planner = Planner(Settings(True), Device("cuda", (0, 32, 4), 2**36))
    assert planner.lookup(q, q, q, "causal", None).kind[:2] == ("prefill", "native")
    assert planner.lookup(q[:, :, :1], q, q, None, None).kind[:2] == ("decode", "native")


def test_a_call_left_to_mlx_is_of_an_unknown_phase() -> None:
    q = mx.zeros((1, 2, 4, 8))
    with flash_attention_enabled():
        other = mx.new_stream(mx.cpu)
        mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0, stream=other)
        data = checked(report())
    assert list(data["phases"]) == ["unknown"]


def test_nothing_called_and_off() -> None:
    assert checked(report())["phases"] == {}
    assert str(report()) == "flash attention: no attention calls (off)"


def test_text_of_all_phases() -> None:
    native = ("native", "MLX has a fused kernel")
    lowered = ("lowered", "MLX has a fused kernel for it with its length padded")
    first: Counter[Kind] = Counter(
        {Kind("decode", *native): 30, Kind("training", *lowered): 2, Kind("prefill", *native): 1}
    )
    second: Counter[Kind] = Counter({Kind("training", *lowered): 2, Kind("training", *native): 1})
    found = Report(
        "0.32.4", "cuda", True, None, 2**30, (Counted("a", "A", first), Counted("b", "A", second))
    )
    assert str(found).splitlines() == [
        "flash attention: 2 attention layers, 36 calls: native 32, lowered 4",
        "  prefill: 1 layer, 1 call",
        "    native 1: MLX has a fused kernel",
        "  training: 2 layers, 5 calls",
        "    lowered 4: MLX has a fused kernel for it with its length padded",
        "    native 1: MLX has a fused kernel",
        "  decode: 1 layer, 30 calls",
        "    native 30: MLX has a fused kernel",
    ]
    data = checked(found)
    assert data["layers"][1]["phases"] == {"training": {"lowered": 2, "native": 1}}
    assert data["phases"]["training"] == {
        "calls": 5,
        "layers": 2,
        "routes": {"lowered": 4, "native": 1},
        "reasons": [
            {"route": "lowered", "reason": lowered[1], "calls": 4},
            {"route": "native", "reason": native[1], "calls": 1},
        ],
    }


@pytest.mark.parametrize("runner", [Run, ModuleThatRuns])
def test_to_look_for_the_layer_keeps_no_arrays(runner: type[Run]) -> None:
    x = mx.ones((1, 1, 16, 8))
    mx.eval(x)
    before = mx.get_active_memory()
    with flash_attention_enabled():
        assert runner().memory_after(x) - before < 2**22


def test_to_look_for_the_layer_leaves_locals_alone() -> None:
    with flash_attention_enabled():
        assert Arguments().given(length=16) == {"length": 16}


def test_a_method_in_a_decorator_is_its_module_s() -> None:
    def decorated(method: Any) -> Any:
        @wraps(method)
        def call(*arguments: Any) -> Any:
            return method(*arguments)

        return call

    class Decorated(nn.Module):
        @decorated
        def __call__(self, x: mx.array) -> mx.array:
            return mx.fast.scaled_dot_product_attention(x, x, x, scale=0.1)

    with flash_attention_enabled():
        mx.eval(Decorated()(mx.ones((1, 1, 16, 8))))
        assert report().layers[-1].class_name == "Decorated"
