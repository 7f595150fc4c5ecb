"""Public models with attention written by hand: how a small one of each is built and run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Inputs = tuple[mx.array, ...]


@dataclass(frozen=True)
class Case:
    """A model of a repo. `build` makes it of its module, with a factor of its size; `inputs` are
    made for a batch and a length, and `lengths` those that are timed."""

    name: str
    repo: str
    root: str
    module: str
    build: Callable[[Any, int], nn.Module]
    inputs: Callable[[int, int], Inputs]
    run: Callable[[Any, Inputs], Any]
    lengths: tuple[int, ...] = (256, 1024, 4096)


_size, _length = 1, 16


def use_sizes(size: int, length: int) -> None:
    """Sets the factor of a model's size, and the length, for what is built and made next."""
    global _size, _length
    _size, _length = size, length


def text_config(size: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": 2,
        "hidden_size": 64 * size,
        "intermediate_size": 128 * size,
        "num_attention_heads": size,
        "layer_norm_eps": 1e-5,
    }


def tokens(batch: int, length: int) -> Inputs:
    return (mx.random.randint(0, 100, (batch, length)),)


def image(patch: int, per_batch: int = 1) -> Callable[[int, int], Inputs]:
    """Images of about so many patches, with the channels last."""

    def made(batch: int, length: int) -> Inputs:
        side = patch * max(2, math.isqrt(length))
        return (mx.random.normal((batch * per_batch, side, side, 3)),)

    return made


def t5(module: Any, size: int) -> nn.Module:
    config = {
        "vocab_size": 128, "d_model": 64 * size, "d_kv": 64, "d_ff": 128 * size, "num_layers": 2,
        "num_heads": size, "relative_attention_num_buckets": 32, "layer_norm_epsilon": 1e-6,
        "relative_attention_max_distance": 128, "feed_forward_proj": "relu",
        "tie_word_embeddings": True, "decoder_start_token_id": 0,
    }  # fmt: skip
    return module.T5(SimpleNamespace(**config))  # type: ignore[no-any-return]


def clip_vision(module: Any, size: int) -> nn.Module:
    config = module.CLIPVisionConfig(
        **text_config(size), num_channels=3, image_size=image_size(), patch_size=4
    )
    return module.ClipVisionModel(config)  # type: ignore[no-any-return]


def llava(module: Any, size: int) -> nn.Module:
    config = module.VisionConfig(
        "clip_vision_model", **text_config(size), image_size=image_size(), patch_size=4
    )
    return module.VisionModel(config)  # type: ignore[no-any-return]


def image_size() -> int:
    return 4 * max(2, math.isqrt(_length))


def clip_text(module: Any, size: int) -> nn.Module:
    config = module.CLIPTextConfig(
        **text_config(size), max_position_embeddings=4096, vocab_size=128
    )
    return module.ClipTextModel(config)  # type: ignore[no-any-return]


def kwt(module: Any, size: int) -> nn.Module:
    side = max(2, math.isqrt(_length))
    dim = 64 * size
    return module.KWT((4 * side, 4 * side), (4, 4), 10, dim, 2, size, 2 * dim)  # type: ignore[no-any-return]


def sound(batch: int, length: int) -> Inputs:
    side = 4 * max(2, math.isqrt(length))
    return (mx.random.normal((batch, side, side, 1)),)


def autoencoder(module: Any, size: int) -> nn.Module:
    config = SimpleNamespace(
        in_channels=3, out_channels=3, latent_channels_out=8, latent_channels_in=4,
        block_out_channels=(32, 64 * size), layers_per_block=1, norm_num_groups=8,
        scaling_factor=0.18,
    )  # fmt: skip
    return module.Autoencoder(config)  # type: ignore[no-any-return]


def pictures(batch: int, length: int) -> Inputs:
    side = 2 * max(4, math.isqrt(length))
    return (mx.random.normal((batch, side, side, 3)),)


def two_way(module: Any, size: int) -> nn.Module:
    return module.TwoWayTransformer(2, 128 * size, size, 128 * size)  # type: ignore[no-any-return]


def masked_image(batch: int, length: int) -> Inputs:
    side = max(4, math.isqrt(length))
    width = 128 * _size
    shape = (side, side, width)
    points = mx.random.normal((batch, 8, width))
    return mx.random.normal((batch, *shape)), mx.random.normal((1, *shape)), points


