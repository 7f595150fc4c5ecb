"""`mlx-flash explain`: models by their configuration, calls by their shapes, on this device and on
others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from backends import cpu_only
from click.testing import CliRunner, Result

from mlx_flash_runtime import enable_flash_attention
from mlx_flash_runtime.patching import patch
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.tools.bench.models import config_of
from mlx_flash_runtime.tools.cli.explain_printing import shortened
from mlx_flash_runtime.tools.cli.group import mlx_flash

STOCK = (mx.fast.scaled_dot_product_attention,)


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(mlx_flash, ["explain", *map(str, arguments)])


def calls(*arguments: object) -> list[dict[str, Any]]:
    result = explain(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["calls"]
    return found


def folder(tmp_path: Path, config: dict[str, Any] | str) -> Path:
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def window_model(tmp_path: Path) -> Path:
    """Llama 3.2 1B with windows of 1,024 in three layers of four: 2.5 GB, if its weights were
    made."""
    return folder(tmp_path, config_of("1b", "window"))


def test_distinct_calls_of_a_model_that_is_never_computed(window_model: Path) -> None:
    enable_flash_attention()
    before = patch.active()
    mx.synchronize()
    mx.reset_peak_memory()
    memory = mx.get_active_memory()
    windows, full = calls("--model", window_model, "--length", 8192, "--device", "metal")
    mx.synchronize()
    assert mx.get_peak_memory() - memory < 2**24
    assert patch.active() is before
    assert (windows["route"], full["route"]) == ("lowered", "native")
    assert [layer["name"] for layer in full["layers"]] == [
        f"model.layers.{i}.self_attn" for i in (3, 7, 11, 15)
    ]
    assert len(windows["layers"]) == 12
    assert windows["problem"]["structure"] == {"size": 1024}
    assert windows["problem"]["dtype"] == "bfloat16"
    assert windows["phase"] == "prefill"
    assert [one["route"] for one in full["refused"]] == [
        "cuda_kernel",
        "lowered",
        "metal_kernel",
    ]


def test_the_same_as_text(window_model: Path) -> None:
    lines = explain(
        "--model", window_model, "--length", 8192, "--device", "metal"
    ).stdout.splitlines()
    assert lines[0].startswith(f"{window_model.name}: prefill of 8,192 tokens on metal (MLX ")
    assert "12 layers: model.layers.0-2,4-6,8-10,12-14.self_attn (Attention)" in lines
    assert (
        "32/8 heads, head dim 64, 8,192 queries on 8,192 keys, window of 1,024, bfloat16" in lines
    )
    assert "  route native: MLX has a fused kernel" in lines
    assert "    not lowered: MLX has a fused kernel as it is" in lines
    assert "    block size 512" in lines
    assert any(line.startswith("    predicted peak memory of the forward pass ") for line in lines)


def test_phases_of_a_model(window_model: Path) -> None:
    model = ("--model", window_model, "--length", 1000, "--device", "cuda", "--batch", 3)
    # The window's keys alone are in its cache.
    (decoded,) = calls(*model, "--decode", "--dtype", "float16")
    assert decoded["phase"] == "decode"
    assert {decoded["problem"][key] for key in ("batch", "query_length", "key_length")} == {
        3,
        1,
        1001,
    }
    assert decoded["problem"]["dtype"] == "float16"
    (trained,) = calls(*model, "--train", "--capability", "8.6")
    assert (trained["phase"], trained["route"]) == ("training", "lowered")
    assert "its length padded" in trained["reason"]


def test_a_model_with_attention_of_its_own(tmp_path: Path) -> None:
    gemma2 = {
        "model_type": "gemma2",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 64,
    }
    (short,) = calls("--model", folder(tmp_path, gemma2), "--length", 100, "--device", "metal")
    assert (short["route"], len(short["layers"])) == ("unfused", 2)
    assert short["reason"].startswith("the model's own attention with softcapped scores")
    assert short["extra_memory"] == short["stock_memory"]
    (long,) = calls("--model", tmp_path, "--length", 2**17, "--device", "metal")
    assert (long["route"], long["problem"]["softcap"]) == ("blockwise", 50.0)


SHAPE = ("--heads", 16, "--kv-heads", 4, "--head-dim", 128, "--length", 8192)


@cpu_only
def test_a_call_by_its_shape_on_this_device() -> None:
    (call,) = calls(*SHAPE, "--mask", "causal")
    assert (call["route"], call["block_size"], call["layers"]) == ("cpu_kernel", None, [])
    assert call["stock_memory"] == 2 * 2 * 16 * 8192**2
    assert {"lowered", "native"} <= {one["route"] for one in call["refused"]}


@pytest.mark.parametrize(
    ("options", "route"),
    [
        (("--device", "cuda", "--mask", "causal"), "native"),
        (
            ("--device", "metal", "--mask", "causal", "--train", "--mlx", "0.31.0", "--memory", 8),
            "query_blocks",
        ),
        (("--device", "cuda", "--mask", "window:512"), "cuda_kernel"),
        (("--device", "cuda", "--capability", "8.6", "--mask", "window:512"), "lowered"),
        (("--device", "cuda", "--mask", "window:9000", "--train"), "cuda_kernel"),
        (("--device", "cuda", "--mask", "window:9000", "--train", "--capability", "8.6"), "native"),
        (("--device", "metal", "--mask", "causal", "--train"), "native"),
        (("--device", "metal", "--mask", "causal", "--train", "--mlx", "0.31.0"), "unfused"),
        (("--device", "metal", "--mask", "bool", "--sinks"), "metal_kernel"),
        (("--device", "metal", "--mask", "additive", "--sinks"), "native"),
        (("--device", "metal", "--decode"), "native"),
        (("--device", "metal", "--value-head-dim", "64"), "lowered"),
    ],
)
def test_a_call_by_its_shape_elsewhere(options: tuple[object, ...], route: str) -> None:
    (call,) = calls(*SHAPE, *options)
    assert call["route"] == route


def test_a_mac_by_its_chip() -> None:
    arguments = ("--heads", 16, "--head-dim", 256, "--length", 1024, "--mask", "causal")
    for chip, fused in (("m3", False), ("m5", True), ("M5", True)):
        (call,) = calls(*arguments, "--chip", chip, "--mlx", "0.32.4")
        assert (call["route"] == "native") == fused
    first = explain(*arguments, "--chip", "m5", "--mlx", "0.31").stdout.splitlines()[0]
    assert first.endswith("on metal M5 (MLX 0.31.2, 64 GiB)")


def test_a_capability_that_is_none_is_told() -> None:
    for value in ("8", "².1"):
        result = explain(*SHAPE, "--device", "cuda", "--capability", value)
        assert result.exit_code == 2
        assert f"'{value}' is not a compute capability, such as 8.0" in result.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is no model: it has no config.json"),
        ("{\n  broken", "config.json:2: "),
        ("[]", "describes no model: it is not a JSON object"),
        ({"hidden_size": 8}, "describes no model: it has no model_type"),
        (
            {"model_type": "fancy"},
            "is a model of type fancy, which the installed mlx-lm does not have",
        ),
        ({"model_type": "llama"}, "does not describe a llama model: "),
        ({"model_type": "gemma2", "head_dim": "x"}, "gemma2"),
    ],
)
def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path, config: Any, message: str) -> None:
    path = tmp_path if config is None else folder(tmp_path, config)
    result = explain("--model", path)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert mx.fast.scaled_dot_product_attention is STOCK[0]


def test_a_model_that_does_not_run_or_would_have_to_is_one_line(tmp_path: Path) -> None:
    config = config_of("tiny", "llama")
    result = explain("--model", folder(tmp_path, {**config, "num_key_value_heads": 3}))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"{tmp_path} does not run: " in result.stderr
    dbrx = {
        "model_type": "dbrx",
        "vocab_size": 32,
        "d_model": 32,
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 2, "moe_top_k": 1},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "n_layers": 1,
        "n_heads": 4,
    }
    result = explain("--model", folder(tmp_path, dbrx))
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {tmp_path} cannot be explained without its weights: "
        "it has to compute numbers to know which of its "
        "parts run\n"
    )
    assert mx.fast.scaled_dot_product_attention is STOCK[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a --model FOLDER, or --heads and --head-dim"),
        (("--model", "nowhere"), "nowhere: no such folder"),
        (
            ("--model", ".", "--heads", 4, "--kv-heads", 2),
            "--heads, --kv-heads: shapes are those of the model",
        ),
        (
            ("--heads", 4, "--head-dim", 64, "--kv-heads", 3),
            "3 key heads do not divide 4 query heads",
        ),
        (("--heads", 4, "--head-dim", 64, "--mask", "diagonal"), "diagonal is not a mask"),
        (
            ("--heads", 4, "--head-dim", 64, "--mlx", "x.32"),
            "--mlx x.32: the versions that were looked at are 0.31.0, ",
        ),
        (
            ("--heads", 4, "--head-dim", 64, "--mlx", "0.99"),
            "--mlx 0.99: the versions that were looked at are 0.31.0, ",
        ),
        (
            ("--heads", 4, "--head-dim", 64, "--device", "metal", "--capability", "8.0"),
            "--capability is of CUDA GPUs, and the device is metal: add --device cuda",
        ),
        (
            ("--heads", 4, "--head-dim", 64, "--device", "cuda", "--chip", "m5"),
            "--chip is of Macs, and the device is cuda",
        ),
        (
            ("--heads", 4, "--head-dim", 64, "--train", "--decode"),
            "--decode and --train exclude each other",
        ),
    ],
)
def test_bad_options_are_one_line_and_status_2(arguments: tuple[object, ...], message: str) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


def test_the_command_itself(window_model: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlx_flash_runtime.tools.cli",
        "explain",
        "--model",
        str(window_model),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"prefill of 4,096 tokens on {current_device().backend} " in done.stdout


def test_names_that_differ_in_a_number_are_one() -> None:
    names = [f"layers.{i}.attn.0" for i in (5, 0, 1, 2, 7)]
    assert shortened([*names, "head.attn"]) == "layers.0-2,5,7.attn.0, head.attn"
    assert shortened(["attn"]) == "attn"
