"""What a file is by its path alone."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_TEST_FILE = re.compile(
    r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_tests?\.py$|tests?\.py$|conftest\.py$)"
)
_TOOL_FILE = re.compile(r"(^|/)(setup|noxfile|fabfile|dodo|__init__)\.py$")
_CONVERTS = {"convert", "converter", "quantize", "dequantize", "fuse"}
# What these words are done to may be anything: `export_embeddings` runs a model, `export_gguf`
# does not.
_MOVES = {"merge", "split", "export", "upload", "download", "save"}
_WEIGHTS = {
    "weight",
    "weights",
    "model",
    "models",
    "adapter",
    "adapters",
    "lora",
    "checkpoint",
    "checkpoints",
    "hub",
}
_WEIGHTS |= {"gguf", "safetensors", "onnx", "coreml", "hf", "huggingface", "mlx", "mtp"}


def is_test(name: PurePosixPath) -> bool:
    return _TEST_FILE.search(name.as_posix()) is not None


def is_converter(name: PurePosixPath) -> bool:
    words = re.split("[_-]", name.stem)
    if "to" in words[1:-1] and words[-1] in _WEIGHTS:  # `torch_to_mlx`
        return True
    moves = not _MOVES.isdisjoint(words) and (words[-1] in _MOVES or not _WEIGHTS.isdisjoint(words))
    return moves or not _CONVERTS.isdisjoint(words)


def skip_by_name(name: PurePosixPath) -> str | None:
    """Why a file is left alone whatever it holds, told from its path."""
    if is_test(name):
        return "a test"
    if _TOOL_FILE.search(name.as_posix()):
        return "a package's __init__" if name.name == "__init__.py" else "a build or tool script"
    return None
