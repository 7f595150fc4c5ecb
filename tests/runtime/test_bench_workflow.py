"""`mlx-flash bench workflow`: every workflow on small models, and what stands in for attention."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from backends import on_cpu
from click.testing import CliRunner, Result
from mlx.utils import tree_map

from mlx_flash_runtime.planning.planner import forget_plans
from mlx_flash_runtime.routes import blockwise
from mlx_flash_runtime.tools.bench import model_check, models, variants, workflow, workloads
from mlx_flash_runtime.tools.bench.tables import load
from mlx_flash_runtime.tools.cli.group import mlx_flash
from tiny_models import make_models

STOCK = mx.fast.scaled_dot_product_attention
QUICK = ("--rounds", "3")
REPLY = ("--new-tokens", "3")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(mlx_flash, ["bench", "workflow", *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models that the end-to-end tests use, as folders."""
    out = tmp_path_factory.mktemp("models")
    make_models(out)
    return out


@pytest.mark.parametrize("name", workloads.WORKFLOWS)
def test_every_workflow_is_measured(name: str) -> None:
    model = models.make("tiny", "llama")
    rows = list(
        workflow.measure(
            lambda: model, name, [workloads.Sizes(length, 2, 3) for length in (9, 16)], 3
        )
    )
    assert [row["length"] for row in rows] == [9, 16]
    for row in rows:
        assert {row[f"{variant}_status"] for variant in variants.VARIANTS} == {"ok"}
        assert row["over_stock"] == round(row["ours_tokens_per_s"] / row["stock_tokens_per_s"], 2)
        assert (
            row["stock_low_tokens_per_s"]
            <= row["stock_tokens_per_s"]
            <= row["stock_high_tokens_per_s"]
        )
        assert 0 <= row["attention_share"] < 1
        assert row["bound"] >= 1
        assert row["stock_peak_mib"] > 0
        for key in ("stock_first_token_ms", "ours_later_tokens_per_s"):
            assert (row[key] is not None) == (name in ("chat", "batch"))
        assert row["difference"] <= 10 * row["rounding"]
        assert row["layer_difference"] <= 10 * row["layer_rounding"]
        assert row["layer_difference"] > 0 or row["routes"].split()[0] in ("native", "unfused")
        assert row["routes"]
    assert mx.fast.scaled_dot_product_attention is STOCK


def test_a_wrong_route_is_printed_as_wrong_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args: lambda call: right(*args)(call) * 1.01)
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    result = run("evaluate", "--length", "32", *QUICK)
    assert result.exit_code == 1
    assert "WRONG: " in result.stdout


@pytest.mark.parametrize(("rounding", "wrong"), [(0.01, True), (0.4, False)])
def test_logits_count_only_where_other_roundings_leave_them_alone(
    rounding: float, wrong: bool
) -> None:
    found = {"difference": 0.9, "rounding": rounding}
    found |= {"layer_difference": 1e-7, "layer_rounding": 1e-7}
    assert model_check.is_wrong(found) == wrong
    # That a layer is wrong is seen whatever the logits are.
    assert model_check.is_wrong(found | {"layer_difference": 1e-4})
    assert model_check.is_wrong(found | {"layer_difference": float("nan")})


def test_one_wrong_layer_is_found_in_a_model_whose_logits_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = models.make("tiny", "gemma")
    monkeypatch.setenv("MLX_FLASH_ROUTE", "blockwise")
    right = model_check.compared(model, 32)
    attend = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args: lambda call: attend(*args)(call) * 1.05)
    forget_plans()
    wrong = model_check.compared(model, 32)
    monkeypatch.undo()
    forget_plans()
    assert not model_check.is_wrong(right | {"rounding": 0.4})
    assert model_check.is_wrong(wrong | {"rounding": 0.4})


def test_no_two_prompts_of_a_chat_have_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = import_module("mlx_lm.generate")
    usual, lengths = generation.generate_step, []

    def generate_step(prompt: mx.array, *args: Any, **more: Any) -> Any:
        lengths.append(prompt.size)
        return usual(prompt, *args, **more)

    monkeypatch.setattr(generation, "generate_step", generate_step)
    model = models.make("tiny", "llama")
    replies = [workloads.Sizes(71, 1, new_tokens) for new_tokens in (2, 3)]
    rows = list(workflow.measure(lambda: model, "chat", replies, 3))
    assert len(lengths) >= len(rows) * len(variants.VARIANTS) * 3
    assert len(set(lengths)) == len(lengths)


