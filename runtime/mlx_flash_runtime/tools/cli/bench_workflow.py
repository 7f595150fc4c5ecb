"""`mlx-flash bench workflow`."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click

from ...report import counted
from ..bench import definitions, models, problems, workflow, workloads
from ..bench.grid import FlashIsOff
from ..bench.machine import is_out_of_memory, machine
from ..bench.tables import Document
from .cpu_kernel import have_cpu_kernel
from .errors import Failure, Usage, need_mlx_lm
from .options import Several, command_line, given, rounds_option
from .outputs import Outputs, exit_if_wrong, output_options, write_measured


@click.command("workflow")
@click.argument(
    "name",
    type=click.Choice(workloads.WORKFLOWS),
    metavar="{" + ",".join(workloads.WORKFLOWS) + "}",
)
@click.option(
    "--model",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A model for mlx-lm.",
)
@click.option(
    "--config",
    type=click.Choice(models.SIZES),
    default="tiny",
    show_default=True,
    help="Without --model.",
)
@click.option(
    "--shape",
    type=click.Choice(models.SHAPES),
    default="llama",
    show_default=True,
    help="Without --model: llama, the same with sliding windows, or gemma (head dim 256).",
)
@click.option("--dtype", type=click.Choice(problems.DTYPES), help="The model's own unless given.")
@click.option(
    "--length",
    type=Several(),
    default="128,512",
    show_default=True,
    help="Tokens of a row or a prompt.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Rows, or prompts at once (not in chat).",
)
@click.option(
    "--new-tokens",
    type=Several(),
    help="Tokens of a reply.  [default: chat: 32,256,1024; batch: 32]",
)
@click.option(
    "--checkpoint", is_flag=True, help="Train with gradient checkpointing (lora, qlora, full)."
)
@rounds_option(5, "Timed runs of each kind.")
@output_options
def workflow_command(
    name: str,
    folder: Path | None,
    config: str,
    shape: str,
    dtype: str | None,
    length: tuple[int, ...],
    batch: int,
    new_tokens: tuple[int, ...] | None,
    checkpoint: bool,
    rounds: int,
    outputs: Outputs,
) -> None:
    """Training, chat, batches, evaluation: MLX's own attention and ours.

    \b
    mlx-flash bench workflow lora --model ./my_model --length 1024
    mlx-flash bench workflow chat --length 512,2048 --new-tokens 256 --json chat.json

    On the model of a folder, or on one with random weights that is made for it. Exits with 1 if a
    row is wrong. Needs the extra `lm`.
    """
    _refuse_unheeded(name, folder)
    need_mlx_lm("workflows need")

    def make() -> models.Model:
        model = models.make(config, shape, dtype) if folder is None else models.load(folder, dtype)
        if name == "full" and model.quantized:
            raise Usage(
                f"{folder} is quantized: its weights cannot all be trained; qlora can train on it"
            )
        return model

    replies = new_tokens or _REPLIES.get(name, (0,))
    if name in _REPLIES and min(replies) < 2:
        raise Usage("--new-tokens: a reply has two tokens or more")
    sizes = [workloads.Sizes(tokens, batch, reply) for tokens, reply in product(length, replies)]
    ready: list[models.Model] = []
    try:
        measured = workflow.measure(
            lambda: ready.pop() if ready else make(), name, sizes, rounds, checkpoint
        )
        ready.append(make())  # before the kernel is compiled: what is no model is told at once
        have_cpu_kernel()
        document_of = partial(_document, name, machine())
        lengths = f"{name} at {counted(len(length), 'length')}"
        rows = write_measured(measured, len(sizes), lengths, outputs, document_of)
    except (models.NotAModel, FlashIsOff) as error:
        raise Usage(str(error)) from error
    except (MemoryError, RuntimeError, ValueError) as error:
        what = "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        raise Failure(f"{name} on {folder or f'{shape}-{config}'}: {what}") from error
    exit_if_wrong(rows)


def _document(name: str, facts: dict[str, Any], rows: list[dict[str, Any]]) -> Document:
    chaotic = [definitions.CHAOTIC] if definitions.is_chaotic(rows) else []
    return Document(
        kind="workflow",
        title=f"Workflow {name}: stock and ours",
        command=command_line(),
        machine=facts,
        definitions=(*definitions.WORKFLOW_DEFINITIONS, *chaotic),
        rows=rows,
        summary=[],
    )


# Tokens of the replies of workflows that have some.
_REPLIES = {"chat": (32, 256, 1024), "batch": (32,)}

# Options that some workflows alone heed.
_HEEDED = {
    "batch": tuple(name for name in workloads.WORKFLOWS if name != "chat"),
    "new_tokens": tuple(_REPLIES),
    "checkpoint": workloads.TRAINING,
}


def _refuse_unheeded(name: str, folder: Path | None) -> None:
    """Raises Usage for an option that would change nothing."""
    for option in given(option for option, workflows in _HEEDED.items() if name not in workflows):
        raise Usage(f"{option}: the workflow {name} has none")
    for option in given(() if folder is None else ("config", "shape")):
        raise Usage(f"{option}: the model is that of --model {folder}")
