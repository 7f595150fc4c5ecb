"""The ten scripts: a fast command line for each, how to drive it, and what of its output to
compare."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from drivers import Outcome, run_plain, run_terminal, run_web

REPO = Path(__file__).parents[2] / "fixtures" / "mlx_scripts"

PROMPTS = [
    "What happens at the harbour?",
    "Tell me a story about the captain.",
    "Who is at the library at noon?",
]


@dataclass(frozen=True)
class Result:
    """What two runs of a script must agree on: `exact` to the letter, `close` within a relative
    tolerance."""

    exact: object = None
    close: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Script:
    """How to run one script on the tiny models.

    `arguments` and the values of `environment` may name {llama}, {gemma}, {data}, {repo},
    {prompts} and {work}, a fresh folder for each run. Further options go in front of `arguments`,
    which is right for subcommands too. `said` is what a chat is told, turn by turn.
    `own_attention` is the function that calls MLX's attention itself.
    """

    name: str
    path: str
    arguments: str
    result: Callable[[Outcome, Path], Result]
    drive: Callable[..., Outcome] = run_plain
    environment: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    own_attention: str | None = None

    @property
    def group(self) -> str:
        """Scripts whose tests run in one process, with `--dist loadgroup`: what they have in
        common, plain runs and MLX's compiled kernels, is made once."""
        return "training" if "finetune" in self.name else self.path


def losses(outcome: Outcome, work: Path) -> Result:
    """Every loss that a training script reports, in order."""
    found = re.findall(r"loss[^\d\n]*(\d+\.\d{5,})", outcome.stdout + outcome.stderr)
    return Result(close=[float(loss) for loss in found])


def losses_and_settings(outcome: Outcome, work: Path) -> Result:
    """The losses, and the names of the settings saved next to the adapters."""
    settings = json.loads((work / "adapters" / "adapter_config.json").read_text())
    return Result(exact=sorted(settings), close=losses(outcome, work).close)


def generated(outcome: Outcome, work: Path) -> Result:
    return Result(exact=json.loads(outcome.stdout)["tokens"])


def scored(outcome: Outcome, work: Path) -> Result:
    score = json.loads(outcome.stdout)
    return Result(exact=score["scored_tokens"], close=[score["loss"]])


def compared(outcome: Outcome, work: Path) -> Result:
    comparison = json.loads(outcome.stdout)
    best = [candidate for row in comparison["prompts"] for candidate in row["top"]]
    return Result(exact=[c["token"] for c in best], close=[c["logprob"] for c in best])


def answers(outcome: Outcome, work: Path) -> Result:
    return Result(
        exact=[
            json.loads(line)["token_ids"]
            for line in (work / "answers.jsonl").read_text().splitlines()
        ]
    )


def replies(outcome: Outcome, work: Path) -> Result:
    return Result(exact=re.findall(r"^bot> (.*)$", outcome.stdout, re.MULTILINE))


def web_replies(outcome: Outcome, work: Path) -> Result:
    return Result(exact=json.loads(outcome.stdout))


def benchmarked(outcome: Outcome, work: Path) -> Result:
    """The tokens that the model made, and the size of the attention outputs (last column of the
    table)."""
    tokens = re.findall(r"^Generated: (.*)$", outcome.stdout, re.MULTILINE)
    sizes = re.findall(r"^ +\d+ .* (\d+\.\d+)$", outcome.stdout, re.MULTILINE)
    return Result(exact=tokens, close=[float(size) for size in sizes])


SCRIPTS = [
    Script(
        "finetune",
        "run_mlx_finetune.py",
        "--model {llama} --data {data} --output_dir {work}/adapters --num_layers -1 "
        "--batch_size 2 --iters 4 --steps_per_report 1 --steps_per_eval 4 --val_batches 2 "
        "--learning_rate 1e-3 --test",
        losses,
    ),
    Script(
        "finetune_improved",
        "run_mlx_finetune_improved.py",
        "--config {repo}/configs/lora.yaml --model {llama} --data {data} "
        "--adapter-path {work}/adapters --batch-size 2 --iters 4 --steps-per-report 1 "
        "--steps-per-eval 4 --val-batches 2",
        losses_and_settings,
    ),
    Script(
        "chat_cli",
        "chat_interfaces/mlx/cli/chat_cli.py",
        "--model {gemma} --max-tokens 16",
        replies,
        drive=run_terminal,
        said=[PROMPTS[0], PROMPTS[1], "/stats", "/reset", PROMPTS[0], "/nonsense"],
    ),
    Script(
        "web_app",
        "chat_interfaces/mlx/web/web_app.py",
        "--model {llama} --port 0 --max-tokens 16",
        web_replies,
        drive=run_web,
        said=[PROMPTS[0], PROMPTS[2]],
    ),
    Script(
        "inference_generate",
        "inference_scripts/mlx/inference.py",
        f"--model {{gemma}} --json generate --prompt '{PROMPTS[2]}' --max-tokens 24 "
        "--prefill-step-size 8",
        generated,
    ),
    Script(
        "inference_score",
        "inference_scripts/mlx/inference.py",
        "--model {gemma} --dtype float32 --json score --file {data}/valid.jsonl --context 64",
        scored,
    ),
    Script(
        "inference_compare",
        "inference_scripts/mlx/inference.py",
        f"--model {{llama}} --json compare '{PROMPTS[0]}' '{PROMPTS[1]}'",
        compared,
    ),
    Script(
        "lora_finetune",
        "fine_tuning_utils/mlx/lora_finetune.py",
        "--model {llama} --data {data} --adapter-path {work}/adapters --mask-prompt --dora "
        "--batch-size 2 --iters 4 --learning-rate 1e-3 --report-every 1 --eval-every 4",
        losses,
    ),
    Script(
        "qlora_finetune",
        "fine_tuning_utils/mlx/qlora_finetune.py",
        "--model {gemma} --data {data} --adapter-path {work}/adapters "
        "--save-quantized {work}/quantized --checkpoint-activations --iters 4 "
        "--learning-rate 1e-3 --report-every 1",
        losses,
    ),
    Script(
        "full_finetune",
        "fine_tuning_utils/mlx/full_finetune.py",
        "--model {llama} --data {data} --output {work}/model --dtype float32 --grad-checkpoint "
        "--max-steps 4 --warmup-steps 1 --learning-rate 1e-3",
        losses,
    ),
    Script(
        "benchmark",
        "performance_utils/benchmark/mlx/benchmark.py",
        "--seq-lens 64 100 --heads 4 --repeats 2 --dtype float32 --model {llama} "
        "--prompt-tokens 40 --generation-tokens 16 --trials 1",
        benchmarked,
        own_attention="attention_of_mlx",
    ),
    Script(
        "batch_inference",
        "performance_utils/examples/mlx/batch_inference.py",
        "{prompts} --output {work}/answers.jsonl --max-tokens 16 --batch-size 2",
        answers,
        environment={"MLX_MODEL": "{gemma}"},
    ),
]
# Those that print tokens per second.
WITH_SPEED = {
    "finetune",
    "finetune_improved",
    "chat_cli",
    "lora_finetune",
    "qlora_finetune",
    "benchmark",
    "batch_inference",
}
TEN = list({script.path: script for script in SCRIPTS}.values())  # one entry per file
# A model beside them, whose attention is written by hand.
HAND_WRITTEN = "performance_utils/examples/mlx/encoder.py"
BY_NAME = {script.name: script for script in SCRIPTS}
