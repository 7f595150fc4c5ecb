"""Whatever traces for an export gets MLX's operations, by whatever name it was bound, whatever it
calls; and MLX's default arguments, spelled out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from arithmetic import agree
from mlx.core import export_function, exporter
from mlx.core import export_function as export

from mlx_flash_runtime import (
    disable_flash_attention,
    enable_flash_attention,
    flash_attention,
    flash_attention_enabled,
    report,
)
from mlx_flash_runtime.patching import tracing

Attend = Callable[[mx.array, mx.array, mx.array], mx.array]


@pytest.fixture
def qkv() -> list[mx.array]:
    return [mx.random.normal((1, 2, 12, 16), key=mx.random.key(i)) for i in range(3)]


def by_mlx(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5)


def by_ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    return flash_attention(q, k, v, scale=0.5)


class Model:
    def attend(self, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return by_ours(q, k, v) + by_mlx(q, k, v) - by_mlx(q, k, v)


FUNCTIONS: dict[str, Attend] = {
    "MLX's name": by_mlx,
    "flash_attention": by_ours,
    "a method": Model().attend,
    "compiled": mx.compile(by_ours),
}


def in_one_call(path: str, attend: Attend, qkv: list[mx.array]) -> None:
    export_function(path, attend, *qkv)


def by_another_name(path: str, attend: Attend, qkv: list[mx.array]) -> None:
    export(path, attend, *qkv)


def in_a_block(path: str, attend: Attend, qkv: list[mx.array]) -> None:
    with exporter(path, attend) as one:
        one(*qkv)


def in_a_thread(path: str, attend: Attend, qkv: list[mx.array]) -> None:
    thread = threading.Thread(target=in_one_call, args=(path, attend, qkv))
    thread.start()
    thread.join()


@pytest.fixture(params=[True, False], ids=["patched", "unpatched"])
def patched(request: pytest.FixtureRequest) -> Iterator[None]:
    with flash_attention_enabled(request.param):
        yield


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("attend", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("way", [in_one_call, by_another_name, in_a_block, in_a_thread])
def test_exported_functions(way: Any, attend: Attend, qkv: list[mx.array], tmp_path: Path) -> None:
    wanted = attend(*qkv)
    path = str(tmp_path / "one.mlxfn")
    way(path, attend, qkv)
    (imported,) = mx.import_function(path)(*qkv)
    assert agree(imported, wanted, rtol=1e-5, atol=1e-6)


def test_the_names_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_stays", False)  # as where nobody has asked for flash_attention
    enable_flash_attention()
    disable_flash_attention()
    for function in (export_function, export, exporter, mx.export_function, mx.exporter):
        assert type(function) is type(mx.eval)
    tracing.install_for_good()


def test_other_threads_are_planned_while_one_exports(qkv: list[mx.array], tmp_path: Path) -> None:
    counted = []

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        thread = threading.Thread(target=by_mlx, args=qkv)
        thread.start()
        thread.join()
        counted.append(report().as_dict()["calls"])
        return by_mlx(q, k, v)

    with flash_attention_enabled():
        export_function(str(tmp_path / "one.mlxfn"), attend, *qkv)
        assert counted == [report().as_dict()["calls"]] == [1]


def defaults() -> list[dict[str, Any]]:
    device = mx.default_device()
    return [
        {"stream": None},
        {"stream": device},
        {"stream": device.type},
        {"stream": mx.default_stream(device)},
        *([{"force_fused": False}, {"stream": None, "force_fused": False}] if HAS_FORCED else []),
    ]


HAS_FORCED = "force_fused" in (mx.fast.scaled_dot_product_attention.__doc__ or "")


def test_default_arguments_spelled_out(qkv: list[mx.array]) -> None:
    with flash_attention_enabled():
        by_mlx(*qkv)
        ((route, _),) = report().as_dict()["routes"].items()
        for options in defaults():
            mx.fast.scaled_dot_product_attention(*qkv, scale=0.5, **options)
        assert report().as_dict()["routes"] == {route: 1 + len(defaults())}
        other = mx.new_stream(mx.default_device())
        with mx.stream(other):
            mx.fast.scaled_dot_product_attention(*qkv, scale=0.5, stream=other)
        assert report().as_dict()["routes"] == {route: 2 + len(defaults())}
        mx.fast.scaled_dot_product_attention(*qkv, scale=0.5, stream=other)
        assert report().as_dict()["routes"]["native"] == 1
