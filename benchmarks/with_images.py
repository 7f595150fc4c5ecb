"""Times and peak memory of mlx-vlm's Gemma 3, with windows, over a long prompt with an image,
and of a prompt read onto a quantized cache, without the patch and with it.

    python benchmarks/with_images.py MACHINE [--length N] [--layers N] [--runs N] [--json FILE]

Writes benchmarks/results/with_images_MACHINE.json. Needs mlx-vlm, though not what it needs itself:
`pip install --no-deps mlx-vlm`.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from in_turns import in_turns, refusals
from mlx.utils import tree_map
from store import Result, parser_of, place

from mlx_flash_runtime import flash_attention_enabled
from mlx_flash_runtime.tools.bench.numbers import ratio, significant
from mlx_flash_runtime.tools.bench.routes_taken import in_words

MOST_ERROR = 2  # of what the roundings of bfloat16 make
TITLE = "A prompt with an image, and one onto a quantized cache"
DEFINITIONS = (
    "mlx-vlm's Gemma 3 with the heads and widths of Gemma 3 4B, six layers, random weights, "
    "bfloat16. Windowed: an image of 896 x 896 and a prompt of so many tokens; quantized: the "
    "second half of the prompt where the first is in caches of 8 bits. Without the patch and with "
    "it, in turns in one process, after a run of each; milliseconds are medians, MiB the peak with "
    "the weights. Errors: of the answers of two such layers, or a narrower one for the quantized "
    "cache, against the same weights in float32 without the patch, in parts of the largest number; "
    "rounding is that of bfloat16 without the patch where the reference is from: here, or, "
    "quantized, the CPU, as MLX's own products with a quantized cache are wrong on CUDA.",
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


WINDOW, IMAGE, WIDTH = 1024, 896, 2560


def language(layers: int, dtype: mx.Dtype, width: int = WIDTH) -> nn.Module:
    """Gemma 3 4B's language model: five layers with windows for each without, or fewer."""
    config = vlm().config.TextConfig(
        model_type="gemma3_text",
        hidden_size=width,
        num_hidden_layers=layers,
        intermediate_size=4 * width,
        vocab_size=4096,
        sliding_window=WINDOW,
        sliding_window_pattern=min(6, layers),
    )
    return _rounded(vlm().language.LanguageModel(config), dtype)


def tower(layers: int, dtype: mx.Dtype) -> nn.Module:
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
    return _rounded(vlm().vision.VisionModel(config), dtype)


def _rounded(model: nn.Module, dtype: mx.Dtype) -> nn.Module:
    """With the numbers that its weights are in bfloat16, in whatever type."""
    model.update(tree_map(lambda x: x.astype(mx.bfloat16).astype(dtype), model.parameters()))
    mx.eval(model.parameters())
    return model


def windowed(layers: int, length: int, dtype: mx.Dtype) -> Callable[[], mx.array]:
    """Reads an image, and a prompt of `length` tokens into the model's own caches."""
    mx.random.seed(0)
    model, vision = language(layers, dtype), tower(layers, dtype)
    image = mx.random.normal((1, IMAGE, IMAGE, 3), mx.bfloat16).astype(dtype)
    tokens = mx.random.randint(0, 4096, (1, length))

    def run() -> mx.array:
        seen = vision(image)[0]
        logits = model(tokens, cache=vlm().cache.make_prompt_cache(model)).logits
        return mx.concatenate([seen.flatten()[:4096], logits[0, -1]])

    return run


def quantized(
    layers: int, length: int, dtype: mx.Dtype, width: int = WIDTH
) -> Callable[[], mx.array]:
    """Reads the second half of a prompt where the first is in quantized caches of 8 bits."""
    mx.random.seed(0)
    model = language(layers, dtype, width)
    tokens = mx.random.randint(0, 4096, (1, length))
    half = length // 2

    def run() -> mx.array:
        kind = vlm().cache.QuantizedKVCache
        cache = [kind(group_size=64, bits=8) for _ in range(layers)]
        model(tokens[:, :half], cache=cache)
        return model(tokens[:, half:], cache=cache).logits[0, -1]

    return run


