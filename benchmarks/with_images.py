"""Times and peak memory of mlx-vlm's Gemma 3, with windows, over a long prompt with an image,
and of a prompt read onto a quantized cache, without the patch and with it.

    python benchmarks/with_images.py MACHINE [--length N] [--layers N] [--runs N] [--json FILE]

Writes benchmarks/results/with_images_MACHINE.json. Needs mlx-vlm, though not what it needs itself:
`pip install --no-deps mlx-vlm`.
"""

from __future__ import annotations

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
from store import Result, parser_of, place

from mlx_flash_runtime import flash_attention_enabled
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.taken import counting, in_words

TITLE = "A prompt with an image, and one onto a quantized cache"
DEFINITIONS = (
    "mlx-vlm's Gemma 3 with the heads and widths of Gemma 3 4B, six layers, random weights, "
    "bfloat16. Windowed: an image of 896 x 896 and a prompt of so many tokens; quantized: the "
    "second half of the prompt where the first is in caches of 8 bits. Without the patch and with "
    "it, in turns in one process, after a run of each; milliseconds are medians, MiB the peak with "
    "the weights. Difference: of the answers, in parts of the largest number; with random weights "
    "other roundings alone move a Gemma's logits by half of it, see its workflows.",
)


def _without_processors() -> None:
    """Lets the models be imported though what their processors need is not installed: the packages
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
    peaks, answers, routes = {}, {}, "-"
    for turn in range(runs + 1):
        for enabled in times:
            with flash_attention_enabled(enabled), counting() as taken:
                mx.synchronize()
                mx.clear_cache()
                mx.reset_peak_memory()
                start = time.perf_counter()
                answers[enabled] = run()
                mx.eval(answers[enabled])
                seconds = time.perf_counter() - start
                peaks[enabled] = mx.get_peak_memory() / 2**20
                if turn:  # after a run of each to warm up
                    times[enabled].append(1e3 * seconds)
            if enabled:
                routes = in_words(taken) or "-"
    plain, ours = (answers[enabled].astype(mx.float32) for enabled in (False, True))
    stock_ms, ours_ms = (significant(statistics.median(times[one])) for one in (False, True))
    difference = float(mx.abs(ours - plain).max() / mx.abs(plain).max())
    return {
        "routes": routes,
        "stock_ms": stock_ms,
        "ours_ms": ours_ms,
        "over_stock": ratio(stock_ms, ours_ms),
        "stock_mib": round(peaks[False]),
        "ours_mib": round(peaks[True]),
        "difference": significant(difference, 2),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    command = f"python benchmarks/with_images.py {args.machine}"
    path = place(args, "with_images")
    result = Result(path, title=TITLE, command=command, definitions=DEFINITIONS)
    for case in (windowed, quantized):
        found = compared(case(args.layers, args.length), args.runs)
        result.add({"case": case.__name__, "length": args.length, **found})
        print(result.rows[-1], flush=True)
        mx.clear_cache()
    print(f"written: {result.path}")


if __name__ == "__main__":
    main()
