"""What `mlx-flash plan` predicts against what MLX measures.

    python benchmarks/plan.py MACHINE [--json FILE]

Small models, on a GPU four times as wide and as long and in bfloat16, each with stock attention and
with the runtime: the peak of a prompt and its first token as mlx-lm generates it, with plain,
quantized and bounded caches, and of a step of mlx-lm's trainer. Writes
benchmarks/results/plan_MACHINE.json; exits with 1 where a prediction is off by more than a tenth.
A case that MLX refuses is noted as such.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
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
    "rest of the step. Refused: why MLX does not run the case here.",
)


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
    Case("qwen3, last 512 tokens", _QWEN3, 1536, Generation(None, 512, 512)),
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


def measured(case: Case, with_runtime: bool) -> int:
    """Bytes at the peak, as MLX counts them."""
    module = module_of(case)
    mx.eval(module.parameters())
    if with_runtime:
        enable_flash_attention()
    try:
        if case.train:
            model = Model("", module, 0, 0, 0, 0, case.config["vocab_size"], False)
            work = prepare(model, "lora", Sizes(case.length, _ROWS, 0))()
            work()  # the first one compiles
            mx.clear_cache()
            mx.reset_peak_memory()
            work()
        else:
            prefill(module, case)  # the first one compiles, and cuDNN plans, while memory is freed
            mx.clear_cache()
            mx.reset_peak_memory()
            prefill(module, case)
        mx.synchronize()
        return mx.get_peak_memory()
    finally:
        disable_flash_attention()


def prefill(module: Any, case: Case) -> None:
    """A prompt of the case's length, and the first token after it."""
    tokens = mx.zeros(case.length + 1, mx.int32)
    mx.eval(tokens)
    how = case.how
    for _ in generate_step(
        tokens,
        module,
        max_tokens=1,
        kv_bits=how.kv_bits,
        quantized_kv_start=0,
        max_kv_size=how.max_kv_size,
        prefill_step_size=how.prefill_step_size,
    ):
        pass
    mx.synchronize()


def row_of(case: Case, with_runtime: bool) -> dict[str, Any]:
    """Both numbers, and how far apart they are."""
    need = predicted(case, with_runtime)
    gc.collect()
    peak, refused = None, "-"
    try:
        peak = measured(case, with_runtime)
    except RuntimeError as error:
        refused = "out of memory" if is_out_of_memory(error) else str(error).partition(":")[0]
    gc.collect()
    mx.clear_cache()
    return {
        "model": case.name,
        "attention": "ours" if with_runtime else "stock",
        "length": case.length,
        "predicted_mib": mebibytes(need.total),
        "measured_mib": None if peak is None else mebibytes(peak),
        "weights_mib": mebibytes(need.weights),
        "cache_mib": mebibytes(need.cache),
        "rest_mib": mebibytes(need.rest),
        "ratio": None if peak is None else round(need.total / peak, 3),
        "refused": refused,
    }


def mebibytes(size: int) -> float:
    """Bytes in MiB, to a tenth."""
    return round(size / 2**20, 1)


def main() -> int:
    """Measures every case; 1 where one is off by more than a tenth."""
    args = parser_of(__doc__).parse_args()
    result = Result(
        place(args, "plan"),
        title="What `mlx-flash plan` predicts, and what MLX measures",
        command=f"python benchmarks/plan.py {args.machine}",
        definitions=DEFINITIONS,
    )
    on_a_gpu = current_device().backend != "cpu"
    for case in map(larger, CASES) if on_a_gpu else CASES:
        for with_runtime in (False, True):
            row = row_of(case, with_runtime)
            result.add(row)
            seen = f"measured {row['measured_mib']}, {row['ratio']}"
            print(
                f"{row['model']:24} {row['attention']:5}  predicted {row['predicted_mib']:6.1f}"
                f" MiB, {seen if row['ratio'] else row['refused']}",
                flush=True,
            )
    print(f"written: {result.path}")
    ratios = [row["ratio"] for row in result.rows if row["ratio"]]
    return int(any(abs(ratio - 1) > _LARGEST_ERROR for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
