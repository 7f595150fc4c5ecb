"""Times and peak memory of mlx-vlm's Gemma 3, with windows, over a long prompt with an image,
and of a prompt read onto a quantized cache, without the patch and with it, as JSON.

    python benchmarks/with_images.py [--length N] [--layers N] [--runs N]

The heads and widths are those of Gemma 3 4B with random weights in bfloat16. The two take turns in
one process, after a run of each; the difference between their answers is told as a share of the
largest number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_flash_runtime import flash_attention_enabled, report


def _without_processors() -> None:
    """Lets the models be imported where what their processors need is not installed: the packages
    around them are looked into without their own code being run."""
    for name in ("mlx_vlm", "mlx_vlm.models", "mlx_vlm.models.gemma3"):
        parent = sys.modules.get(name.rpartition(".")[0])
        found = PathFinder.find_spec(name, getattr(parent, "__path__", None))
        assert found is not None, "mlx-vlm is not installed"
        package = types.ModuleType(name)
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules[name] = package
    if find_spec("PIL") is None:
        sys.modules["PIL"] = types.SimpleNamespace(Image=None)  # type: ignore[assignment]


@lru_cache(maxsize=1)
def vlm() -> types.SimpleNamespace:
    """What is needed of mlx-vlm."""
    if find_spec("transformers") is None or find_spec("requests") is None:
        _without_processors()
    from mlx_vlm.models import cache
    from mlx_vlm.models.gemma3 import config, language, vision

    return types.SimpleNamespace(cache=cache, config=config, language=language, vision=vision)


WINDOW, IMAGE = 1024, 896


def language(layers: int) -> nn.Module:
    """Gemma 3 4B's language model: five layers with windows for each without."""
    config = vlm().config.TextConfig(
        model_type="gemma3_text",
        hidden_size=2560,
        num_hidden_layers=layers,
        intermediate_size=10240,
        vocab_size=4096,
        sliding_window=WINDOW,
    )
    return _in_bfloat16(vlm().language.LanguageModel(config))


def tower(layers: int) -> nn.Module:
    """Its SigLIP tower: 16 heads of 72 numbers."""
    config = vlm().config.VisionConfig(
        model_type="siglip_vision_model",
        num_hidden_layers=layers,
        hidden_size=1152,
        intermediate_size=4304,
        num_attention_heads=16,
        patch_size=14,
        image_size=IMAGE,
    )
    return _in_bfloat16(vlm().vision.VisionModel(config))


def _in_bfloat16(model: nn.Module) -> nn.Module:
    model.update(tree_map(lambda weight: weight.astype(mx.bfloat16), model.parameters()))
    mx.eval(model.parameters())
    return model


def windowed(layers: int, length: int) -> Callable[[], mx.array]:
    """Reads an image, and a prompt of `length` tokens into the model's own caches."""
    model, vision = language(layers), tower(layers)
    image = mx.random.normal((1, IMAGE, IMAGE, 3), mx.bfloat16)
    tokens = mx.random.randint(0, 4096, (1, length))

    def run() -> mx.array:
        seen = vision(image)[0]
        logits = model(tokens, cache=vlm().cache.make_prompt_cache(model)).logits
        return mx.concatenate([seen.flatten()[:4096], logits[0, -1]])

    return run


def quantized(layers: int, length: int) -> Callable[[], mx.array]:
    """Reads the second half of a prompt where the first is in quantized caches of 8 bits."""
    model = language(layers)
    tokens = mx.random.randint(0, 4096, (1, length))
    half = length // 2

    def run() -> mx.array:
        kind = vlm().cache.QuantizedKVCache
        cache = [kind(group_size=64, bits=8) for _ in range(layers)]
        model(tokens[:, :half], cache=cache)
        return model(tokens[:, half:], cache=cache).logits[0, -1]

    return run


def compared(run: Callable[[], mx.array], runs: int) -> dict[str, object]:
    """Milliseconds (median) and peak MiB of both, in turns, and how far the answers are apart."""
    times: dict[bool, list[float]] = {False: [], True: []}
    peaks, answers = {}, {}
    for turn in range(runs + 1):
        for enabled in times:
            with flash_attention_enabled(enabled):
                mx.synchronize()
                mx.clear_cache()
                mx.reset_peak_memory()
                start = time.perf_counter()
                answers[enabled] = run()
                mx.eval(answers[enabled])
                taken = time.perf_counter() - start
                peaks[enabled] = mx.get_peak_memory() / 2**20
                if turn:  # after a run of each to warm up
                    times[enabled].append(1e3 * taken)
    plain, ours = (answers[enabled].astype(mx.float32) for enabled in (False, True))
    return {
        "stock_ms": round(statistics.median(times[False]), 2),
        "ours_ms": round(statistics.median(times[True]), 2),
        "stock_mib": round(peaks[False]),
        "ours_mib": round(peaks[True]),
        "difference": float(mx.abs(ours - plain).max() / mx.abs(plain).max()),
        "routes": report().as_dict()["routes"],
    }


def main() -> None:
    """Prints a line of JSON a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for case in (windowed, quantized):
        found = compared(case(options.layers, options.length), options.runs)
        print(json.dumps({"case": case.__name__, "length": options.length, **found}), flush=True)


if __name__ == "__main__":
    main()
