"""What a model's folder says of its weights, without reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.nn

from ..bench import models

nn: Any = mlx.nn  # whose stubs do not export all of it
_LONGEST = 2**20  # of models that do not say


def model_of(folder: Path) -> Any:
    """The model that a folder describes, quantized as it says, with none of its weights. Raises
    models.NotAModel."""
    module = models.by_config(folder)
    config = models.config_in(folder)
    quantization = config.get("quantization")
    if isinstance(quantization, dict):
        _quantize(folder, module, quantization)
    return module


def longest_of(folder: Path) -> int:
    """Tokens of the longest text that the model is made for, as its configuration says."""
    config = models.config_in(folder)
    for part in (config, config.get("text_config") or {}):
        length = part.get("max_position_embeddings")
        if isinstance(length, int) and length > 0:
            return length
    return _LONGEST


def _quantize(folder: Path, module: Any, quantization: dict[str, Any]) -> None:
    """As mlx-lm's `load_model` does it: the layers that have scales in the files, by their names;
    where there are no files, all that can be, but those that the configuration leaves out."""
    names = _names(folder)

    def how(path: str, layer: Any) -> Any:
        if path in quantization:
            return quantization[path]
        if not hasattr(layer, "to_quantized"):
            return False
        return names is None or f"{path}.scales" in names

    try:
        nn.quantize(
            module,
            group_size=quantization["group_size"],
            bits=quantization["bits"],
            mode=quantization.get("mode", "affine"),
            class_predicate=how,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise models.NotAModel(
            f"{folder / 'config.json'} does not say how the model is quantized: {error}"
        ) from error


def _names(folder: Path) -> set[str] | None:
    """The names of the weights: in the index of the files, or the head of each; None without
    files."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        files = sorted(folder.glob("model*.safetensors"))
        return {name for file in files for name in _head_of(file)} if files else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise models.NotAModel(f"{folder}: its weights cannot be listed: {error}") from error


def _head_of(file: Path) -> dict[str, Any]:
    """The table at the start of a .safetensors file: its length in 8 bytes, then JSON."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= file.stat().st_size - 8:
            raise ValueError(f"{file.name} is no safetensors file")
        head: dict[str, Any] = json.loads(opened.read(length))
    return head
