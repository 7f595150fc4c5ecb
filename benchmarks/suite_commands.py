"""The measurements of each machine: the file, the command, and the seconds that it takes, about.

Two of the CPU's are not among them: `crossover.py`, which takes a quarter of an hour and whose
numbers only constants of the code come from, and `integrator_speed.py`, which needs clones.
"""

from __future__ import annotations

from typing import NamedTuple


class Measurement(NamedTuple):
    """A command without its --json, and the seconds that it takes to its end, about, where MLX has
    compiled its kernels before: the first time a GPU's may take three times as long. `table`: one
    of many short rows, which may be broken off anywhere. `alone`: what the processor takes to start
    kernels is part of it, so nothing else is measured meanwhile, even on another GPU."""

    command: str
    seconds: float
    table: bool = False
    alone: bool = False


_BENCH = "mlx-flash bench"
_GRID = f"{_BENCH} grid --preset claims --dtype float32,bfloat16"
_GRID_CAUSAL = (
    f"{_BENCH} grid --preset claims --batch 1 --head-dim 64 --length 64,128,256,512,1024 "
    "--mask causal --phase prefill,train --rounds 11"
)


def _of_cpu(workflow: str, options: str, seconds: float) -> Measurement:
    return Measurement(f"{_BENCH} workflow {workflow} {options}", seconds)


def _of_h200(workflow: str, options: str, seconds: float) -> Measurement:
    command = f"{_BENCH} workflow {workflow} --config 1b {options}"
    return Measurement(command, seconds, alone=workflow == "chat")  # a reply is small kernels


def _script(command: str, seconds: float, alone: bool = False) -> Measurement:
    return Measurement(f"python benchmarks/{command}", seconds, alone=alone)


def _table(command: str, seconds: float) -> Measurement:
    return Measurement(f"python benchmarks/{command}", seconds, table=True)


# By the name of the file without .json. Those that run alone stand first, so that no GPU waits for
# them later, and tables last: they get what the others leave of the time.
SUITES: dict[str, dict[str, Measurement]] = {
    "cpu": {
        "grid_cpu": Measurement(f"{_GRID} --rounds 15", 130),
        "grid_causal_cpu": Measurement(_GRID_CAUSAL, 130),
        "compare_cpu": _script("compare_script.py", 50),
        "workflow_lora_cpu": _of_cpu("lora", "--length 128,512,1000", 80),
        "workflow_qlora_cpu": _of_cpu("qlora", "--length 128,512,1000", 85),
        "workflow_full_cpu": _of_cpu("full", "--length 128,512,1000", 85),
        "workflow_chat_cpu": _of_cpu("chat", "--length 128,1000", 120),
        "workflow_batch_cpu": _of_cpu("batch", "--length 128,512,1000", 60),
        "workflow_evaluate_cpu": _of_cpu("evaluate", "--length 128,512,1000", 110),
        "policy_cpu": _script("policy.py cpu --runs 1", 150),
        "cpu_kernel": _script("cpu_kernel.py", 220),
        "overhead_cpu": _script("overhead.py cpu", 30),
        "plan_cpu": _script("plan.py cpu", 220),
        "memory_cpu": _script("memory.py cpu", 220),
        "handwritten_models_cpu": _script(
            "handwritten_models.py cpu --size 2 --dtype float32 --longest 1024 --rounds 5", 420
        ),
    },
    "h200": {
        "grid_h200": Measurement(_GRID, 10, alone=True),
        "workflow_chat_h200": _of_h200(
            "chat", "--length 512,8100 --new-tokens 32,256 --rounds 7", 80
        ),
        "workflow_chat_long_h200": _of_h200(
            "chat", "--length 512 --new-tokens 1024 --rounds 3", 55
        ),
        "workflow_chat_window_h200": _of_h200(
            "chat", "--shape window --length 16200 --new-tokens 32,256 --rounds 3", 30
        ),
        "workflow_chat_gemma_h200": _of_h200(
            "chat", "--shape gemma --length 16200 --new-tokens 32 --rounds 3", 20
        ),
        "overhead_h200": _script("overhead.py h200", 10, alone=True),
        "policy_h200": _script("policy.py h200 --runs 1", 80, alone=True),
        "workflow_lora_h200": _of_h200("lora", "--batch 1 --length 2000,16200 --rounds 3", 40),
        "workflow_batch_window_h200": _of_h200(
            "batch", "--shape window --batch 4 --length 16200", 35
        ),
        "workflow_full_h200": _of_h200("full", "--batch 1 --length 2000,8100 --rounds 11", 50),
        "workflow_lora_gemma_h200": _of_h200(
            "lora", "--shape gemma --batch 1 --length 2000,8100 --rounds 11", 90
        ),
        "workflow_full_gemma_h200": _of_h200(
            "full", "--shape gemma --batch 1 --length 2000,8100 --rounds 11", 40
        ),
        "workflow_qlora_h200": _of_h200("qlora", "--batch 1 --length 2000 --rounds 3", 70),
        "workflow_evaluate_h200": _of_h200("evaluate", "--batch 1 --length 2000,16200", 25),
        "workflow_batch_gemma_h200": _of_h200(
            "batch", "--shape gemma --batch 4 --length 16200 --rounds 3", 35
        ),
        "plan_h200": _script("plan.py h200", 135),
        "quantized_cache_h200": _script("quantized_cache.py h200", 20),
        "with_images_h200": _script("with_images.py h200", 30),
        "handwritten_models_h200": _script(
            "handwritten_models.py h200 --size 8 --dtype bfloat16 --rounds 25", 45
        ),
        "routes_h200": _table("routes.py h200 --rounds 12", 60),
        "cuda_training_h200": _table("cuda_training.py h200", 140),
        "few_queries_h200": _table("few_queries.py h200", 75),
        "pytorch_h200": _table("pytorch.py h200", 60),
        "cuda_kernel_h200": _table("cuda_kernel.py h200 --cold", 300),
    },
}
MACHINES = tuple(SUITES)
BACKENDS = {"cpu": "cpu", "h200": "cuda"}


def commands(machine: str) -> dict[str, str]:
    """The command of each measurement, by the name of its file without .json."""
    return {name: measurement.command for name, measurement in SUITES[machine].items()}
