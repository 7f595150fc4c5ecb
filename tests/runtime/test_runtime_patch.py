"""The patch: what it replaces, what it leaves, and that it can be taken back."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from arithmetic import agree

from mlx_flash_runtime import (
    disable_flash_attention,
    enable_flash_attention,
    flash_attention,
    flash_attention_enabled,
    report,
)
from mlx_flash_runtime.patching import patch, state

# In a tuple: the patch replaces the names that modules have for MLX's function, this module's
# included.
STOCK = (mx.fast.scaled_dot_product_attention,)


def current() -> Any:
    return mx.fast.scaled_dot_product_attention


@pytest.fixture
def qkv() -> list[mx.array]:
    return [mx.random.normal((1, 2, 12, 16), key=mx.random.key(i)) for i in range(3)]


@pytest.fixture
def other_module() -> Iterator[ModuleType]:
    module = ModuleType("a_module_with_earlier_bindings")
    module.__dict__.update(scaled_dot_product_attention=STOCK[0], sdpa=STOCK[0], unrelated=len)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_importing_patches_nothing() -> None:
    assert current() is STOCK[0]
    assert type(STOCK[0]).__name__ == "nb_func"


def test_enable_twice_disable_once() -> None:
    enable_flash_attention()
    enable_flash_attention()
    assert current() is patch.scaled_dot_product_attention
    disable_flash_attention()
    assert current() is STOCK[0]
    disable_flash_attention()
    assert current() is STOCK[0]


def test_enabled_false_takes_the_patch_out() -> None:
    enable_flash_attention(False)
    assert current() is STOCK[0]
    enable_flash_attention()
    enable_flash_attention(False)
    assert current() is STOCK[0]


def test_earlier_bindings_are_replaced_and_put_back(other_module: Any) -> None:
    enable_flash_attention()
    assert other_module.scaled_dot_product_attention is current()
    assert other_module.sdpa is current() is not STOCK[0]
    other_module.bound_meanwhile = current()
    disable_flash_attention()
    assert other_module.scaled_dot_product_attention is STOCK[0]
    assert other_module.sdpa is other_module.bound_meanwhile is STOCK[0]
    assert other_module.unrelated is len


def test_earlier_bindings_are_put_back_after_an_error(other_module: Any) -> None:
    def fail() -> None:
        assert other_module.sdpa is current() is not STOCK[0]
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), flash_attention_enabled():
        fail()
    assert other_module.scaled_dot_product_attention is other_module.sdpa is current() is STOCK[0]


def test_a_binding_out_of_reach_runs_on_mlx_after_disable(qkv: list[mx.array]) -> None:
    enable_flash_attention()
    kept = {"function": current()}
    disable_flash_attention()
    assert mx.array_equal(kept["function"](*qkv, scale=0.25), STOCK[0](*qkv, scale=0.25))
    assert report().as_dict()["calls"] == 0


def test_a_patch_on_top_of_ours_survives(
    qkv: list[mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    enable_flash_attention()
    ours = current()
    calls = []

    def on_top(*args: Any, **kwargs: Any) -> mx.array:
        calls.append(args)
        return ours(*args, **kwargs)

    with monkeypatch.context() as package:
        package.setattr(mx.fast, "scaled_dot_product_attention", on_top)
        disable_flash_attention()
        assert current() is on_top
        wanted = on_top(*qkv, scale=0.25)
        enable_flash_attention()
        assert agree(current()(*qkv, scale=0.25), wanted, atol=1e-6)
        assert len(calls) == 2
        assert report().as_dict()["calls"] == 1
        disable_flash_attention()
    # The other package takes itself out after us, and puts back what it had found: ours.
    assert current() is patch.scaled_dot_product_attention
    disable_flash_attention()
    assert current() is STOCK[0]


def test_exported_functions_have_mlx_s_own_attention(qkv: list[mx.array], tmp_path: Path) -> None:
    originals = mx.export_function, mx.exporter

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask="causal")

    wanted = attend(*qkv)
    with flash_attention_enabled():
        mx.export_function(str(tmp_path / "one.mlxfn"), attend, *qkv)
        with mx.exporter(str(tmp_path / "more.mlxfn"), attend) as exporter:
            exporter(*qkv)
        assert agree(attend(*qkv), wanted, rtol=1e-5, atol=1e-6)
    for name in ("one", "more"):
        (imported,) = mx.import_function(str(tmp_path / f"{name}.mlxfn"))(*qkv)
        assert mx.array_equal(imported, wanted)
    assert (mx.export_function, mx.exporter) == originals


def test_an_exported_function_s_arguments_have_any_name(
    qkv: list[mx.array], tmp_path: Path
) -> None:
    def scaled(x: mx.array, function: mx.array, file: mx.array) -> mx.array:
        return x * function + file

    with flash_attention_enabled():
        path = str(tmp_path / "named.mlxfn")
        mx.export_function(path, scaled, qkv[0], function=qkv[1], file=qkv[2])
        with mx.exporter(str(tmp_path / "one.mlxfn"), fun=scaled) as exporter:
            exporter(*qkv)
        with pytest.raises(TypeError, match="incompatible function arguments"):
            mx.export_function(path, 5, qkv[0])
    (imported,) = mx.import_function(path)(qkv[0], function=qkv[1], file=qkv[2])
    assert mx.array_equal(imported, scaled(*qkv))


def test_pauses_of_two_threads_overlap() -> None:
    with flash_attention_enabled():
        planner = patch.active()
        first, second = state.paused(), state.paused()
        with ExitStack() as stack:
            stack.enter_context(first)
            with second:
                assert patch.active() is planner
                stack.close()
                assert state.planner is None
        assert patch.active() is planner is state.planner


def test_the_patch_may_change_inside_of_an_exported_function(
    qkv: list[mx.array], tmp_path: Path
) -> None:
    originals = mx.export_function, mx.exporter

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        with flash_attention_enabled(False):
            first = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5)
        enable_flash_attention(block_size=16)
        return first + mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5)

    with flash_attention_enabled():
        mx.export_function(str(tmp_path / "one.mlxfn"), attend, *qkv)
        assert report().block_size == 16
        assert current() is patch.scaled_dot_product_attention
    assert current() is STOCK[0]
    assert (mx.export_function, mx.exporter) == originals


def test_context_manager_restores_what_was_there() -> None:
    with flash_attention_enabled(block_size=16):
        assert report().block_size == 16
        with flash_attention_enabled(False):
            assert current() is STOCK[0]
        assert report().block_size == 16
    assert current() is STOCK[0]
    enable_flash_attention(block_size=24)
    with pytest.raises(RuntimeError, match="inside"), flash_attention_enabled():
        raise RuntimeError("inside")
    assert report().block_size == 24


@pytest.mark.parametrize("bad", [0, -8, 7, True, 8.0])
def test_bad_block_size_is_a_value_error(bad: Any) -> None:
    for function in (enable_flash_attention, flash_attention_enabled(block_size=bad).__enter__):
        with pytest.raises(ValueError, match="is not a positive multiple of 8"):
            function(block_size=bad) if function is enable_flash_attention else function()  # type: ignore[call-arg]
    assert current() is STOCK[0]


def test_block_size_as_text_is_what_a_user_typed(capsys: pytest.CaptureFixture[str]) -> None:
    enable_flash_attention(True, "64")
    assert report().block_size == 64
    for text in ("7", "0", "-8", "x", ""):
        with pytest.raises(SystemExit) as exit_:
            enable_flash_attention(True, text)
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert error == f"--flash-block-size: {text} is not a positive multiple of 8\n"


def arguments(qkv: list[mx.array]) -> list[tuple[list[Any], dict[str, Any]]]:
    q, k, v = qkv
    mask = mx.ones((12, 12), mx.bool_)
    return [
        ([q, k, v], {"scale": 0.25}),
        ([q], {"v": v, "k": k, "scale": mx.array(0.25)}),
        ([], {"q": q, "k": k, "v": v, "scale": 1, "mask": "causal"}),
        ([q, k, v], {"scale": 0.25, "mask": mask, "sinks": mx.zeros((2,))}),
        ([q, k, v], {"scale": 0.25, "stream": mx.cpu}),
        ([q, k, v], {"scale": 0.25, "mask": mx.ones((12, 12), mx.int32)}),
        ([q.astype(mx.int32), k, v], {"scale": 0.25}),
    ]


@pytest.mark.parametrize("route", ["unfused", "blockwise", "reference"])
def test_every_form_of_call_works(
    route: str, qkv: list[mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", route)
    enable_flash_attention()
    for args, kwargs in arguments(qkv):
        out = current()(*args, **kwargs)
        assert agree(out, STOCK[0](*args, **kwargs), atol=1e-6)


def wrong_arguments(qkv: list[mx.array]) -> list[tuple[list[Any], dict[str, Any]]]:
    q, k, v = qkv
    return [
        ([q, k], {"scale": 1.0}),
        ([q, k, v, None], {"scale": 1.0}),
        ([q, k, v], {}),
        ([q, k, v], {"scale": "1"}),
        ([q, k, v], {"scale": 1.0, "colour": 1}),
        ([q[0], k, v], {"scale": 1.0}),
        ([q, k[..., :8], v], {"scale": 1.0}),
        ([q, k, mx.concatenate([v, v])], {"scale": 1.0}),
        ([q, mx.concatenate([k] * 3, 1)[:, :3], mx.concatenate([v] * 3, 1)[:, :3]], {"scale": 1.0}),
        ([q.astype(mx.int32)] * 3, {"scale": 1.0}),
        ([q, k, v], {"scale": 1.0, "mask": "full"}),
        ([q, k, v], {"scale": 1.0, "mask": [[1.0]]}),
        ([q, k, v], {"scale": 1.0, "mask": mx.zeros((5, 12))}),
        ([q.astype(mx.float16)] * 3, {"scale": 1.0, "mask": mx.zeros((12, 12))}),
        ([q, k, v], {"scale": 1.0, "sinks": mx.zeros((3,))}),
        ([q, k, v], {"scale": 1.0, "force_fused": True}),
        ([q, k, v], {"scale": 10**400}),
        ([q, k, v], {"scale": "0.5"}),
    ]


@pytest.mark.parametrize("route", ["unfused", "blockwise"])
def test_errors_are_those_of_mlx(
    route: str, qkv: list[mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_FLASH_ROUTE", route)
    enable_flash_attention()
    for args, kwargs in arguments(qkv):  # so that good plans for these shapes are known already
        current()(*args, **kwargs)
    for args, kwargs in wrong_arguments(qkv):
        with pytest.raises((TypeError, ValueError)) as wanted:
            STOCK[0](*args, **kwargs)
        with pytest.raises(type(wanted.value)) as own:
            current()(*args, **kwargs)
        assert str(own.value).splitlines()[0] == str(wanted.value).splitlines()[0]


def test_flash_attention_needs_no_patch(
    qkv: list[mx.array], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = STOCK[0](*qkv, scale=0.25, mask="causal")
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    assert agree(flash_attention(*qkv, scale=0.25, mask="causal", block_size=8), wanted, atol=1e-6)
    assert report().as_dict()["routes"] == {"blockwise": 1}
    number = np.float64(0.25)
    assert agree(flash_attention(*qkv, scale=number, mask="causal"), wanted, atol=1e-6)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        flash_attention(*qkv, scale="0.25")  # type: ignore[arg-type]
    monkeypatch.setenv("MLX_FLASH_DISABLE", "1")
    assert mx.array_equal(flash_attention(*qkv, scale=0.25, mask="causal"), wanted)
    with pytest.raises(ValueError, match="12 is not a positive multiple of 8"):
        flash_attention(*qkv, scale=0.25, block_size=12)


def test_a_traced_scale_is_refused_as_by_mlx(qkv: list[mx.array]) -> None:
    @mx.compile
    def scaled(scale: mx.array) -> mx.array:
        return current()(*qkv, scale=scale)  # type: ignore[no-any-return]

    for enabled in (False, True):
        with (
            flash_attention_enabled(enabled),
            pytest.raises(TypeError, match="incompatible function arguments"),
        ):
            scaled(mx.array(0.5))


def test_names_of_modules_that_are_called_much_like_this_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("mlx_flash_runtime_helpers")
    module.__dict__.update(sdpa=STOCK[0])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    enable_flash_attention()
    assert module.sdpa is current()
    disable_flash_attention()
    assert module.sdpa is STOCK[0]


def test_threads_share_the_patch_and_lose_no_calls(qkv: list[mx.array]) -> None:
    enable_flash_attention()
    errors: list[Exception] = []

    def call() -> None:
        try:
            for _ in range(500):
                mx.fast.scaled_dot_product_attention(*qkv, scale=0.25)
                enable_flash_attention()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert report().as_dict()["calls"] == 2000
    disable_flash_attention()
    assert current() is STOCK[0]


def test_a_module_that_loads_lazily_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loads_lazily.py").write_text("raise AssertionError('loaded')\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("loads_lazily", tmp_path / "loads_lazily.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loads_lazily", module)
    spec.loader.exec_module(module)
    enable_flash_attention()
    disable_flash_attention()
    with pytest.raises(AssertionError, match="loaded"):
        module.anything  # noqa: B018
