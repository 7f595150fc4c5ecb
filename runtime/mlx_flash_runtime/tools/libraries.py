"""Where libraries of models have the functions that are patched, and whether the release that is
installed has them as they are known."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, NamedTuple

from ..patching.originals import found_in, held

State = Literal["patched", "does something else", "not there"]


class Place(NamedTuple):
    """A function of a library, by its module and its name there."""

    module: str
    function: str


# By the name of the package on PyPI.
LIBRARIES: dict[str, tuple[Place, ...]] = {
    "mlx-lm": (
        Place("mlx_lm.models.base", "create_causal_mask"),
        Place("mlx_lm.models.base", "quantized_scaled_dot_product_attention"),
        Place("mlx_lm.models.base", "scaled_dot_product_attention"),
        Place("mlx_lm.models.gemma2", "Attention.__call__"),
        Place("mlx_lm.models.gear", "_softcap_attention"),
    ),
    "mlx-vlm": (
        Place("mlx_vlm.models.cache", "create_causal_mask"),
        Place("mlx_vlm.models.base", "quantized_scaled_dot_product_attention"),
        Place("mlx_vlm.models.base", "scaled_dot_product_attention"),
    ),
    "mlx-audio": (
        Place("mlx_audio.lm.models.base", "create_causal_mask"),
        Place("mlx_audio.sts.models.moshi.modules.kv_cache", "create_additive_causal_mask"),
        Place("mlx_audio.stt.models.qwen3_asr.qwen3_asr", "create_additive_causal_mask"),
        Place("mlx_audio.tts.models.pocket_tts.transformer", "create_additive_causal_mask"),
    ),
    "mflux": (Place("mflux.models.common_models.gpt_oss.base_utils", "create_causal_mask"),),
}


def state_of(place: Place) -> State:
    """Whether the function is there and recognised; MLX is to be unpatched. Loads its module."""
    try:
        module = import_module(place.module)
    except ImportError:
        return "not there"
    for found in found_in(module):
        if found.original.path == tuple(place.function.split(".")):
            return "patched" if held(found)() else "does something else"
    return "not there"
