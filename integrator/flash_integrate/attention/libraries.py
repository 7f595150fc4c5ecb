"""Packages of models for MLX, and what is known of their attention."""

from __future__ import annotations

import re

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
# What a package of models offers besides running them, by the name of a module or of what it
# defines.
_RUNS_NOTHING = {
    "convert", "quantize", "quantize_model", "dequantize_model", "save", "save_config",
    "save_model", "save_weights", "save_gguf", "convert_to_gguf", "upload_to_hub",
    "create_model_card", "get_model_path", "fetch_from_hub", "hf_repo_to_path", "load_config",
    "load_tokenizer", "TokenizerWrapper", "compute_bits_per_weight", "get_total_parameters",
    "__version__", "version", "load_audio", "load_dataset", "download", "tokenizer_utils",
    "audio_io", "cache", "callbacks", "client_utils", "config", "datasets", "dsp",
    "linear_to_lora_layers", "load_image", "LoRALinear", "make_shards", "process_image",
    "prompt_utils", "resample_audio", "sample_utils", "tool_parsers", "apply_chat_template",
}  # fmt: skip
# Constants and settings.
_HOLDS_VALUES = re.compile(r"DEFAULT_\w+|\w+(Args|Config)|print_\w+")
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


def runs_models(name: str) -> bool:
    """Whether a dotted name of a package of models is of a part that runs them."""
    parts = name.split(".")[1:]
    return _RUNS_NOTHING.isdisjoint(parts) and not any(map(_HOLDS_VALUES.fullmatch, parts))


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
