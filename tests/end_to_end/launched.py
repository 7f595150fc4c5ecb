"""What each of several processes of `mlx.launch` does in `test_several_processes`: data-parallel
LoRA by mlx-lm's trainer, a model whose heads are divided, and one whose layers are, without the
patch and with it.

Prints one line of JSON a process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import llama, qwen2
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_flash_runtime import enable_flash_attention

SHAPE: dict[str, Any] = {
    "model_type": "tiny",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 64,
    "tie_word_embeddings": False,
}


class Losses(TrainingCallback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_loss_report(self, train_info: dict[str, float]) -> None:
        self.found.append(train_info["train_loss"])


def model(kind: Any = llama) -> nn.Module:
    mx.random.seed(0)
    made: nn.Module = kind.Model(kind.ModelArgs(**SHAPE))
    # Louder than they start, so that greedy decoding does not say one token again and again.
    made.update(
        tree_map(lambda weight: weight + 0.2 * mx.random.normal(weight.shape), made.parameters())
    )
    mx.eval(made.parameters())
    return made


def losses() -> list[float]:
    """Of three steps, each on a sequence of a process's own."""
    trained = model()
    trained.freeze()
    linear_to_lora_layers(trained, 2, {"rank": 2, "scale": 2.0, "dropout": 0.0})
    rows = [([(5 * row + place) % 64 for place in range(33)], 0) for row in range(8)]
    told = Losses()
    np.random.seed(0)  # mlx-lm shuffles with it
    with TemporaryDirectory() as folder:
        train(
            trained,
            optim.SGD(learning_rate=0.1),
            rows,
            [],
            args=TrainingArgs(
                batch_size=2,
                iters=3,
                val_batches=0,
                steps_per_report=1,
                steps_per_eval=100,
                steps_per_save=100,
                max_seq_length=64,
                adapter_file=str(Path(folder) / "adapters.safetensors"),
            ),
            training_callback=told,
        )
    return told.found


def by_heads(group: mx.distributed.Group) -> list[int]:
    """What a model says of which each process has half of the heads."""
    divided = model()
    divided.shard(group)
    return tokens(divided)


def by_layers(group: mx.distributed.Group) -> list[int]:
    """What a model says of which each process has half of the layers, as mlx-lm's generation in a
    pipeline divides them."""
    divided = model(qwen2)
    divided.model.pipeline(group)
    return tokens(divided)


def tokens(divided: nn.Module) -> list[int]:
    """Of greedy decoding."""
    cache, found = make_prompt_cache(divided), list(range(20))
    next_tokens = mx.array([found])
    for _ in range(8):
        token = mx.argmax(divided(next_tokens, cache=cache)[:, -1], axis=-1)
        found.append(int(token.item()))
        next_tokens = token[None]
    return found[20:]


def main() -> None:
    sys.stdout = sys.stderr  # where mlx-lm's trainer prints
    group = mx.distributed.init(strict=True)
    told: dict[str, object] = {"rank": group.rank(), "size": group.size()}
    told["plain"] = [losses(), by_heads(group), by_layers(group)]
    enable_flash_attention()
    told["patched"] = [losses(), by_heads(group), by_layers(group)]
    print(json.dumps(told), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
