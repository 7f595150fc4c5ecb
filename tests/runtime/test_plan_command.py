"""`mlx-flash plan`: what a step needs, by following its graph, and what fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from backends import cpu_only
from click.testing import CliRunner, Result

from mlx_flash_runtime.patching import patch
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.tools.bench.models import config_of
from mlx_flash_runtime.tools.cli.group import mlx_flash
from mlx_flash_runtime.tools.memory.evaluation import in_order, peak
from mlx_flash_runtime.tools.memory.fits import budget_of, largest
from mlx_flash_runtime.tools.memory.fusion import fused
from mlx_flash_runtime.tools.memory.graph import needed, trace
from mlx_flash_runtime.tools.memory.steps import Need

STOCK = mx.fast.scaled_dot_product_attention
RESULTS = Path(__file__).parents[2] / "benchmarks/results/plan_cpu.json"
MAC = ("--device", "metal", "--chip", "m3", "--memory", "16")


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(mlx_flash, ["plan", *map(str, arguments)])


def found(*arguments: object) -> dict[str, Any]:
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def folder(tmp_path: Path, **more: Any) -> Path:
    """A model of eight layers, 8 KiB of cache a token, for texts of up to 131,072 tokens, as a
    config.json alone."""
    shape = {"num_hidden_layers": 8, "hidden_size": 256, "intermediate_size": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128}
    longest = {"vocab_size": 1024, "max_position_embeddings": 131_072}
    config = {**config_of("tiny", "llama"), **shape, **heads, **longest, **more}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_a_product_needs_its_output_and_no_weights() -> None:
    graph = trace(lambda x, w: [x @ w], [mx.zeros((8, 16)), mx.zeros((16, 32))])
    assert peak(graph, [], "cpu").most == 4 * 8 * 32
    x = graph.inputs[0]
    assert peak(graph, [x], "cpu").most == 4 * (8 * 32 + 8 * 16)


def test_what_nobody_reads_any_more_is_written_over() -> None:
    graph = trace(lambda x: [mx.exp(x)], [mx.zeros(10_000)])
    assert peak(graph, [], "cpu").most == 40_000
    assert peak(graph, graph.inputs, "cpu").most == 40_000


def test_views_are_free_and_copies_are_not() -> None:
    x = mx.zeros((64, 128))
    seen = trace(lambda x: [mx.swapaxes(x, 0, 1)], [x])
    copied = trace(lambda x: [mx.reshape(mx.swapaxes(x, 0, 1), (-1,))], [x])
    assert peak(seen, [], "cpu").most == 0
    assert peak(copied, [], "cpu").most == 4 * 64 * 128


def test_outputs_that_are_not_asked_for_need_nothing() -> None:
    graph = trace(lambda x, w: [x @ w, mx.exp(x)], [mx.zeros((8, 8)), mx.zeros((8, 8))])
    graph.outputs.pop(0)
    assert [each.name for each in in_order(graph)] == ["Exp"]
    assert [each.name for each in needed(graph).operations] == ["Exp"]


def test_compiling_leaves_out_what_is_between_operations() -> None:
    def gated(x: mx.array, y: mx.array, w: mx.array) -> list[mx.array]:
        return [(mx.sigmoid(x) * x * y) @ w]

    graph = fused(trace(gated, [mx.zeros((8, 8))] * 3))
    assert [each.name for each in graph.operations] == ["Compiled", "Matmul"]
    assert peak(graph, [], "cpu").most == 2 * 4 * 64


def test_an_output_that_nobody_else_reads_is_compiled_with_what_reads_it() -> None:
    def adam(p: mx.array, m: mx.array, v: mx.array, gradient: mx.array) -> list[mx.array]:
        m = 0.9 * m + 0.1 * gradient
        v = 0.99 * v + 0.01 * mx.square(gradient)
        return [p - m / (mx.sqrt(v) + 1e-8), m, v]

    graph = fused(trace(adam, [mx.zeros((64, 64))] * 4))
    (operation,) = graph.operations
    assert sorted(operation.outputs) == sorted(graph.outputs)
    # Each of the three outputs keeps the inputs, so that MLX writes over none of them.
    found = peak(graph, graph.inputs, "cpu")
    assert found.least == found.most == 4 * 64 * 64 * (4 + 3)


def test_what_is_read_elsewhere_is_not_compiled_away() -> None:
    def shared(x: mx.array, w: mx.array) -> list[mx.array]:
        y = mx.exp(x)
        return [mx.sin(y) + 1, y @ w]

    graph = fused(trace(shared, [mx.zeros((8, 8))] * 2))
    made = {name for each in graph.operations for name in each.outputs}
    read = {name for each in graph.operations for name in each.inputs}
    assert read <= made | set(graph.inputs) | set(graph.constants)
    assert sorted(each.name for each in needed(graph).operations).count("Exp") == 1


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
@pytest.mark.parametrize("step", [1, 3, 8])
def test_the_largest_that_fits_is_that_of_asking_for_each(limit: int, step: int) -> None:
    sizes = [*range(step, limit, step), limit]
    for budget in range(limit + 2):
        fitting = max((size for size in sizes if size <= budget), default=0)
        assert largest(lambda size: Need(size, 0, 0, 0), budget, step, limit) == fitting


def test_a_mac_gives_programs_part_of_its_memory() -> None:
    gib = 2**30
    small, large = (Device("metal", (0, 32, 4), size * gib) for size in (24, 96))
    assert (budget_of(small), budget_of(large)) == (16 * gib, 72 * gib)


def test_a_fused_model_on_a_mac_gains_nothing_and_nothing_is_computed(tmp_path: Path) -> None:
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    answer = found("--model", folder(tmp_path), *MAC)
    mx.synchronize()
    assert mx.get_peak_memory() - before < 2**24
    assert answer["largest_with"] == answer["largest_without"] == 131_072
    assert all(row["with_runtime"] == row["without"] for row in answer["rows"])
    assert mx.fast.scaled_dot_product_attention is STOCK
    assert patch.active() is None


def test_a_cache_of_fewer_bits_reaches_further(tmp_path: Path) -> None:
    arguments = ("--model", folder(tmp_path), "--device", "metal", "--memory", "1")
    plain, four = found(*arguments), found(*arguments, "--kv-bits", 4)
    assert plain["largest_with"] < four["largest_with"]
    assert ["--kv-bits 4", four["largest_with"]] in plain["advice"]


def test_quantized_weights_are_smaller(tmp_path: Path) -> None:
    whole = found("--model", folder(tmp_path), *MAC)["rows"][0]["with_runtime"]
    config = folder(tmp_path, quantization={"group_size": 64, "bits": 4})
    quantized = found("--model", config, *MAC)["rows"][0]["with_runtime"]
    assert quantized["weights"] == pytest.approx(whole["weights"] * 4.5 / 16, rel=0.01)
    assert quantized["cache"] == whole["cache"]


def test_windows_have_no_cache_that_mlx_lm_quantizes(tmp_path: Path) -> None:
    windows = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"] * 4}
    result = plan("--model", folder(tmp_path, **windows), "--kv-bits", 8)
    assert result.exit_code == 2
    assert "mlx-lm quantizes no cache that lets go of old tokens" in result.output


@cpu_only
def test_a_batch_as_large_as_is_looked_for_may_be_larger(tmp_path: Path) -> None:
    small = folder(tmp_path, num_hidden_layers=1)
    said = plan("--model", small, "--train", "lora", "--length", 16, "--memory", 64).output
    assert "largest batch with the runtime: 256 rows or more; 256 or more without" in said


def test_training_on_a_cpu_with_the_kernel_keeps_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_of("tiny", "llama")), encoding="utf-8")
    answer = found("--model", tmp_path, "--train", "lora", "--length", 512, "--device", "cpu")
    first = answer["rows"][0]
    scores = 2 * 4 * 512 * 512 * 4  # of a layer, and their softmax
    assert first["with_runtime"]["rest"] + scores < first["without"]["rest"]


def test_page_says_what_dominates_and_what_helps(tmp_path: Path) -> None:
    result = plan("--model", folder(tmp_path), "--device", "metal", "--memory", "1")
    assert "most is the cache" in result.stdout
    assert "with --kv-bits 4: " in result.stdout


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--train", "lora", "--kv-bits", "8"), "--kv-bits: of generation, and --train is given"),
        (("--length", "8"), "--length is of --train"),
        (("--chip", "m3", "--device", "cuda"), "--chip is of Macs"),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    result = plan("--model", folder(tmp_path), *more)
    assert result.exit_code == 2
    assert says in result.output


def test_no_model_and_a_machine_that_is_too_small(tmp_path: Path) -> None:
    assert plan("--model", tmp_path / "none").exit_code == 2
    config = folder(tmp_path, vocab_size=4_000_000)
    result = plan("--model", config, "--device", "metal", "--memory", "1")
    assert result.exit_code == 1
    assert "longest context with the runtime: 0 tokens" in result.stdout


def test_predictions_were_within_a_tenth_of_what_mlx_measured() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert len({row["model"] for row in rows}) >= 8
    assert [
        row for row in rows if not 0.9 <= row["predicted_mib"] / row["measured_mib"] <= 1.1
    ] == []
