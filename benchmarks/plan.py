"""What `mlx-flash plan` predicts against what MLX measures.

    python benchmarks/plan.py MACHINE [--json FILE]

Small models, on a GPU four times as wide and as long and in bfloat16, each with stock attention and
with the runtime: the peak of a prompt and its first token as mlx-lm generates it, with plain,
quantized and bounded caches, and of a step of mlx-lm's trainer. Writes
benchmarks/results/plan_MACHINE.json; exits with 1 where a prediction is off by more than a tenth.
A case that MLX refuses is noted as such.

MLX describes a step to a GPU ahead of it, and keeps what is described until it is computed. So the
peak depends on which of the two is faster, and is the highest where the GPU is the slower one, as
with a large model. That is predicted, and so measured: on CUDA the GPU waits before each step,
until all of it is described. The peak of the same without waiting stands beside it, and the lowest
that is predicted, where the GPU is done with each task at once.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from held_back import hold_back
from mlx_lm.generate import generate_step
from mlx_lm.tuner.utils import linear_to_lora_layers
from store import Result, parser_of, place

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.settings import resolve
from mlx_flash_runtime.tools.bench.machine import is_out_of_memory
from mlx_flash_runtime.tools.bench.models import Model
from mlx_flash_runtime.tools.bench.workloads import Sizes, prepare
from mlx_flash_runtime.tools.memory.steps import Generation, Need, Steps

_SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
_LLAMA = {**_SIZES, "model_type": "llama"}
_QWEN3 = {
    **_SIZES,
    "model_type": "qwen3",
    "head_dim": 128,
    "rope_theta": 1e6,
    "max_position_embeddings": 4096,
}
_GEMMA3 = {
    **_SIZES,
    "model_type": "gemma3_text",
    "head_dim": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "sliding_window": 256,
    "sliding_window_pattern": 3,
}
_GEMMA2 = {**_SIZES, "model_type": "gemma2", "num_key_value_heads": 4}
_WINDOW = {
    **_LLAMA,
    "sliding_window": 256,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}
_MISTRAL = {**_LLAMA, "num_key_value_heads": 8, "tie_word_embeddings": False}
_QUANTIZED = {**_LLAMA, "quantization": 4}
_LARGEST_ERROR = 0.1
_ROWS, _TRAINED = 2, 256
_WIDER = 4  # on a GPU
_WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "sliding_window",
)
DEFINITIONS = (
    "Mebibytes at the peak of a prompt and its first token, or of a step of training on two rows "
    "of so many tokens, each the second of two; the prediction is its weights, its cache and the "
    "rest of the step. On CUDA the GPU waits before each step until all of it is described to it, "
    "so that nothing is let go of meanwhile; not held: the peak without that. Least: predicted for "
    "a device that is done with each task at once. Refused: why MLX does not run the case here.",
)
# Compiling MLX's kernels takes most of the time on a GPU that is new to them.
_PROCESSES = 6
_HELD_SECONDS = 0.25  # longer than describing a step takes
_HELD_IN_TRAINING = 1.0  # whose steps are several times as long


class Case(NamedTuple):
    """A model and what it is asked for: a prompt, or with `train` a step of training."""

    name: str
    config: dict[str, Any]
    length: int
    how: Generation = Generation(prefill_step_size=512)
    dtype: mx.Dtype = mx.float32
    train: str | None = None


CASES = (
    Case("llama", _LLAMA, 1536),
    Case("llama, one step", _LLAMA, 1024, Generation()),
    Case("llama, 8-bit cache", _LLAMA, 1536, Generation(kv_bits=8, prefill_step_size=512)),
    # mlx-lm's Llama makes caches of its own, to which --max-kv-size is nothing.
    Case("qwen3, --max-kv-size", _QWEN3, 1536, Generation(None, 512, 512)),
    Case("llama, 4-bit weights", _QUANTIZED, 1024),
    Case("windows", _WINDOW, 1536),
    Case("qwen3", _QWEN3, 1024),
    Case("gemma3", _GEMMA3, 1024),
    Case("gemma2, softcap", _GEMMA2, 1024),
    Case("mistral, bfloat16", _MISTRAL, 1024, dtype=mx.bfloat16),
    Case("llama, LoRA", _LLAMA, _TRAINED, train="lora"),
    Case("llama, full training", _LLAMA, _TRAINED, train="full"),
    Case("gemma3, LoRA", _GEMMA3, _TRAINED, train="lora"),
    Case("llama, QLoRA", _QUANTIZED, _TRAINED, train="lora"),
)


def larger(case: Case) -> Case:
    """The same kind of model as a GPU is used for: wider, with longer prompts, in bfloat16."""
    config = dict(case.config)
    for key in set(_WIDTHS) & set(config):
        config[key] *= _WIDER
    how = replace(
        case.how,
        max_kv_size=case.how.max_kv_size and _WIDER * case.how.max_kv_size,
        prefill_step_size=_WIDER * case.how.prefill_step_size,
    )
    length = _WIDER * case.length
    return case._replace(config=config, length=length, how=how, dtype=mx.bfloat16)


def module_of(case: Case) -> Any:
    """The model of a case with random weights, which are not computed yet."""
    architecture = import_module(f"mlx_lm.models.{case.config['model_type']}")
    module = architecture.Model(architecture.ModelArgs.from_dict(case.config))
    module.set_dtype(case.dtype)
    if "quantization" in case.config:
        nn.quantize(module, group_size=64, bits=case.config["quantization"])
    if case.train == "lora":
        module.freeze()
        linear_to_lora_layers(module, len(module.layers), {"rank": 8, "scale": 20.0, "dropout": 0})
    return module


def predicted(case: Case, with_runtime: bool) -> Need:
    """What `mlx-flash plan` says."""
    settings = resolve(True, None) if with_runtime else None
    steps = Steps(module_of(case), current_device(), settings)
    if case.train:
        return steps.training(case.length, _ROWS)
    return steps.generation(case.length, 1, case.how)


def measured(case: Case, with_runtime: bool) -> Iterator[int]:
    """Bytes at the peak, as MLX counts them: on CUDA with the GPU held back, then without that."""
    module = module_of(case)
    mx.eval(module.parameters())
    if with_runtime:
        enable_flash_attention()
    try:
        run = step_of(module, case)
        run(0)  # the first one compiles, and cuDNN plans, while memory is freed
        held = _HELD_IN_TRAINING if case.train else _HELD_SECONDS
        for seconds in (held, 0) if mx.cuda.is_available() else (0,):
            mx.clear_cache()
            mx.reset_peak_memory()
            run(seconds)
            mx.synchronize()
            yield mx.get_peak_memory()
    finally:
        disable_flash_attention()


def step_of(module: Any, case: Case) -> Callable[[float], None]:
    """What is measured, as a function of the seconds for which the GPU is held back before each
    of its steps."""
    if not case.train:
        return lambda held: prefill(module, case, held)
    model = Model("", module, 0, 0, 0, 0, case.config["vocab_size"], False)
    work = prepare(model, "lora", Sizes(case.length, _ROWS, 0))()

    def train(held: float) -> None:
        if held:
            hold_back(held)
        work()

    return train


def prefill(module: Any, case: Case, held: float) -> None:
    """A prompt of the case's length, and the first token after it."""
    tokens = mx.zeros(case.length + 1, mx.int32)
    mx.eval(tokens)
    how = case.how

    def before_a_step(done: int, of: int) -> None:
        if held and of - done > 1:
            hold_back(held)

    for _ in generate_step(
        tokens,
        module,
        max_tokens=1,
        kv_bits=how.kv_bits,
        quantized_kv_start=0,
        max_kv_size=how.max_kv_size,
        prefill_step_size=how.prefill_step_size,
        prompt_progress_callback=before_a_step,
    ):
        pass
    mx.synchronize()


