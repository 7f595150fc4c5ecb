"""For `families.py`, the heads of one published model of each family, or heads of a usual size
where none is named."""

from __future__ import annotations

from typing import Any, NamedTuple


class Published(NamedTuple):
    """A model's name, and its part of a configuration."""

    model: str
    overrides: dict[str, Any]


def _heads(model: str, query: int, key: int, dim: int, **more: Any) -> Published:
    own = {
        "num_attention_heads": query,
        "num_key_value_heads": key,
        "head_dim": dim,
        "hidden_size": query * dim,
    }
    return Published(model, {**own, **more})


def _latent(
    model: str,
    heads: int,
    nope: int = 128,
    rope: int = 64,
    value: int = 128,
    rank: int = 512,
    **more: Any,
) -> Published:
    own = {"num_attention_heads": heads, "num_key_value_heads": heads, "hidden_size": 2048}
    dims = {
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": value,
        "kv_lora_rank": rank,
    }
    return Published(model, {**own, **dims, **more})


def _gpt(model: str, heads: int, dim: int, **more: Any) -> Published:
    return Published(model, {"n_head": heads, "n_embd": heads * dim, **more})


_USUAL = _heads("", 32, 8, 128)
_USUAL_LATENT = _latent("", 32)
_USUAL_WINDOW = _heads("", 32, 8, 128, sliding_window=1024)

