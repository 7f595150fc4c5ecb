"""Models for measuring: a folder of the user's, or random weights in a usual shape, made on the
spot.

What attention costs does not depend on the weights, so that nothing needs to be downloaded. Needs
mlx-lm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from .problems import DTYPES

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 512,
        "sliding_window": 64,
    },
    "1b": {  # that of Llama 3.2 1B: 1.24 billion parameters
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "sliding_window": 1024,
    },
}
_GEMMA: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 512,
        "sliding_window": 64,
        "sliding_window_pattern": 2,
    },
    # mlx-lm's own defaults are Gemma 3 1B's: head dim 256, a window of 512 in five layers of six.
    "1b": {},
}

SIZES = tuple(_SIZES)
SHAPES = ("llama", "window", "gemma")


class NotAModel(Exception):
    """A folder that mlx-lm cannot load; the message names it and says why."""


@dataclass(frozen=True)
class Model:
    """A model, its name in tables and what its configuration says of its attention."""

    name: str
    module: Any  # nn.Module, which MLX's stubs do not export
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    quantized: bool

    @property
    def dtype(self) -> str:
        """That of its activations: of its floating parameters, which where it is quantized are
        norms and scales."""
        parameters: Any = tree_flatten(self.module.parameters())
        arrays = (array for _, array in parameters)
        dtype = next(array.dtype for array in arrays if mx.issubdtype(array.dtype, mx.floating))
        return str(dtype).removeprefix("mlx.core.")


def config_of(size: str, shape: str) -> dict[str, Any]:
    """The configuration of a made-up model. Of size `tiny` or `1b`; of shape `llama`, `window`
    (the same with a sliding window in three layers of four) or `gemma` (head dim 256, sliding
    windows)."""
    if shape == "gemma":
        return {"model_type": "gemma3_text", **_GEMMA[size]}
    config = {**_LLAMA, **_SIZES[size]}
    if shape == "window":
        kinds = ["sliding_attention"] * 3 + ["full_attention"]
        config["layer_types"] = kinds * (config["num_hidden_layers"] // 4)
    else:
        del config["sliding_window"]
    return config


def make(size: str, shape: str, dtype: str | None = None) -> Model:
    """A model with random weights; `dtype` is bfloat16 unless given, float32 for the tiny ones."""
    config = config_of(size, shape)
    architecture = import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(0)
    arguments = architecture.ModelArgs.from_dict(config)
    module = architecture.Model(arguments)
    module.set_dtype(getattr(mx, dtype or ("float32" if size == "tiny" else "bfloat16")))
    mx.eval(module.parameters())
    return _described(f"{shape}-{size}", module, vars(arguments))


def load(folder: Path, dtype: str | None = None) -> Model:
    """The model in a folder; `dtype` is its own unless given. Raises NotAModel."""
    from mlx_lm.utils import load_model

    config_in(folder)
    try:
        module, config = load_model(folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise NotAModel(f"{folder} cannot be loaded: {error}") from error
    if dtype is not None:
        module.set_dtype(getattr(mx, dtype))
    return _described(folder.resolve().name, module, config)


def by_config(folder: Path, dtype: str | None = None) -> Any:
    """The model that a folder's config.json describes, without its weights: nothing is loaded, and
    nothing computed before the first `mx.eval`. `dtype` is that of the configuration unless given.
    Raises NotAModel."""
    from mlx_lm.utils import MODEL_REMAPPING

    config = config_in(folder)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise NotAModel(f"{folder / 'config.json'} describes no model: it has no model_type")
    try:
        architecture = import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")
    except ModuleNotFoundError:
        raise NotAModel(
            f"{folder} is a model of type {kind}, which the installed mlx-lm does not have"
        ) from None
    try:
        module = architecture.Model(architecture.ModelArgs.from_dict(config))
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise NotAModel(
            f"{folder / 'config.json'} does not describe a {kind} model: {error}"
        ) from error
    module.set_dtype(getattr(mx, dtype or _dtype_in(config)))
    return module


def _dtype_in(config: dict[str, Any]) -> str:
    """The type that a configuration names, or its part for text; bfloat16 where it names none."""
    for part in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if part.get(key) in DTYPES:
                return str(part[key])
    return "bfloat16"


def config_in(folder: Path) -> dict[str, Any]:
    """What the config.json of a folder says. Raises NotAModel."""
    path = folder / "config.json"
    if not folder.is_dir():
        advice = (
            f"; download it first: hf download {folder} --local-dir {folder.name}"
            if _is_hub_name(folder)
            else ""
        )
        raise NotAModel(f"{folder}: no such folder{advice}")
    if not path.is_file():
        raise NotAModel(f"{folder} is no model: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise NotAModel(f"{path}:{error.lineno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise NotAModel(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise NotAModel(f"{path} describes no model: it is not a JSON object")
    return config


def _is_hub_name(folder: Path) -> bool:
    """Whether it may be the name of a model on the Hugging Face hub, as `mlx-community/X`."""
    return (
        not folder.is_absolute() and len(folder.parts) == 2 and not Path(folder.parts[0]).exists()
    )


def _described(name: str, module: Any, config: dict[str, Any]) -> Model:
    config = {**config, **config.get("text_config", {})}
    try:
        heads = config["num_attention_heads"]
        return Model(
            name,
            module,
            len(module.layers),
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["vocab_size"],
            "quantization" in config,
        )
    except KeyError as error:
        raise NotAModel(f"{name}: its config.json does not say {error}") from error
