"""For `libraries.py`, where the attention of models of mlx-audio and mflux runs.

    PYTHONPATH=fixtures python benchmarks/sound_and_pictures.py

No such device is needed and nothing is computed: the planner is told of a device, and the models,
with the heads of a published model each, run lazily on attention that gives zeros.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mlx.core as mx
from families import DEVICES
from numbered_reasons import NumberedReasons

from flash_codemods.handwritten.handwritten_attention import rewrites_of
from flash_integrate.python.source import Source
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.rehearsal import LayerCalls, rehearse
from sound_and_picture_models import TRANSFORMERS, make

LENGTH = 4096
INTRODUCTION = f"""\
## Models of mlx-audio and mflux

While {LENGTH:,} frames or patches are read (Whisper: 1,500, and a few words), in bfloat16, with the
heads of a published model. *native* is MLX's own fused kernel: the runtime changes nothing there,
except that Pocket TTS, which makes its causal masks as arrays, gets MLX's word for them. What is
written out calls nothing that could be patched: [handwritten.md](handwritten.md) says of every such
function whether `flash-integrate` rewrites it.

mlx-audio comes with mlx-vlm. mflux asks for PyTorch and, on Linux, for MLX's CUDA backend: its
transformers were imported without what it depends on. The same models run in the tests, on the
CPU, against MLX's own attention (`tests/runtime/test_sound_and_picture_models.py`).

| library | model | like | heads | head dim | {" | ".join(DEVICES)} |
{"|---" * (5 + len(DEVICES))}|"""


def section() -> str:
    """The table, with the reasons below it."""
    reasons = NumberedReasons()
    lines = []
    for name in TRANSFORMERS:
        lines += rows(name, reasons)
    return "\n".join([INTRODUCTION, *lines, "", *reasons.lines(), ""])


def rows(name: str, reasons: NumberedReasons) -> list[str]:
    """A line for each kind of heads of a model."""
    by_heads: dict[tuple[int, int], dict[str, list[str]]] = {}
    for device in DEVICES:
        for call in _calls(name, DEVICES[device]):
            heads = call.problem.query_heads, call.problem.head_dim
            route, reason = call.decision
            cell = reasons.cell(route, reason)
            cells = by_heads.setdefault(heads, {name: [] for name in DEVICES})[device]
            if cell not in cells:
                cells.append(cell)
    transformer = TRANSFORMERS[name]
    if not by_heads:
        cell = reasons.cell("written out", _verdict(name))
        own = transformer.heads, transformer.head_dim
        by_heads[own] = {name: [cell] for name in DEVICES}
    start = f"| {transformer.library} | {name} | {transformer.like}"
    lines = []
    for (number, dim), by_device in by_heads.items():
        routes = [", ".join(cells) for cells in by_device.values()]
        lines.append(f"{start} | {number} | {dim} | {' | '.join(routes)} |")
    return lines


def _calls(name: str, device: Device) -> list[LayerCalls]:
    transformer = TRANSFORMERS[name]
    length = 1500 if name == "whisper" else LENGTH
    model = make(name, transformer.heads, transformer.head_dim, length)
    model.set_dtype(mx.bfloat16)
    step = [lambda _: transformer.run(model, length)]
    [calls] = rehearse(step, (1, 1), device, Settings(enabled=True))
    return calls


def _verdict(name: str) -> str:
    """What `flash-integrate` says of the attention that a model has written out."""
    module = sys.modules[type(make(name, 2, 32, 32)).__module__]
    path = Path(module.__file__ or "")
    rewrites, refusals = rewrites_of(Source(path, path.read_bytes()))
    if proved := [rewrite for rewrite in rewrites if rewrite.proved]:
        return f"in the model's own code: flash-integrate rewrites it, {proved[0].verdict}"
    reason = refusals[0].reason if refusals else rewrites[0].verdict
    return f"in the model's own code; flash-integrate leaves it: {reason}"


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(section(), end="")