PUBLISHED = {
    **dict.fromkeys(
        ["Klear", "dbrx", "glm", "granitemoe", "llama4_text", "minimax_m3_vl", "nanbeige"], _USUAL
    ),
    **dict.fromkeys(["bailing_moe_linear", "olmo_hybrid", "solar_open", "telechat3"], _USUAL),
    **dict.fromkeys(
        ["baichuan_m1", "exaone_moe", "gear", "gear: softcap", "laguna"], _USUAL_WINDOW
    ),
    **dict.fromkeys(["mellum", "spark2_5"], _USUAL_WINDOW),
    **dict.fromkeys(
        ["bailing_hybrid", "kimi_k3", "longcat_flash_ngram", "mistral4"], _USUAL_LATENT
    ),
    "afm7": Published("", {"num_heads": 32, "num_kv_heads": 8, "hidden_dim": 4096}),
    "deepseek_v41": Published(
        "mlx-lm's defaults", {"num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64}
    ),
    "glm_moe_dsa": _latent("", 64, index_head_dim=128, index_n_heads=32, index_topk=2048),
    "iquestloopcoder": _heads("", 32, 8, 128, loop_window_size=64),
    "lille-130m": _gpt("", 12, 64, n_kv_heads=4),
    "openelm": Published(
        "", {"head_dim": 64, "num_query_heads": [12, 20], "num_kv_heads": [3, 5], "model_dim": 1280}
    ),
    "phixtral": Published("Phixtral", {"num_heads": 32, "model_dim": 2560, "rotary_dim": 32}),
    "plamo": _heads("PLaMo 13B", 40, 5, 128, n_shared_head=8),
    "qwen3_5": _heads("", 16, 4, 256),
    "qwen3_5_moe": _heads("", 16, 2, 256),
    "afmoe": _heads("Trinity Mini", 32, 4, 128, sliding_window=2048),
    "apertus": _heads("Apertus 8B", 32, 8, 128),
    "bailing_moe": _heads("Ling Lite", 16, 4, 128),
    "bailing_moe_v3": _latent("mlx-lm's defaults", 16),
    "cohere": _heads("Command R", 64, 64, 128),
    "cohere2": _heads("Command R7B", 32, 8, 128, sliding_window=4096),
    "deepseek": _heads("DeepSeek MoE 16B", 16, 16, 128),
    "deepseek_v2": _latent("DeepSeek V2 Lite", 16),
    "deepseek_v3": _latent("DeepSeek V3", 128),
    "deepseek_v32": _latent(
        "DeepSeek V3.2", 128, index_head_dim=128, index_n_heads=64, index_topk=2048
    ),
    "dots1": _heads("dots.llm1", 32, 32, 128),
    "ernie4_5": _heads("ERNIE 4.5 0.3B", 16, 2, 128),
    "ernie4_5_moe": _heads("ERNIE 4.5 21B A3B", 20, 4, 128),
    "exaone": _heads("EXAONE 3.5 2.4B", 32, 8, 80),
    "exaone4": _heads("EXAONE 4.0 32B", 40, 8, 128, sliding_window=4096),
    "falcon_h1": _heads("Falcon H1 0.5B", 8, 2, 64),
    "gemma": _heads("Gemma 2B", 8, 1, 256),
    "gemma2": _heads("Gemma 2 9B", 16, 8, 256),
    "gemma3_text": _heads("Gemma 3 4B", 8, 4, 256, sliding_window=1024),
    "gemma3n": _heads("Gemma 3n E4B", 8, 2, 256, sliding_window=512),
    "gemma4_text": _heads("mlx-lm's defaults", 8, 1, 256, sliding_window=512, global_head_dim=512),
    "glm4": _heads("GLM-4 9B 0414", 32, 2, 128),
    "glm4_moe": _heads("GLM-4.5 Air", 96, 8, 128),
    "glm4_moe_lite": _latent("GLM-4.7 Flash", 20, nope=192, value=256),
    "gpt2": _gpt("GPT-2", 12, 64),
    "gpt_bigcode": _gpt("StarCoder", 48, 128),
    "gpt_neox": _heads("GPT-NeoX 20B", 64, 64, 96),
    "gpt_oss": _heads("gpt-oss 20B", 64, 8, 64, sliding_window=128),
    "gptj": _gpt("GPT-J 6B", 16, 256),
    "granite": _heads("Granite 3.3 8B", 32, 8, 128),
    "granitemoehybrid": _heads("Granite 4.0 H Tiny", 12, 4, 128),
    "helium": _heads("Helium 1 2B", 20, 20, 128),
    "hunyuan": _heads("Hunyuan Large", 80, 8, 128),
    "hunyuan_v1_dense": _heads("Hunyuan 7B", 32, 8, 128),
    "internlm2": _heads("InternLM2.5 7B", 32, 8, 128),
    "internlm3": _heads("InternLM3 8B", 32, 2, 128),
    "jamba": _heads("Jamba 0.1", 32, 8, 128),
    "kimi_linear": _latent("Kimi Linear 48B A3B", 32),
    "lfm2": _heads("LFM2 1.2B", 32, 8, 64, block_dim=2048),
    "lfm2_moe": _heads("LFM2 8B A1B", 32, 8, 64),
    "llama": _heads("Llama 3.1 8B", 32, 8, 128),
    "llama: window": _heads("Llama 3.1 8B with windows", 32, 8, 128, sliding_window=1024),
    "llama4": _heads("Llama 4 Scout", 40, 8, 128, attention_chunk_size=8192),
    "longcat_flash": _latent("LongCat Flash", 64),
    "mimo": _heads("MiMo 7B", 32, 8, 128),
    "mimo_v2_flash": _heads(
        "MiMo V2 Flash",
        64,
        4,
        192,
        v_head_dim=128,
        swa_num_attention_heads=64,
        swa_num_key_value_heads=8,
        swa_head_dim=192,
        swa_v_head_dim=128,
        sliding_window_size=128,
    ),
    "minicpm": _heads("MiniCPM 2B", 36, 36, 64),
    "minicpm3": _latent("MiniCPM3 4B", 40, nope=64, rope=32, rank=256, hidden_size=2560),
    "minimax": _heads("MiniMax M2", 48, 8, 128),
    "ministral3": _heads("Ministral 3 8B", 32, 8, 128),
    "mixtral": _heads("Mixtral 8x7B", 32, 8, 128),
    "muse_glimmer": _heads("mlx-lm's defaults", 32, 2, 128, sliding_window=2048),
    "nanochat": _heads("nanochat", 10, 10, 128),
    "nemotron": _heads("Minitron 4B", 24, 8, 128),
    "nemotron-nas": _heads("Llama 3.3 Nemotron Super 49B", 64, 8, 128),
    "nemotron_h": _heads("Nemotron H 8B", 32, 8, 128),
    "olmo2": _heads("OLMo 2 7B", 32, 32, 128),
    "olmo3": _heads("OLMo 3 7B", 32, 32, 128, sliding_window=4096),
    "olmoe": _heads("OLMoE 1B 7B", 16, 16, 128),
    "phi": _heads("Phi-2", 32, 32, 80),
    "phi3": _heads("Phi-3 mini", 32, 32, 96),
    "phimoe": _heads("Phi-3.5 MoE", 32, 8, 128),
    "plamo2": _heads("PLaMo 2 8B", 32, 4, 128, hidden_size_per_head=128),
    "plamo3": _heads("mlx-lm's defaults", 32, 4, 128, window_size=2048),
    "qwen": _heads("Qwen 1.8B", 16, 16, 128, kv_channels=128),
    "qwen2": _heads("Qwen2.5 7B", 28, 4, 128),
    "qwen2_moe": _heads("Qwen1.5 MoE A2.7B", 16, 16, 128),
    "qwen3": _heads("Qwen3 8B", 32, 8, 128),
    "qwen3_moe": _heads("Qwen3 30B A3B", 32, 4, 128),
    "qwen3_next": _heads("Qwen3 Next 80B A3B", 16, 2, 256),
    "recurrent_gemma": _heads("RecurrentGemma 2B", 10, 1, 256, attention_window_size=2048),
    "seed_oss": _heads("Seed-OSS 36B", 80, 8, 128),
    "smollm3": _heads("SmolLM3 3B", 16, 4, 128),
    "stablelm": _heads("StableLM 3B 4E1T", 32, 32, 80),
    "starcoder2": _heads("StarCoder2 3B", 24, 2, 128),
    "step3p5": _heads(
        "Step 3.5 Flash",
        64,
        8,
        128,
        num_attention_groups=8,
        sliding_window=512,
        attention_other_setting={"num_attention_heads": 96, "num_attention_groups": 8},
    ),
    "talkie": _heads("mlx-lm's defaults", 40, 40, 128),
    "youtu_llm": _latent("mlx-lm's defaults", 16),
}