def rows_of(number: int) -> list[dict[str, Any]]:
    """Those of a case by its number, stock and with the runtime."""
    case = CASES[number]
    if current_device().backend != "cpu":
        case = larger(case)
    return [row_of(case, with_runtime) for with_runtime in (False, True)]


def row_of(case: Case, with_runtime: bool) -> dict[str, Any]:
    """What is predicted and measured, and how far apart they are."""
    begin = time.perf_counter()
    need = predicted(case, with_runtime)
    gc.collect()
    peaks: list[float | None] = []
    refused = "-"
    try:
        peaks.extend(mebibytes(peak) for peak in measured(case, with_runtime))
    except RuntimeError as error:
        refused = "out of memory" if is_out_of_memory(error) else str(error).partition(":")[0]
    peak, not_held = (*peaks, None, None)[:2]
    gc.collect()
    mx.clear_cache()
    return {
        "model": case.name,
        "attention": "ours" if with_runtime else "stock",
        "length": case.length,
        "predicted_mib": mebibytes(need.total),
        "measured_mib": peak,
        "not_held_mib": not_held,
        "weights_mib": mebibytes(need.weights),
        "cache_mib": mebibytes(need.cache),
        "rest_mib": mebibytes(need.rest),
        "least_mib": mebibytes(need.least),
        "ratio": None if peak is None else round(mebibytes(need.total) / peak, 3),
        "refused": refused,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def mebibytes(size: int) -> float:
    """Bytes in MiB, to a tenth."""
    return round(size / 2**20, 1)


def in_processes() -> Iterator[list[dict[str, Any]]]:
    """The rows of each case, in their order, several cases at a time: with the GPU held back the
    peak of one does not depend on what the others do."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            _PROCESSES, get_context("spawn"), initializer=_keep_kernels, initargs=(folder,)
        ) as pool,
    ):
        yield from pool.map(rows_of, range(len(CASES)))


def _keep_kernels(folder: str) -> None:
    """In a place of this process's own: MLX reads there what another one is still writing."""
    own = Path(folder, str(os.getpid()))
    own.mkdir()
    os.environ["MLX_PTX_CACHE_DIR"] = str(own)


def main() -> int:
    """Measures every case; 1 where one is off by more than a tenth."""
    args = parser_of(__doc__).parse_args()
    result = Result(
        place(args, "plan"),
        title="What `mlx-flash plan` predicts, and what MLX measures",
        command=f"python benchmarks/plan.py {args.machine}",
        definitions=DEFINITIONS,
    )
    in_turns = map(rows_of, range(len(CASES)))
    for rows in in_processes() if mx.cuda.is_available() else in_turns:
        for row in rows:
            result.add(row)
            print(line_of(row), flush=True)
    print(f"written: {result.path}")
    ratios = [row["ratio"] for row in result.rows if row["ratio"]]
    return int(any(abs(ratio - 1) > _LARGEST_ERROR for ratio in ratios))


def line_of(row: dict[str, Any]) -> str:
    """A row, to be read while the others are measured."""
    seen = row["refused"]
    if row["ratio"]:
        seen = f"measured {row['measured_mib']}, {row['ratio']}"
    if row["not_held_mib"]:
        seen += f", not held {row['not_held_mib']}, at least {row['least_mib']}"
    return (
        f"{row['model']:24} {row['attention']:5}  predicted {row['predicted_mib']:6.1f} MiB, {seen}"
        f"  ({row['seconds']} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
