"""`mlx-flash bench`."""

from __future__ import annotations

import click

from .group import LazyGroup

BENCHES = {
    "grid": (".bench_grid:grid", "Attention by shape: by hand, MLX's own, ours."),
    "routes": (".bench_routes:routes", "The calls that docs/metal.md counts, on every route."),
    "workflow": (
        ".bench_workflow:workflow_command",
        "Training, chat, batches, evaluation: MLX's own attention and ours.",
    ),
}


@click.command(cls=LazyGroup, lazy=BENCHES)
def bench() -> None:
    """Measure attention by shape and by route, or whole workflows.

    \b
    mlx-flash bench grid --length 1024,4096 --mask causal --json grid.json
    mlx-flash bench routes --only 'window 128'
    mlx-flash bench workflow lora --model ./my_model --length 1024
    mlx-flash report grid.json --html page.html
    """
