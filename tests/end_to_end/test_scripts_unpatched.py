"""The ten scripts do what they say, as processes on the tiny models, before anything is integrated
into them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from drivers import Outcome
from mlx_lm import load
from scripts import BY_NAME, HAND_WRITTEN, PROMPTS, REPO, TEN, Result, Script

Unpatched = Callable[..., tuple[Outcome, Path, Result]]

LORA = ("finetune", "finetune_improved", "lora_finetune")
TRAINING = [BY_NAME[name] for name in (*LORA, "qlora_finetune", "full_finetune")]


def of(name: str) -> pytest.MarkDecorator:
    """Where the script's other tests run."""
    return pytest.mark.xdist_group(BY_NAME[name].group)


def test_every_script_of_the_repo_is_described() -> None:
    assert {script.path for script in TEN} | {HAND_WRITTEN} == {
        str(path.relative_to(REPO)) for path in REPO.rglob("*.py")
    }
    assert len(TEN) == 10


@pytest.mark.parametrize("script", TRAINING, ids=lambda script: script.name)
def test_training_lowers_the_validation_loss(unpatched: Unpatched, script: Script) -> None:
    outcome, _, result = unpatched(script)
    # validation, four training steps, validation, and a test loss where there is one, in the order
    # of the report
    assert len(result.close) in (6, 7)
    assert all(math.isfinite(loss) for loss in result.close)
    validation = re.findall(r"val\w*[ _]loss[^\d\n]*(\d+\.\d{5,})", outcome.stdout + outcome.stderr)
    assert float(validation[-1]) < float(validation[0])


@pytest.mark.parametrize("script", TRAINING[: len(LORA)], ids=lambda script: script.name)
def test_adapters_load_and_change_the_model(
    unpatched: Unpatched, models: Path, script: Script
) -> None:
    _, work, _ = unpatched(script)
    tokens = mx.array([[5, 300, 310, 320]])
    plain, _ = load(str(models / "llama"))
    tuned, _ = load(str(models / "llama"), adapter_path=str(work / "adapters"))
    assert not mx.allclose(plain(tokens), tuned(tokens))


@of("qlora_finetune")
def test_qlora_trains_on_four_bits(unpatched: Unpatched, models: Path) -> None:
    _, work, _ = unpatched(BY_NAME["qlora_finetune"])
    config = json.loads((work / "quantized" / "config.json").read_text())
    assert config["quantization"]["bits"] == 4
    tuned, _ = load(str(work / "quantized"), adapter_path=str(work / "adapters"))
    assert tuned(mx.array([[5, 300]])).shape == (1, 2, 448)


@of("full_finetune")
def test_full_finetune_saves_a_model(unpatched: Unpatched) -> None:
    _, work, _ = unpatched(BY_NAME["full_finetune"])
    load(str(work / "model"))


@of("chat_cli")
def test_chat_remembers_until_reset(unpatched: Unpatched) -> None:
    outcome, _, result = unpatched(BY_NAME["chat_cli"])
    first, second, again = result.exact
    assert first == again != second
    assert "-- 2 turns" in outcome.stdout
    assert "unknown command /nonsense" in outcome.stdout
    assert outcome.stdout.rstrip().endswith("bye")


@of("web_app")
def test_web_streams_what_it_answers(unpatched: Unpatched) -> None:
    _, _, result = unpatched(BY_NAME["web_app"])
    assert result.exact["page"] == "<!doctype html>"
    assert result.exact["health"] == "ok"
    for whole, streamed in zip(result.exact["whole"], result.exact["streamed"], strict=True):
        assert whole["usage"]["completion_tokens"] == 16 == len(whole["tokens"])
        assert streamed == {"reply": whole["reply"], "tokens": whole["tokens"], "done": True}
    first, second = result.exact["whole"]
    assert first["reply"] != second["reply"]


@of("inference_generate")
def test_prompts_alone_or_in_a_batch_give_the_same_tokens(unpatched: Unpatched) -> None:
    _, _, alone = unpatched(BY_NAME["inference_generate"])
    _, _, batch = unpatched(BY_NAME["batch_inference"])
    assert len(alone.exact) == 24
    assert [len(tokens) for tokens in batch.exact] == [16] * len(PROMPTS)
    assert batch.exact[2] == alone.exact[:16]


@of("inference_score")
def test_perplexity_is_the_exponential_of_the_loss(unpatched: Unpatched) -> None:
    outcome, _, _ = unpatched(BY_NAME["inference_score"])
    score = json.loads(outcome.stdout)
    assert score["scored_tokens"] > 100
    assert score["perplexity"] == pytest.approx(math.exp(score["loss"]))


@of("inference_compare")
def test_compare_finds_a_difference(unpatched: Unpatched) -> None:
    outcome, _, result = unpatched(BY_NAME["inference_compare"])
    assert json.loads(outcome.stdout)["kl_divergence"] > 0
    assert len(result.exact) == 10


@of("benchmark")
def test_benchmark_agrees_with_attention_by_hand(unpatched: Unpatched) -> None:
    outcome, _, result = unpatched(BY_NAME["benchmark"])
    assert "The two agree." in outcome.stdout
    assert len(result.close) == 2
    assert len(result.exact[0].split()) == 16
