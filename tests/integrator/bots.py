"""Small files that tests put together to repos with entry points."""

from __future__ import annotations

MODEL = """\
from mlx_lm import load


def answer(prompt):
    return load(prompt)
"""

CLI = """\
import argparse

from .model import answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt")
    args = parser.parse_args()
    print(answer(args.prompt))
"""

BY_HAND = """\
import mlx.core as mx


def answer(q, k, v):
    weights = mx.softmax(q @ k.T, axis=-1)
    return weights @ v, weights
"""

SCRIPTS = '[project]\nname = "bot"\n\n[project.scripts]\nbot = "{}"\n'

OWN_MODEL = """\
import mlx.core as mx
import mlx.nn as nn


class Model(nn.Module):
    def __call__(self, q):
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0)


def load(path):
    model = Model()
    model.load_weights(path)
    return model
"""
