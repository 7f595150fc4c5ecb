"""For `families.py`, the attention of mlx-vlm's families while they read a prompt with an image."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
from mlx.utils import tree_map

from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.rehearsal import LayerCalls, rehearse
from vision_families import FAMILIES, larger, make, prompt

# So many times as many patches along each side as in the tests, which makes 4,096; by the family,
# or by what its images come with.
_FACTOR = {"gemma3n": 1, "image_grid_thw": 8}
_USUAL_FACTOR = 16
INTRODUCTION = """\
## With an image (mlx-vlm)

While a prompt is read, with an image of 4,096 patches in it (Gemma 3n: of 768 by 768 pixels, as it
takes no other): a row is a part of a model, its vision tower or its language model, and a cell says
which routes its attention layers take. Decoding is as in the tables above. Qwen3-VL's tower has
heads of 72, which mlx-vlm pads to 80.

Attention that a model has written out is not in the table: of the towers here, those for sound of
Gemma 3n (softcapped scores over blocks, with relative positions) and of Phi-4 multimodal (a bias
by position, with a mask of chunks).
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
    "idefics2": Published("Idefics2 8B", (32, 8, 128), (16, 72)),
    "idefics3": Published("Idefics3 8B", (32, 8, 128), (16, 72)),
    "llava": Published("LLaVA 1.5 7B", (32, 32, 128), (16, 64)),
    "llava_next": Published("LLaVA-NeXT Mistral 7B", (32, 8, 128), (16, 64)),
    "mistral3": Published("Mistral Small 3.1", (32, 8, 128), (16, 64)),
    "paligemma": Published("PaliGemma 3B", (8, 1, 256), (16, 72)),
    "paligemma: gemma2": Published("PaliGemma 2 3B", (8, 4, 256), (16, 72)),
    "phi4mm": Published("Phi-4 multimodal", (24, 8, 128), (16, 72)),
    "pixtral": Published("Pixtral 12B", (32, 8, 128), (16, 64)),
    "qwen2_5_vl": Published("Qwen2.5-VL 7B", (28, 4, 128), (16, 80)),
    "qwen2_vl": Published("Qwen2-VL 7B", (28, 4, 128), (16, 80)),
    "qwen3_vl": Published("Qwen3-VL 8B", (32, 8, 128), (16, 72)),
    "smolvlm": Published("SmolVLM2 2.2B", (32, 32, 64), (16, 72)),
}


def section(devices: dict[str, Device]) -> str:
    """The table, with the reasons below it."""
    reasons: dict[str, int] = {}
    lines = []
    for family in _PUBLISHED:
        lines += _rows(family, devices, reasons)
    columns = ["family", "like", "part", "heads", "head dim", *devices]
    return "\n".join(
        [
            INTRODUCTION,
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
            *lines,
            "",
            *(f"{number}. {reason}" for reason, number in reasons.items()),
            "",
        ]
    )


def _rows(family: str, devices: dict[str, Device], reasons: dict[str, int]) -> list[str]:
    by_part: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(dict)
    for name, device in devices.items():
        for call in _calls(family, device):
            problem, (route, reason) = call.problem, call.decision
            heads, keys, dim = problem.query_heads, problem.key_heads, problem.head_dim
            shape = f"{heads}" if heads == keys else f"{heads}/{keys}"
            part = "language" if "language_model" in call.layers[0][0] else "vision"
            cell = f"{route} [{reasons.setdefault(reason, len(reasons) + 1)}]"
            cells = by_part[part, shape, str(dim)].setdefault(name, [])
            if cell not in cells:
                cells.append(cell)
    model = _PUBLISHED[family].model
    return [
        f"| {' | '.join([family, model, *part, *(', '.join(cells[name]) for name in devices)])} |"
        for part, cells in by_part.items()
    ]


def _calls(family: str, device: Device) -> list[LayerCalls]:
    names = (family, *FAMILIES[family].inputs)
    factor = next((_FACTOR[name] for name in names if name in _FACTOR), _USUAL_FACTOR)
    model, arguments = _model(family, factor), prompt(family, factor)
    weights = model.parameters()

    def read(tokens: mx.array) -> mx.array:
        if family == "qwen3_vl":
            # mlx-vlm compiles its tower's attention, which would be traced for the first device
            # alone: weights that the rehearsal traces have it traced in each.
            nothing = tokens.flatten()[0]
            model.update(tree_map(lambda weight: weight + nothing.astype(weight.dtype), weights))
        return model(**arguments)

    # Qwen3-VL has what its tower saw computed before it goes on, to have less of it in memory.
    with patch.object(mx, "eval"):
        [calls] = rehearse([read], (1, 1), device, Settings(enabled=True))
    return calls


def _model(family: str, factor: int) -> Any:
    (heads, key_heads, dim), (vision_heads, vision_dim) = _PUBLISHED[family][1:]
    text = {
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": dim,
        "hidden_size": heads * dim,
        "query_pre_attn_scalar": dim,
    }
    if FAMILIES[family].text["rope_scaling"]:
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
    if family == "qwen2_vl":  # its hidden size is what comes out of the tower
        vision["hidden_size"] = heads * dim
    model = make(family, text, vision)
    if family != "llava_next":  # which hands an array to numpy, where there is no bfloat16
        model.set_dtype(mx.bfloat16)
    return model
