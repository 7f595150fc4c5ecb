"""Public models with attention written by hand, before and after a rewrite: whether they agree, and
what the rewrite gains.

    git clone https://github.com/ml-explore/mlx-examples checkouts/mlx-examples
    git clone https://github.com/Blaizzy/mlx-audio checkouts/mlx-audio
    python benchmarks/handwritten_models.py checkouts --results benchmarks/results

Each model is built twice with the same random weights, from the files as they are and from copies
that flash-integrate has rewritten; nothing is written into the checkouts. A tiny one gives outputs
and the gradients of all weights, which have to agree; larger ones are timed in one process, in
turns, each call with data of its own: by hand, rewritten on stock MLX, and rewritten with the
runtime. Runs on MLX's default device; a model that this machine can't
build is named, and fails the run only with --all.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from rich.console import Console
from rich.table import Table

from flash_codemods.handwritten.handwritten_attention import rewrites_of
from flash_integrate.attention.rewrites import applied
from flash_integrate.python.source import Source
from mlx_flash_runtime import enable_flash_attention

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


_length = 16


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


_size = 1


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", type=Path, help="folder that holds the repos")
    parser.add_argument("--results", type=Path, help="folder for the results as JSON")
    parser.add_argument("--all", action="store_true", help="fail where a model can't be built")
    parser.add_argument("--size", type=int, default=4, help="heads of the timed models, of 64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--longest", type=int, default=4096, help="lengths above are left out")
    parser.add_argument(
        "--only", action="append", default=[], help="models whose name has this in it"
    )
    args = parser.parse_args()
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    missing = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            if args.only and not any(word in case.name for word in args.only):
                continue
            try:
                pair = modules_of(case, args.checkouts, Path(scratch))
            except (ImportError, FileNotFoundError) as error:
                console.print(f"{case.name}: not here: {error}", style="yellow")
                missing += 1
                continue
            try:
                row = measure(case, pair, args, getattr(mx, args.dtype))
            except RuntimeError as error:  # of MLX, where this machine can't compute it
                console.print(f"{case.name}: {error}", style="red")
                missing += 1
                continue
            rows.append(row)
            console.print(json.dumps(row), highlight=False)
    console.print(table_of(rows))
    if args.results is not None:
        write_results(args.results, rows, args)
    wrong = [row["model"] for row in rows if not row["agrees"]]
    for name in wrong:
        console.print(f"{name}: the two versions differ", style="red")
    return 1 if wrong or (args.all and missing) else 0


# Two versions of a module


def modules_of(case: Case, checkouts: Path, scratch: Path) -> tuple[Any, Any]:
    """The module as it is, and as it is rewritten, each in packages of its own."""
    root = checkouts / case.repo / case.root
    if not root.is_dir():
        raise FileNotFoundError(root)
    copy = scratch / case.repo / case.root
    if not copy.exists():
        rewrite_into(root, copy)
    register_packages(checkouts / case.repo)
    original = load("before_" + label(case), root, case.module)
    rewritten = load("after_" + label(case), copy, case.module)
    return original, rewritten


def register_packages(repo: Path) -> None:
    """Lets modules import others of their repo by its own name, again without the `__init__` of
    the packages on the way."""
    for folder in (item.parent for item in repo.glob("*/__init__.py")):
        for path in (folder, *(item for item in folder.glob("**/") if item.name != "__pycache__")):
            name = ".".join(path.relative_to(repo).parts)
            if name not in sys.modules and len(path.relative_to(repo).parts) <= 3:
                package = types.ModuleType(name)
                package.__path__ = [str(path)]
                sys.modules[name] = package


def label(case: Case) -> str:
    return f"{case.repo}_{case.root}".replace("-", "_").replace("/", "_")


def rewrite_into(root: Path, copy: Path) -> None:
    """Copies the Python files of a folder, with attention by hand rewritten where that is
    proved."""
    for path in root.rglob("*.py"):
        data = path.read_bytes()
        if b"softmax" in data:
            data = applied(data, rewrites_of(Source(path, data), unproven=False)[0])
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def load(top: str, root: Path, module: str) -> Any:
    """A module below a folder, without running the `__init__` of the packages around it: those
    import whatever the repo needs for other models."""
    parts = module.split(".")
    folder = root
    for index in range(len(parts)):
        name = ".".join([top, *parts[:index]])
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(folder)]
            sys.modules[name] = package
        folder = folder / parts[index]
    return importlib.import_module(f"{top}.{module}")


# Measuring


def built(case: Case, module: Any, size: int, length: int, dtype: Any) -> nn.Module:
    global _length, _size
    _length, _size = length, size
    mx.random.seed(0)
    model = case.build(module, size)
    # Weights that start as zeros, such as positions, would hide what depends on them.
    weights = tree_map(
        lambda array: (mx.random.normal(array.shape) * 0.1) if array.ndim > 1 else array,
        model.parameters(),
    )
    model.update(tree_map(lambda array: array.astype(dtype), weights))
    model.eval()
    mx.eval(model.parameters())
    return model


def result_of(case: Case, model: nn.Module, inputs: Inputs) -> mx.array:
    return case.run(model, inputs)  # type: ignore[no-any-return]


def measure(
    case: Case, pair: tuple[Any, Any], args: argparse.Namespace, dtype: Any
) -> dict[str, Any]:
    """One model's row: the agreement of a tiny one, times and memory of larger ones."""
    output, gradient = agreement(case, pair)
    row: dict[str, Any] = {
        "model": case.name,
        "repo": case.repo,
        "output_error": output,
        "gradient_error": gradient,
        "agrees": output < 1e-4 and gradient < 1e-3,
        "lengths": [],
    }
    for length in case.lengths:
        if length <= args.longest:
            row["lengths"].append(timed(case, pair, args.size, length, args.rounds, dtype))
    return row


