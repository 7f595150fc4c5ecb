"""Which route the attention layers of mlx-lm's model families take, on Metal, CUDA and the CPU, as
`docs/families.md`.

    PYTHONPATH=fixtures python benchmarks/families.py [--write]

No such device is needed and nothing is computed: the planner is told of a device, and the models,
with the heads of a published model each, run lazily on attention that gives zeros.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from numbered_reasons import NumberedReasons
from published_heads import PUBLISHED

from mlx_flash_runtime.planning.counts import Decision
from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import Settings
from mlx_flash_runtime.tools.rehearsal import LayerCalls, rehearse
from model_families import families, make

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
LENGTH = 4096
DEVICES = {
    "Metal": Device("metal", (0, 32, 4), 64 * 2**30, "Darwin", own_kernel=True),
    "CUDA": Device("cuda", (0, 32, 4), 80 * 2**30, own_kernel=True),
    "CPU": Device("cpu", (0, 32, 4), 64 * 2**30, own_kernel=True),
}
# Its experts are chosen by numbers that would have to be computed.
NOT_LAZY = {"dbrx"}

INTRODUCTION = f"""\
# Where the layers of each model family run

Written by `PYTHONPATH=fixtures python benchmarks/families.py --write`; a test holds this page \
and the planner together.

A row is a family of mlx-lm in bfloat16, with as few layers as show every kind of layer that it \
has, and with the heads
of one published model (*like*), or where none is named with heads of a usual size. A cell says \
how many of its
attention layers take which route: in a prefill of {LENGTH:,} tokens, in decoding one token after \
it, and in training on
{LENGTH:,} tokens. The numbers in brackets are the planner's reasons, below each table. A family \
without attention
layers in its row has written out its attention by hand.

The planner was told of the devices, for CUDA of a Hopper GPU; nothing was measured for this \
page. Every family also
runs for real in the tests, on the CPU, with every kind of cache and with LoRA gradients, against \
MLX's own attention
(`tests/runtime/test_model_families.py`).
"""


Heads = tuple[int, int, int, int]  # of queries, of keys, head dim of both, head dim of values


class Phase(NamedTuple):
    """The attention layers of one family in one phase: how many took which decision, their
    classes, their heads."""

    decisions: Counter[Decision]
    classes: list[str]
    heads: list[Heads]


def phases(device: Device) -> dict[str, list[Phase]]:
    """Of each family on `device`: prefill, decode, training."""
    lazy = [family for family in families() if family not in NOT_LAZY]
    return {family: _phases(_model(family), device) for family in lazy}


def _phases(model: Any, device: Device) -> list[Phase]:
    cache = make_prompt_cache(model)
    generation = [
        lambda tokens: model(tokens, cache=cache),
        lambda tokens: model(tokens[:, :1], cache=cache),
    ]
    shape, settings = (1, LENGTH), Settings(enabled=True)
    steps = [
        *rehearse(generation, shape, device, settings),
        *rehearse([model], shape, device, settings, training=True),
    ]
    return [_phase(calls) for calls in steps]


def _phase(calls: list[LayerCalls]) -> Phase:
    # A layer counts once for each decision about its calls.
    decided: set[tuple[Decision, tuple[str, str]]] = set()
    classes: set[str] = set()
    heads: set[Heads] = set()
    for call in calls:
        decided.update((call.decision, layer) for layer in call.layers)
        classes.update(class_name for _, class_name in call.layers)
        p = call.problem
        heads.add((p.query_heads, p.key_heads, p.head_dim, p.value_head_dim))
    decisions = Counter(decision for decision, _ in decided)
    return Phase(decisions, sorted(classes), sorted(heads))


def _model(family: str) -> Any:
    model = make(family, PUBLISHED[family].overrides)
    model.set_dtype(mx.bfloat16)
    return model


def section(name: str) -> str:
    """The table of one of `DEVICES`, with the reasons below it."""
    reasons = NumberedReasons()
    rows = [row(family, of_family, reasons) for family, of_family in phases(DEVICES[name]).items()]
    lines = [
        f"## {name}\n",
        "| family | like | attention | heads | head dim | prefill | decode | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *rows, "", *reasons.lines(), ""])


def row(family: str, of_family: list[Phase], reasons: NumberedReasons) -> str:
    """One family's line."""
    prefill = of_family[0]
    heads = [f"{query}" if query == key else f"{query}/{key}" for query, key, _, _ in prefill.heads]
    dims = [f"{dim}" if dim == value else f"{dim}/{value}" for _, _, dim, value in prefill.heads]
    cells = [_routes(phase, reasons) for phase in of_family]
    texts = [", ".join(dict.fromkeys(cell)) for cell in (prefill.classes, heads, dims, *cells)]
    return f"| {' | '.join([family, PUBLISHED[family].model, *texts])} |"


def _routes(phase: Phase, reasons: NumberedReasons) -> list[str]:
    """How many layers take which route."""
    found = []
    for (route, reason), count in sorted(phase.decisions.items()):
        found.append(reasons.cell(f"{count} {route}", reason))
    return found


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *map(section, DEVICES), with_images()])


def with_images() -> str:
    """The table of mlx-vlm's families."""
    from families_with_images import section

    return section(DEVICES)


def main() -> None:
    """Prints or writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write it to docs/{PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
