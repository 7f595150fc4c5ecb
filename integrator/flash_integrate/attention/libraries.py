"""Packages of models for MLX, and what is known of their attention."""

from __future__ import annotations

import re
from enum import IntEnum

from flash_integrate.attention.evidence import Kind

FUSED = "mx.fast.scaled_dot_product_attention"
# A word of the package's name: `mlxtend` and the driver `mlx90614` have nothing to do with MLX.
_MLX = re.compile(r"(^|_)mlx(_|$)")
_NAMED_OTHERWISE = {"mflux", "fastmlx", "mlxim", "diffusionkit"}
# MLX packages that hold no model.
_NO_MODELS = {
    "mlx", "mlx_cluster", "mlx_cuda", "mlx_data", "mlx_flash_runtime", "mlx_graphs", "mlx_metal",
    "mlx_optimizers",
}  # fmt: skip
# Modules of such packages, and what they define, that run no model: whatever stands in them.
_HELPERS = {
    "audio_io", "cache", "callbacks", "client_utils", "completions",
    "compute_bits_per_weight", "config", "convert", "convert_to_gguf", "create_model_card",
    "datasets", "defaults", "dequantize_model", "download", "dsp", "exceptions",
    "fetch_from_hub", "fuse", "generation_stream", "hf_repo_to_path", "linear_to_lora_layers",
    "make_shards", "manage", "process_image", "prompt_utils", "quantize", "quantize_model",
    "resample_audio", "rope_utils", "sample_utils", "save", "save_config", "save_gguf",
    "save_model", "save_weights", "schedulers", "switch_layers", "tokenizer",
    "tokenizer_utils", "tool_parsers", "upload", "upload_to_hub", "__version__", "version",
    "writers",
}  # fmt: skip
# Architectures of such packages that have none.
_WITHOUT_ATTENTION = {"gated_delta", "mamba", "mamba2", "rwkv7", "ssm"}
# A word of the name of a function or class that runs a model, or that loads one.
_RUNNING = {
    "agent", "attention", "benchmark", "chat", "embed", "eval", "evaluate", "gen", "generate",
    "generator", "infer", "inference", "loss", "main", "predict", "rerank", "run", "serve",
    "server", "stream", "train", "trainer", "transcribe", "transcription", "translate",
}  # fmt: skip
_LOADING = re.compile(r"load|load_(\w+_)?models?|from_(?!dict|conf)\w+|get_model")
# A word that says of a name that it is of something else: `generate_readme`, `TrainingArgs`,
# `create_attention_mask`, `LoRALinear`.
_OTHERWISE = {
    "adapters", "args", "arguments", "builder", "cache", "call", "callback", "card", "config",
    "content", "data", "dataset", "definition", "detokenizer", "dict", "entry", "error",
    "exception", "handler", "index", "item", "iterator", "key", "linear", "loader", "logger",
    "machine", "manager", "mapping", "mask", "metadata", "mlp", "norm", "output", "parser", "path",
    "pool", "processor", "reader", "readme", "registry", "report", "request", "resolution",
    "response", "result", "sampler", "schedule", "scheduler", "spec", "spectrogram", "state",
    "stats", "template", "tok", "tokenizer", "util", "utils", "warning", "wrapper", "writer",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# `Model`, `Flux1`, `CSM`; a constant is longer, or has more words.
_CLASS = re.compile(r"[A-Z]\w*[a-z]\w*|[A-Z][A-Z0-9]{1,4}")
# Read at the commits of fixtures/corpus.json: the module in which a package's models call MLX's
# function, or several do.
_CALLS_FUSED = {
    "diffusionkit": "diffusionkit.mlx.mmdit",
    "f5_tts_mlx": "f5_tts_mlx.dit",
    "mflux": "mflux.models",
    "mlx_audio": "mlx_audio.*.models",
    "mlx_embeddings": "mlx_embeddings.models",
    "mlx_llm": "mlx_llm.model.transformer",
    "mlx_lm": "mlx_lm.models.base",
    "mlx_transformers": "mlx_transformers.models",
    "mlx_vlm": "mlx_vlm.models.base",
    "moshi_mlx": "moshi_mlx.modules.transformer",
    "parakeet_mlx": "parakeet_mlx.attention",
}
# As above: all of the package's attention is products and a softmax.
_BY_HAND = {
    "lightning_whisper_mlx": "lightning_whisper_mlx.whisper",
    "mlx_clip": "mlx_clip.model",
    "mlx_whisper": "mlx_whisper.whisper",
    "mlxim": "mlxim.model",
}


def holds_models(module: str) -> bool:
    """Whether a module belongs to a package of MLX models (mlx_lm, mlx_vlm, mlx_whisper, ...)."""
    package = module.partition(".")[0]
    return package in _NAMED_OTHERWISE or (bool(_MLX.search(package)) and package not in _NO_MODELS)


class Use(IntEnum):
    """What a script does with a name of a package of models, what is nearest to attention
    first."""

    RUNS = 0
    """It has a model run: generates, trains, evaluates."""
    LOADS = 1
    """It loads a model, and runs it somehow."""
    MODEL = 2
    """It takes a class, which may be a model's."""
    UNKNOWN = 3
    """It takes something else from a package that was not read, or a module as a whole."""
    MENTIONED = 4
    """It names something for a type, or to see whether it is there."""


def use_of(name: str) -> Use | None:
    """The use of a dotted name of a package of models. None for what leads to no attention: a
    schedule, a tokenizer, a cache, conversion, whatever neither runs nor loads a model."""
    package, *parts = name.split(".")
    if not parts or not (_HELPERS | _WITHOUT_ATTENTION).isdisjoint(parts):
        return None
    last = parts[-1]
    owner = parts[-2] if len(parts) > 1 and _CLASS.fullmatch(parts[-2]) else ""
    if owner and is_of_something_else(owner):
        return None
    if _LOADING.fullmatch(last):
        return Use.LOADS
    if last.startswith("__"):  # `Model.__call__`
        last = owner
    if is_of_something_else(last):
        return None
    if says_that_it_runs(last) or says_that_it_runs(owner):
        return Use.RUNS
    if owner or _CLASS.fullmatch(last):
        return Use.MODEL
    was_read = package in _CALLS_FUSED or package in _BY_HAND
    return None if was_read or last.isupper() else Use.UNKNOWN


def is_of_something_else(name: str) -> bool:
    """Whether a word of a name says that it stands for no model, and for nothing that runs one."""
    return not _OTHERWISE.isdisjoint(_words(name))


def says_that_it_runs(name: str) -> bool:
    """Whether a name says that it has a model run."""
    return not _RUNNING.isdisjoint(_words(name)) and not is_of_something_else(name)


def _words(name: str) -> list[str]:
    """The words of a name in lower case; of a class the last one, which says what it is."""
    words = [word.lower() for word in _WORD.findall(name)]
    return words[-1:] if _CLASS.fullmatch(name) else words


def use_of_module(module: str) -> Use | None:
    """The use of a module of such a package of which it isn't known what is taken."""
    return Use.UNKNOWN if _HELPERS.isdisjoint(module.split(".")) else None


def attention_of(name: str) -> tuple[tuple[str, ...], Kind]:
    """What follows a name of a package of models in a chain, as far as it is known."""
    package = name.partition(".")[0]
    if package in _BY_HAND:
        return (name, f"attention written by hand in {_BY_HAND[package]}"), Kind.BY_HAND
    if package in _CALLS_FUSED:
        return (name, _CALLS_FUSED[package], FUSED), Kind.LIBRARY
    return (name, "models for MLX, which were not read"), Kind.LIBRARY


def by_hand_in(package: str) -> str | None:
    """The module of a package in which its attention is written by hand, if all of it is."""
    return _BY_HAND.get(package)