def agreement(case: Case, pair: tuple[Any, Any]) -> tuple[float, float]:
    """The largest difference of outputs, and of the gradients of all weights, in parts of their
    size; in float32."""
    found = []
    for module in pair:
        model = built(case, module, 2, 16, mx.float32)
        mx.random.seed(1)
        inputs = case.inputs(2, 16)

        names, weights = zip(*tree_flatten(model.parameters()), strict=True)

        # Not nn.value_and_grad: some of these models do not initialise nn.Module.
        def loss(
            weights: Any, model: Any = model, names: Any = names, given: Any = inputs
        ) -> mx.array:
            model.update(tree_unflatten(list(zip(names, weights, strict=True))))
            out = result_of(case, model, given).astype(mx.float32)
            return (out * mx.sin(mx.arange(out.size).reshape(out.shape))).sum()

        gradients = mx.grad(loss)(list(weights))
        model.update(tree_unflatten(list(zip(names, weights, strict=True))))
        found.append([result_of(case, model, inputs), *gradients])
        mx.eval(found[-1])
    off = [distance(one, other) for one, other in zip(*found, strict=True)]
    largest = max(mx.abs(array).max().item() for array in found[0][1:])
    gradient = max(
        mx.abs(one - other).max().item() for one, other in zip(*(f[1:] for f in found), strict=True)
    )
    return off[0], gradient / max(largest, 1e-6)


def distance(one: mx.array, other: mx.array) -> float:
    size = max(mx.abs(one).max().item(), 1e-6)
    return float(mx.abs(one - other).max().item() / size)


def timed(
    case: Case, pair: tuple[Any, Any], size: int, length: int, rounds: int, dtype: Any
) -> dict[str, Any]:
    """Median milliseconds and peak memory, forward, in turns: by hand, rewritten on stock MLX, and
    rewritten with the runtime's patch."""
    before, after = (built(case, module, size, length, dtype) for module in pair)
    ways = {"by_hand": (before, False), "rewritten": (after, False), "with_runtime": (after, True)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    for turn in range(rounds + 2):
        mx.random.seed(turn)
        inputs = tuple(cast(array, dtype) for array in case.inputs(1, length))
        mx.eval(inputs)
        for name in sorted(ways, reverse=bool(turn % 2)):
            model, patched = ways[name]
            enable_flash_attention(patched)
            mx.clear_cache()
            mx.reset_peak_memory()
            held = mx.get_active_memory()
            start = time.perf_counter()
            try:
                mx.eval(result_of(case, model, inputs))
            except RuntimeError as error:
                raise RuntimeError(f"{name}, length {length}: {error}") from error
            took = 1e3 * (time.perf_counter() - start)
            if turn >= 2:  # the first ones warm up
                times[name].append(took)
                peaks[name] = max(peaks[name], mx.get_peak_memory() - held)
    enable_flash_attention(False)
    row: dict[str, Any] = {"length": length}
    for name, own in times.items():
        ratios = sorted(one / other for one, other in zip(times["by_hand"], own, strict=True))
        row[name] = {
            "ms": statistics.median(own),
            "speedup": statistics.median(ratios),
            "speedup_range": [ratios[0], ratios[-1]],
            "mib": peaks[name] / 2**20,
        }
    return row


def cast(array: mx.array, dtype: Any) -> mx.array:
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


# Showing


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    headings = ("model", "outputs", "gradients", "length", "ms by hand", "rewritten", "× by hand",
                "with runtime", "× by hand", "MiB")  # fmt: skip
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        for item in row["lengths"]:
            hand, after, patched = item["by_hand"], item["rewritten"], item["with_runtime"]
            table.add_row(
                row["model"],
                f"{row['output_error']:.0e}",
                f"{row['gradient_error']:.0e}",
                str(item["length"]),
                f"{hand['ms']:.2f}",
                f"{after['ms']:.2f}",
                f"{after['speedup']:.2f}",
                f"{patched['ms']:.2f}",
                f"{patched['speedup']:.2f}",
                f"{hand['mib']:.0f} / {after['mib']:.0f} / {patched['mib']:.0f}",
            )
    return table


def write_results(folder: Path, rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    device = "gpu" if mx.default_device() == mx.gpu else "cpu"
    info = mx.device_info() if hasattr(mx, "device_info") else {}
    document = {
        "machine": {
            "device": device,
            "name": str(info.get("device_name", platform.machine())),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "mlx": mx.__version__,
            "python": platform.python_version(),
        },
        "dtype": args.dtype,
        "heads": args.size,
        "rounds": args.rounds,
        "models": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"handwritten_models_{device}_{args.dtype}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
