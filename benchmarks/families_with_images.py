"""For `families.py`, the attention of mlx-vlm's families while they read a prompt with an image."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
from mlx.utils import tree_map
from numbered_reasons import NumberedReasons

from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.rehearsal import LayerCalls, rehearse
from vision_configurations import FAMILIES
from vision_families import larger, make, prompt, read

# So many times as many patches along each side as in the tests, which makes 4,096; by the family,
# or by what its images come with.
_FACTOR = {"gemma3n": 1, "image_grid_thw": 8}
_USUAL_FACTOR = 16
_WINDOWS = {"aya_vision": 4096, "gemma3": 1024, "gemma3n": 512, "gemma4": 512}
# mlx-vlm compiles the attention of these towers.
_COMPILED = {"gemma4", "qwen3_5", "qwen3_vl"}
WORDS = 4096
INTRODUCTION = """\
## With an image (mlx-vlm)

While a prompt of 4,096 words is read, with an image of 4,096 patches in it (Gemma 3n: of 768 by 768
pixels, as it takes no other): a row is a part of a model, its vision tower or its language model,
and a cell says which routes its attention layers take. Decoding is as in the tables above. Some
towers have heads of 72 that mlx-vlm pads to 80.

Attention that a model has written out is not in the table: in PaliGemma 2's language model
(softcapped scores), and in the towers for sound of Gemma 3n (softcapped scores over blocks, with
relative positions) and of Phi-4 multimodal (a bias by position, with a mask of chunks).
"""


class Published(NamedTuple):
    """A model's name, and the heads of its language model (queries, keys, head dim) and of its
    vision tower (number, head dim)."""

    model: str
    text: tuple[int, int, int]
    vision: tuple[int, int]


_PUBLISHED = {
    "aya_vision": Published("Aya Vision 8B", (32, 8, 128), (16, 72)),
    "gemma3": Published("Gemma 3 4B", (8, 4, 256), (16, 72)),
    # The heads of its tower are in mlx-vlm's source: these make its width.
    "gemma3n": Published("Gemma 3n E4B", (8, 2, 256), (16, 128)),
    "gemma4": Published("mlx-vlm's defaults", (8, 1, 256), (12, 64)),
    "glm4v": Published("GLM-4.1V 9B", (32, 2, 128), (12, 128)),
    "idefics2": Published("Idefics2 8B", (32, 8, 128), (16, 72)),
    "idefics3": Published("Idefics3 8B", (32, 8, 128), (16, 72)),
    "internvl_chat": Published("InternVL3 8B", (28, 4, 128), (16, 64)),
    "lfm2_vl": Published("LFM2-VL 1.6B", (32, 8, 64), (16, 72)),
    "llava": Published("LLaVA 1.5 7B", (32, 32, 128), (16, 64)),
    "llava_next": Published("LLaVA-NeXT Mistral 7B", (32, 8, 128), (16, 64)),
    "mistral3": Published("Mistral Small 3.1", (32, 8, 128), (16, 64)),
    "paligemma": Published("PaliGemma 3B", (8, 1, 256), (16, 72)),
    "paligemma: gemma2": Published("PaliGemma 2 3B", (8, 4, 256), (16, 72)),
    "phi4mm": Published("Phi-4 multimodal", (24, 8, 128), (16, 72)),
    "pixtral": Published("Pixtral 12B", (32, 8, 128), (16, 64)),
    "qwen2_5_vl": Published("Qwen2.5-VL 7B", (28, 4, 128), (16, 80)),
    "qwen2_vl": Published("Qwen2-VL 7B", (28, 4, 128), (16, 80)),
    "qwen3_5": Published("", (16, 4, 256), (16, 72)),
    "qwen3_vl": Published("Qwen3-VL 8B", (32, 8, 128), (16, 72)),
    "smolvlm": Published("SmolVLM2 2.2B", (32, 32, 64), (16, 72)),
}


def section(devices: dict[str, Device]) -> str:
    """The table, with the reasons below it."""
    reasons = NumberedReasons()
    lines = []
    for family in _PUBLISHED:
        lines += _rows(family, devices, reasons)
    columns = ["family", "like", "part", "heads", "head dim", *devices]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([INTRODUCTION, *head, *lines, "", *reasons.lines(), ""])


def _rows(family: str, devices: dict[str, Device], reasons: NumberedReasons) -> list[str]:
    """A line for each part of a model and kind of its heads."""
    by_part: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(dict)
    for name, device in devices.items():
        for call in _calls(family, device):
            problem, (route, reason) = call.problem, call.decision
            heads, keys, dim = problem.query_heads, problem.key_heads, problem.head_dim
            shape = f"{heads}" if heads == keys else f"{heads}/{keys}"
            # The language model is run by itself, what is seen is made by the model as a whole.
            is_language = call.layers[0][0].startswith(("model.layers.", "layers."))
            part = "language" if is_language else "vision"
            cell = reasons.cell(route, reason)
            cells = by_part[part, shape, str(dim)].setdefault(name, [])
            if cell not in cells:
                cells.append(cell)
    model = _PUBLISHED[family].model
    lines = []
    for start, by_device in by_part.items():
        routes = [", ".join(by_device[name]) for name in devices]
        lines.append(f"| {' | '.join([family, model, *start, *routes])} |")
    return lines


def _calls(family: str, device: Device) -> list[LayerCalls]:
    from mlx_vlm.models.cache import make_prompt_cache

    names = (family, *FAMILIES[family].inputs)
    factor = next((_FACTOR[name] for name in names if name in _FACTOR), _USUAL_FACTOR)
    model, arguments = _model(family, factor), prompt(family, factor, WORDS)
    weights = model.parameters()

    def step(tokens: mx.array) -> mx.array:
        if family in _COMPILED:
            # It would be traced for the first device alone: with weights that the rehearsal
            # traces, it is traced in each.
            nothing = tokens.flatten()[0]
            model.update(tree_map(lambda weight: weight + nothing.astype(weight.dtype), weights))
        return read(model, make_prompt_cache(model.language_model), **arguments)

    # Qwen3-VL has what its tower saw computed before it goes on, to have less of it in memory.
    with patch.object(mx, "eval"):
        [calls] = rehearse([step], (1, 1), device, Settings(enabled=True))
    return calls


def _model(family: str, factor: int) -> Any:
    (heads, key_heads, dim), (vision_heads, vision_dim) = _PUBLISHED[family][1:]
    own = FAMILIES[family]
    text: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": dim,
        "hidden_size": heads * dim,
        "query_pre_attn_scalar": dim,
        "sliding_window": _WINDOWS.get(family),
    }
    if "global_head_dim" in own.text:
        text["global_head_dim"] = 2 * dim
    if "block_dim" in own.text:
        text["block_dim"] = heads * dim
    if own.text["rope_scaling"]:
        sections = [dim // 8, 3 * dim // 16, 3 * dim // 16]
        text["rope_scaling"] = {"type": "mrope", "mrope_section": sections}
    width = vision_heads * vision_dim
    vision = {
        "num_attention_heads": vision_heads,
        "num_heads": vision_heads,
        "hidden_size": width,
        "embed_dim": width,
        **larger(family, factor),
    }
    if "global_head_dim" in own.vision:
        dims = {"head_dim": vision_dim, "global_head_dim": vision_dim}
        vision |= {"num_key_value_heads": vision_heads, **dims}
    if family == "qwen2_vl":  # its hidden size is what comes out of the tower
        vision["hidden_size"] = heads * dim
    model = make(family, text, vision)
    if family != "llava_next":  # which hands an array to numpy, where there is no bfloat16
        model.set_dtype(mx.bfloat16)
    return model