@dataclass(frozen=True)
class Case:
    """What is timed, by the number of layers, the length and the type; what is checked of it, by
    the type; and where that is right in float32 without the patch."""

    timed: Callable[[int, int, mx.Dtype], Callable[[], mx.array]]
    checked: Callable[[mx.Dtype], Callable[[], mx.array]]
    reference: mx.Device | mx.DeviceType


CASES = (
    Case(windowed, partial(windowed, 2, 2048), mx.default_device()),
    # MLX's products on a CPU can be slow: 512 tokens of narrow layers take seconds there.
    Case(quantized, partial(quantized, 1, 512, width=WIDTH // 10), mx.cpu),
)


def compared(run: Callable[[], mx.array], runs: int) -> dict[str, object]:
    """Milliseconds (median) and peak MiB of both, in turns."""
    tried = in_turns({"stock": partial(timed, run, False), "ours": partial(timed, run, True)}, runs)
    row: dict[str, object] = {"routes": in_words(tried["ours"].taken) or "-"}
    row |= {f"{name}_ms": way.milliseconds for name, way in tried.items()}
    row["over_stock"] = ratio(tried["stock"].milliseconds, tried["ours"].milliseconds)
    row |= {f"{name}_mib": way.mib for name, way in tried.items()}
    return row | {"refused": refusals(tried)}


def timed(run: Callable[[], mx.array], enabled: bool) -> float:
    """Seconds without the patch or with it."""
    with flash_attention_enabled(enabled):
        start = time.perf_counter()
        mx.eval(run())
        return time.perf_counter() - start


def errors(case: Case) -> dict[str, Any]:
    """How far the answers are from those in float32: what the roundings of bfloat16 make where
    those are from; here without the patch, and with it; None where MLX refuses. On CUDA MLX's own
    products with a quantized cache are wrong in any type (`mlx_flash_runtime.patching.quantized`):
    their error says so."""

    def answer(dtype: mx.Dtype, enabled: bool, device: mx.Device | mx.DeviceType) -> mx.array:
        run = case.checked(dtype)  # the same weights wherever it runs
        with mx.stream(device), flash_attention_enabled(enabled):
            out = run().astype(mx.float32)
            mx.eval(out)
        return out

    wanted = answer(mx.float32, False, case.reference)

    def error(enabled: bool, device: mx.Device | mx.DeviceType) -> float:
        apart = mx.abs(answer(mx.bfloat16, enabled, device) - wanted)
        return significant(float(apart.max() / mx.abs(wanted).max()), 2)

    found: dict[str, Any] = {"rounding": error(False, case.reference)}
    for name, enabled in (("stock_error", False), ("ours_error", True)):
        try:
            found[name] = error(enabled, mx.default_device())
        except RuntimeError as refused:
            print(refused, file=sys.stderr)
            found[name] = None
    return found


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--length",
        type=int,
        default=16384,
        help="with windows; a quarter of it with quantized caches, where stock needs long",
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    command = f"python benchmarks/with_images.py {args.machine}"
    path = place(args, "with_images")
    result = Result(path, title=TITLE, command=command, definitions=DEFINITIONS)
    wrong = False
    for case, length in zip(CASES, (args.length, args.length // 4), strict=True):
        apart = errors(case)
        if apart["ours_error"] is not None:
            wrong = wrong or not apart["ours_error"] <= MOST_ERROR * apart["rounding"]
        found = compared(case.timed(args.layers, length, mx.bfloat16), args.runs)
        result.add({"case": case.timed.__name__, "length": length, **found, **apart})
        print(result.rows[-1], flush=True)
        mx.clear_cache()
    print(f"written: {result.path}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
