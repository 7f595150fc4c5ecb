"""The calls that `routes.py` measures: where MLX has no fused attention, not of this form, or one
that must stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import base, deepseek_v3

from mlx_flash_runtime.ops import written_out
from mlx_flash_runtime.problem import Problem
from mlx_flash_runtime.problem.masks import packed_mask, prefix_mask, window_mask
from mlx_flash_runtime.tools.bench.inputs import make_inputs
from mlx_flash_runtime.tools.bench.timing import chained

# Calls, each after the one before; the results of the last.
Run = Callable[[int], Any]


@dataclass
class Case:
    """What is measured: `attend` on `arrays`, with `stock_arguments` on stock; `arguments` makes
    ours anew, as a model makes its mask for every forward pass. `reference` is the candidate that
    results are held against."""

    name: str
    attend: Callable[..., mx.array]
    arrays: list[mx.array]
    plain: Callable[..., mx.array] | None = None
    training: bool = False
    stock_arguments: dict[str, Any] = field(default_factory=dict)
    arguments: Callable[[], dict[str, Any]] = dict
    reference: str = "stock"

    def run(
        self, function: Callable[..., mx.array], arguments: Callable[[], dict[str, Any]]
    ) -> Run:
        """Calls of the function, or gradients of all arrays."""
        first, *others = self.arrays

        def call(x: mx.array) -> Sequence[mx.array]:
            own = arguments()
            if not self.training:
                return [function(x, *others, **own)]

            def loss(*arrays: mx.array) -> mx.array:
                return function(*arrays, **own).astype(mx.float32).square().sum()

            return mx.grad(loss, argnums=list(range(len(self.arrays))))(x, *others)

        return lambda calls: chained(call, first, calls)


def attention(q: mx.array, k: mx.array, v: mx.array, **arguments: Any) -> mx.array:
    """MLX's function, whichever is in its place."""
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, **arguments)


def plain(q: mx.array, k: mx.array, v: mx.array, mask: Any = None) -> mx.array:
    """softmax(Q K^T + mask) V in MLX operations, as it is written by hand."""
    return written_out.attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)


def qkv(
    length: int,
    dim: int,
    heads: int = 16,
    key_heads: int = 4,
    dtype: str = "bfloat16",
) -> list[mx.array]:
    made = make_inputs(Problem(1, heads, key_heads, length, length, dim, dim, dtype=dtype))
    return [made.q, made.k, made.v]


def chunk() -> list[mx.array]:
    """Of a prompt's chunk of 2,048 tokens on a rotating cache that keeps 1,024."""
    q, _, _ = qkv(2048, 128)
    _, k, v = qkv(3071, 128)
    return [q, k, v]


def token() -> list[mx.array]:
    """Of one token after 8,191."""
    q, _, _ = qkv(1, 80)
    _, k, v = qkv(8192, 80)
    return [q, k, v]


def numbers() -> mx.array:
    """The causal mask that MLX's own layers are given."""
    return nn.MultiHeadAttention.create_additive_causal_mask(4096, mx.bfloat16)


def masked(
    name: str,
    arrays: list[mx.array],
    make: Callable[[], Any],
    training: bool = False,
) -> Case:
    """Stock with the mask as an array, ours with the same array where it is made by someone who
    knows what it says."""
    stock = make()
    if isinstance(stock, mx.array):
        stock = mx.array(stock)  # the same elements, of unknown origin
        mx.eval(stock)
    return Case(name, attention, arrays, plain, training, {"mask": stock}, lambda: {"mask": make()})


Make = Callable[[str], Case]


def cases() -> Iterator[tuple[str, Make]]:
    """By name, each made only when its turn comes."""
    for length in (100, 1000, 8100):
        yield f"length {length}, D 64, training", causal(length, 64, 16, 8, training=True)
    for length in (1024, 4096):
        yield f"head dim 36, length {length}", causal(length, 36)
    for training in (False, True):
        for name, make in in_both_phases():
            yield _in_phase(name, training), partial(make, training=training)
    for length in (512, 1024, 4096):
        for training in (False, True):
            name = _in_phase(f"fused in MLX, D 128, length {length}", training)
            yield name, causal(length, 128, training=training)
    window = structured(partial(qkv, 8192, 256, 8, 4), partial(window_mask, 8192, 512))
    yield "window 512 of 8192, D 256", window
    yield (
        "2048 queries on a window of 1024, D 128",
        structured(chunk, partial(window_mask, 2048, 1024, 3071)),
    )
    yield (
        "1 query on a window of 1024 of 8192, D 80",
        structured(token, partial(window_mask, 1, 1024, 8192)),
    )
    yield "sinks that are trained, length 2048", sinks
    for bits in (4, 8):
        name = f"quantized keys, {bits} bits, 2048 queries on 32768 keys"
        yield name, partial(quantized, bits=bits)