def umt5(module: Any, size: int) -> nn.Module:
    config = SimpleNamespace(
        vocab_size=128, d_model=64 * size, d_kv=64, d_ff=128 * size, num_layers=2, num_heads=size,
        relative_attention_num_buckets=32, relative_attention_max_distance=128,
        dropout_rate=0.0, layer_norm_epsilon=1e-6, is_gated_act=True, dense_act_fn="gelu_new",
    )  # fmt: skip
    return module.UMT5Encoder(config)  # type: ignore[no-any-return]


def padded(batch: int, length: int) -> Inputs:
    seen = mx.arange(length)[None] < mx.array([[length - length // 4]] * batch)
    return (*tokens(batch, length), seen.astype(mx.float32))


def detokenizer(module: Any, size: int) -> nn.Module:
    config = module.DetokenizerConfig(
        hidden_size=64 * size, num_hidden_layers=2, num_attention_heads=2 * size,
        num_key_value_heads=size, layer_types=("conv", "sliding_attention"),
        intermediate_size=128 * size,
    )  # fmt: skip
    return module.LFMDetokenizerModel(config)  # type: ignore[no-any-return]


def features(batch: int, length: int) -> Inputs:
    return (mx.random.normal((batch, length, 64 * _size)),)


def windowed(batch: int, length: int) -> Inputs:
    behind = mx.arange(length)[:, None] - mx.arange(length)[None]
    hidden = mx.logical_or(behind < 0, behind > 30)
    return (*features(batch, length), mx.where(hidden, -1e9, 0.0)[None, None])


def acoustic(module: Any, size: int) -> nn.Module:
    args = module.AcousticTransformerArgs(
        dim=64 * size, input_dim=64 * size, n_layers=2, head_dim=64, hidden_dim=128 * size,
        n_heads=size, n_kv_heads=max(1, size // 2), semantic_codebook_size=128,
        n_acoustic_codebook=4,
    )  # fmt: skip
    return module.FlowMatchingAudioTransformer(args)  # type: ignore[no-any-return]


def encoder(module: Any, size: int) -> nn.Module:
    return module.TransformerEncoder(64 * size, size, 128 * size, 2)  # type: ignore[no-any-return]


def call(model: Any, inputs: Inputs) -> Any:
    return model(*inputs)


EXAMPLES, AUDIO = "mlx-examples", "mlx-audio"
CASES = (
    Case("T5", EXAMPLES, "t5", "t5", t5, lambda b, n: tokens(b, n) * 2, call),
    Case("CLIP, text", EXAMPLES, "clip", "model", clip_text, tokens,
         lambda model, inputs: model(*inputs).last_hidden_state),
    Case("CLIP, vision", EXAMPLES, "clip", "model", clip_vision, image(4),
         lambda model, inputs: model(*inputs).last_hidden_state),
    Case("LLaVA, vision", EXAMPLES, "llava", "vision", llava, image(4),
         lambda model, inputs: model(*inputs)[1]),
    Case("Stable Diffusion, autoencoder", EXAMPLES, "stable_diffusion", "stable_diffusion.vae",
         autoencoder, pictures, lambda model, inputs: model.decode(model.encode(*inputs)[0])),
    Case("Keyword transformer", EXAMPLES, "speechcommands", "kwt", kwt, sound, call),
    Case("Segment Anything, two-way", EXAMPLES, "segment_anything",
         "segment_anything.transformer", two_way, masked_image,
         lambda model, inputs: model(*inputs)[1]),
    Case("UMT5, padded", AUDIO, "mlx_audio/tts/models/longcat_audiodit", "text_encoder", umt5,
         padded, lambda model, inputs: model(*inputs)[0]),
    Case("LFM2 detokenizer, window", AUDIO, "mlx_audio/sts/models/lfm_audio", "detokenizer",
         detokenizer, windowed, call),
    Case("Voxtral, acoustic", AUDIO, "mlx_audio/tts/models/voxtral_tts", "acoustic_head",
         acoustic, features, lambda model, inputs: model._run_transformer(*inputs)),
    Case("Mega-ASR, encoder", AUDIO, "mlx_audio/stt/models/mega_asr", "router", encoder,
         features, call),
)  # fmt: skip