@pytest.mark.skipif(not on_cpu, reason="here MLX's own attention keeps no scores either")
def test_a_length_that_does_not_fit_is_reported_and_the_others_go_on() -> None:
    model = models.make("tiny", "llama")
    # The scores of 600 tokens take 11 MiB.
    before = mx.set_memory_limit(mx.get_active_memory() + 8 * 2**20)
    try:
        sizes = [workloads.Sizes(length, 1, 2) for length in (32, 600)]
        first, second = workflow.measure(lambda: model, "chat", sizes, 3)
    finally:
        mx.set_memory_limit(before)
    assert [first[f"{variant}_status"] for variant in variants.VARIANTS] == ["ok"] * 3
    assert [second[f"{variant}_status"] for variant in variants.VARIANTS] == [
        "out of memory",
        "ok",
        "ok",
    ]
    assert second["ours_tokens_per_s"] > 0
    assert second["over_stock"] is None
    assert second["attention_share"] is None


def test_a_training_step_that_does_not_fit_costs_its_own_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[models.Model] = []
    tried: list[int] = []  # by stock, which comes first

    def make() -> models.Model:
        made.append(models.make("tiny", "llama"))
        return made[-1]

    def prepare(
        model: models.Model, name: str, sizes: workloads.Sizes
    ) -> Callable[[], workloads.Work]:
        usual = workloads.prepare(model, name, sizes)

        def one() -> workloads.Work:
            if sizes.length < 16 or tried:
                return usual()
            tried.append(sizes.length)
            # As a GPU leaves it: the weights are results of a step that could not be computed.
            model.module.update(tree_map(lambda x: x * mx.nan, model.module.parameters()))
            raise RuntimeError("[malloc] Unable to allocate 1 bytes.")

        return one

    monkeypatch.setattr(workflow, "prepare", prepare)
    rows = list(workflow.measure(make, "full", [workloads.Sizes(n, 1, 2) for n in (8, 16, 9)], 3))
    statuses = [[row[f"{variant}_status"] for variant in variants.VARIANTS] for row in rows]
    assert statuses == [["ok"] * 3, ["out of memory", "ok", "ok"], ["ok"] * 3]
    assert len(made) == 2


@pytest.mark.parametrize("shape", ["window", "gemma"])
@pytest.mark.parametrize("name", ["chat", "batch"])
def test_windows_and_wide_heads(shape: str, name: str) -> None:
    model = models.make("tiny", shape)
    # Longer than the window of 64.
    (row,) = workflow.measure(lambda: model, name, [workloads.Sizes(90, 2, 3)], 3)
    assert row["stock_tokens_per_s"] > 0
    assert row["difference"] <= 10 * row["rounding"]


def test_checkpointing_is_undone() -> None:
    model = models.make("tiny", "llama")
    call = type(model.module.layers[0]).__call__
    (row,) = workflow.measure(lambda: model, "lora", [workloads.Sizes(8, 2, 3)], 3, checkpoint=True)
    assert row["checkpoint"]
    assert type(model.module.layers[0]).__call__ is call


def test_a_model_of_a_billion_is_described_right() -> None:
    config = models.config_of("1b", "llama")
    hidden, layers, wide = (
        config["hidden_size"],
        config["num_hidden_layers"],
        config["intermediate_size"],
    )
    keys = config["num_key_value_heads"] * config["head_dim"]
    parameters = config["vocab_size"] * hidden + layers * (
        2 * hidden**2 + 2 * hidden * keys + 3 * hidden * wide
    )
    assert parameters > 10**9
    assert models.config_of("1b", "window")["layer_types"].count("sliding_attention") == 12