def _in_phase(name: str, training: bool) -> str:
    return f"{name}, training" if training else name


def causal(
    length: int,
    dim: int,
    heads: int = 16,
    key_heads: int = 4,
    dtype: str = "bfloat16",
    training: bool = False,
) -> Callable[..., Case]:
    """The case of MLX's word for the mask."""

    def make(name: str, training: bool = training) -> Case:
        arrays = qkv(length, dim, heads, key_heads, dtype)
        return masked(name, arrays, lambda: "causal", training)

    return make


def structured(
    arrays: Callable[[], list[mx.array]], mask: Callable[[], mx.array]
) -> Callable[..., Case]:
    """The case of a mask that is an array of known structure."""
    return lambda name, training=False: masked(name, arrays(), mask, training)


def in_both_phases() -> Iterator[tuple[str, Callable[..., Case]]]:
    """The cases that are measured in inference and in training."""
    for name, arrays, mask in (
        (
            "window 1024 of 16384, D 128",
            partial(qkv, 16384, 128, 16, 16),
            partial(window_mask, 16384, 1024),
        ),
        ("window 512 of 4096, D 64", partial(qkv, 4096, 64), partial(window_mask, 4096, 512)),
        ("8 documents of 1024, D 128", partial(qkv, 8192, 128), partial(packed_mask, [1024] * 8)),
        ("prefix 1024 of 8192, D 128", partial(qkv, 8192, 128), partial(prefix_mask, 8192, 1024)),
    ):
        yield name, structured(arrays, mask)
    yield "causal mask as numbers, D 128, length 4096", structured(partial(qkv, 4096, 128), numbers)
    yield (
        "bool mask, length 8192, D 128",
        lambda name, training: unknown(name, qkv(8192, 128), training),
    )
    for length in (8192, 2048):
        yield f"causal, D 256, length {length}", causal(length, 256, 8, 4)
    yield "causal, float32, D 64, length 8192", causal(8192, 64, 16, 8, "float32")
    yield "MLA, 16 heads, length 4096", lambda name, training: latent(name, 4096, training)


def unknown(name: str, arrays: list[mx.array], training: bool) -> Case:
    """A bool mask that nobody knows the structure of: left padding of four rows."""
    length = arrays[0].shape[2]
    mask = mx.tril(mx.ones((length, length), mx.bool_)) & (mx.arange(length) >= 3)
    mx.eval(mask)
    return Case(name, attention, arrays, plain, training, {"mask": mask}, lambda: {"mask": mask})


def sinks(name: str) -> Case:
    problem = Problem(1, 64, 8, 2048, 2048, 64, 64, dtype="bfloat16", mask="causal", sinks=True)
    made = make_inputs(problem)
    assert made.sinks is not None

    def attend(q: mx.array, k: mx.array, v: mx.array, s: mx.array, **_: Any) -> mx.array:
        return attention(q, k, v, sinks=s, mask="causal")

    return Case(name, attend, [made.q, made.k, made.v, made.sinks], training=True)


def latent(name: str, length: int, training: bool) -> Case:
    """The attention layer of DeepSeek V3, with fewer heads."""
    layer = deepseek_v3.DeepseekV3Attention(
        deepseek_v3.ModelArgs(
            hidden_size=1024, num_attention_heads=16, num_key_value_heads=16, q_lora_rank=256
        )
    )
    layer.set_dtype(mx.bfloat16)
    x = mx.random.normal((1, length, 1024)).astype(mx.bfloat16)
    mx.eval(x, layer.parameters())

    def attend(x: mx.array) -> mx.array:
        return layer(x, mask=base.create_attention_mask(x, return_array=True))

    return Case(name, attend, [x], training=training)


def quantized(name: str, bits: int) -> Case:
    """Plain is MLX's attention on keys and values that are dequantized as a whole."""
    q, _, _ = qkv(2048, 128)
    _, k, v = qkv(32768, 128)
    packed = [mx.quantize(x, group_size=64, bits=bits) for x in (k, v)]
    mx.eval(packed)

    def attend(q: mx.array) -> mx.array:
        return base.quantized_scaled_dot_product_attention(
            q + 0, *packed, scale=128**-0.5, mask="causal", group_size=64, bits=bits
        )

    def of_whole(q: mx.array) -> mx.array:
        k, v = (mx.dequantize(*x, group_size=64, bits=bits) for x in packed)
        return attention(q, k, v, mask="causal")

    # On CUDA, stock takes the keys of the first head for all: `quantized.py`.
    return Case(name, attend, [q], of_whole, reference="plain")