@pytest.mark.parametrize(
    ("heads", "keys", "length", "value_dim"), [(4, 4, 6, 8), (4, 2, 10, 8), (4, 1, 4, 5)]
)
def test_the_stand_in_has_attentions_shape_and_needs_all_its_inputs(
    heads: int, keys: int, length: int, value_dim: int
) -> None:
    q = mx.random.normal((2, heads, 6, 8))
    k, v = mx.random.normal((2, keys, length, 8)), mx.random.normal((2, keys, length, value_dim))
    out = variants.stand_in(q, k, v, scale=1.0, mask=None)
    assert out.shape == STOCK(q, k, v, scale=1.0).shape
    gradients = mx.grad(lambda *qkv: variants.stand_in(*qkv).square().sum(), argnums=(0, 1, 2))(
        q, k, v
    )
    for gradient, x in zip(gradients, (q, k, v), strict=True):
        assert gradient.shape == x.shape
        assert mx.abs(gradient).max().item() > 0


def test_the_command_on_a_folder(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    result = run(
        "chat",
        "--model",
        str(folder / "gemma"),
        "--length",
        "6,9",
        *QUICK,
        "--new-tokens",
        "3,5",
        "--json",
        str(path),
        "--verbose",
    )
    assert result.exit_code == 0, result.stderr
    document = load(path)
    assert {row["model"] for row in document.rows} == {"gemma"}
    replies = [(row["length"], row["new_tokens"]) for row in document.rows]
    assert replies == [(6, 3), (6, 5), (9, 3), (9, 5)]
    # Where there is no terminal for a bar.
    assert result.stderr == "measuring chat at 2 lengths ...\n"
    assert "Amdahl" in result.stdout
    assert "first token ms" in result.stdout
    assert "then tokens/s" in result.stdout


def test_bad_models_are_named(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path, name: str = "chat") -> str:
        result = run(name, "--model", str(path), *QUICK)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        return result.stderr

    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "it has no config.json" in refused(tmp_path)
    config = tmp_path / "config.json"
    config.write_text('{\n "model_type": "llama"\n')
    assert f"{config}:3:" in refused(tmp_path)
    config.write_text(json.dumps({"model_type": "llama"}))
    assert "cannot be loaded" in refused(tmp_path)


def test_a_bad_model_is_told_before_anything_is_compiled(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlx_flash_runtime.tools.cli",
        "bench",
        "workflow",
        "lora",
        "--model",
        "mlx-community/X",
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: mlx-community/X: no such folder; download it first: "
        "hf download mlx-community/X --local-dir X\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_quantized_model_is_not_trained_in_full(folder: Path, tmp_path: Path) -> None:
    from mlx_lm import load as load_model
    from mlx_lm.utils import quantize_model, save

    model, tokenizer, config = load_model(str(folder / "llama"), return_config=True)
    model, config = quantize_model(model, config, group_size=32, bits=4)
    save(tmp_path / "quantized", folder / "llama", model, tokenizer, config)
    result = run("full", "--model", str(tmp_path / "quantized"), *QUICK)
    assert result.exit_code == 2
    assert "quantized" in result.stderr
    result = run("qlora", "--model", str(tmp_path / "quantized"), "--length", "8", *QUICK)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("chat", "--batch", "4"), "--batch: the workflow chat has none"),
        (("chat", "--checkpoint"), "--checkpoint: the workflow chat has none"),
        (("chat", "--new-tokens", "8,1"), "--new-tokens: a reply has two tokens or more"),
        (("lora", "--new-tokens", "4"), "--new-tokens: the workflow lora has none"),
        (("lora", "--model", "x", "--config", "1b"), "--config: the model is that of --model x"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    options: tuple[str, ...], message: str
) -> None:
    result = run(*options)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")


def test_an_interruption_is_one_line_and_status_130() -> None:
    command = [
        sys.executable,
        "-m",
        "mlx_flash_runtime.tools.cli",
        "bench",
        "workflow",
        "lora",
        "--length",
        "600",
    ]
    bench = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert bench.stderr is not None
    assert bench.stderr.readline() == "measuring lora at 1 length ...\n"
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate()
    assert (bench.returncode, out, err) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    "options", [("cat",), ("chat", "--length", "x"), ("chat", "--dtype", "int8")]
)
def test_bad_options(options: tuple[str, ...]) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
