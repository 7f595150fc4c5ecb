"""`mlx-flash plan` follows what MLX does with memory: where arrays lie, what is written over, what
is compiled; and needs on an H200 what MLX measured there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models import base, llama
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_flash_runtime.problem import Device
from mlx_flash_runtime.settings import resolve
from mlx_flash_runtime.tools.bench.models import config_of
from mlx_flash_runtime.tools.memory.compiled import Pieces, marking
from mlx_flash_runtime.tools.memory.evaluation import in_order, peak
from mlx_flash_runtime.tools.memory.graph import Graph, filled_apart, trace
from mlx_flash_runtime.tools.memory.in_place import in_place
from mlx_flash_runtime.tools.memory.layouts import Layout, reshaped, rows, viewed
from mlx_flash_runtime.tools.memory.steps import Steps

ROOT = Path(__file__).resolve().parents[2]
H200 = Device("cuda", (9, 0), 141 << 30, own_kernel=True)
# The peak of a prompt in MiB, stock and with the runtime, as MLX 0.32.4 measured it on an H200 for
# the models of benchmarks/plan.py.
MEASURED = {
    "llama": (624.1, 624.1),
    "llama, one step": (788.1, 788.1),
    "qwen3": (836.1, 836.1),
    "gemma3": (2080.0, 956.1),
}
# The peak of a step of training Llama 3.2 1B on a row of so many tokens, in MiB, stock and with the
# runtime, as `mlx-flash bench workflow` found it there.
TRAINED = {("lora", 2000): (8713, 8585), ("full", 8100): (47730, 31050)}

VIEWS = {
    "swapped": lambda x: mx.swapaxes(x, 1, 2),
    "moved": lambda x: mx.moveaxis(x, 0, -1),
    "first": lambda x: x[:, :1],
    "every other": lambda x: x[:, ::2],
    "repeated": lambda x: mx.broadcast_to(x[:, :1], x.shape),
    "expanded": lambda x: mx.expand_dims(x, 2)[:, :, 0],
    "heads": lambda x: mx.unflatten(x, -1, (1, x.shape[-1])).squeeze(-2),
    "in two": lambda x: x.reshape(x.shape[0], -1, 1) if x.size else x,
    "in one": lambda x: mx.flatten(x).reshape(1, 1, -1),
    "parts": lambda x: mx.split(x, x.shape[0], 0)[-1],
}


def layouts_of(graph: Graph) -> dict[str, Layout]:
    """Of every array of a graph of views, starting with rows."""
    found = {name: rows(graph.shapes[name]) for name in (*graph.inputs, *graph.constants)}
    for operation in graph.operations:
        seen = found[operation.inputs[0]]
        for output in operation.outputs:
            shape = graph.shapes[output]
            if operation.name in ("Reshape", "Flatten", "Unflatten"):
                found[output] = reshaped(seen, shape) or rows(shape)
            else:
                found[output] = viewed(operation.name, operation.arguments, seen, shape)
    return found


@given(st.lists(st.sampled_from(sorted(VIEWS)), max_size=6))
def test_arrays_lie_as_in_mlx(names: list[str]) -> None:
    def chain(x: mx.array) -> list[mx.array]:
        for name in names:
            x = VIEWS[name](x)
        return [x]

    x = mx.arange(2 * 4 * 6).reshape(2, 4, 6)
    graph = trace(chain, [x])
    layout = layouts_of(graph)[graph.outputs[0]]
    with mx.stream(mx.cpu):
        seen = chain(x)[0]
        mx.eval(seen)
    view = memoryview(seen)
    assert view.strides is not None
    apart = [stride // x.itemsize for stride in view.strides]
    several = [axis for axis, size in enumerate(seen.shape) if size > 1]
    assert layout.shape == seen.shape
    assert [layout.strides[axis] for axis in several] == [apart[axis] for axis in several]


def test_gaps_repeats_and_orders_are_told_apart() -> None:
    heads = Layout((1, 4, 8, 2), (64, 2, 8, 1))  # as a transposed product
    assert (heads.in_rows, heads.in_columns, heads.has_no_gaps, heads.span) == (0, 0, 1, 64)
    assert Layout((2, 3), (1, 2)).in_columns
    assert not Layout((2, 3), (4, 1)).has_no_gaps
    assert Layout((5, 3), (0, 1)).has_no_gaps


def names_in(function: Any, *shapes: tuple[int, ...]) -> list[str]:
    """The operations of a function in whose modules compiled ones are marked."""
    pieces = Pieces()
    with marking(pieces):
        graph = trace(function, [mx.zeros(shape) for shape in shapes])
    views = ("Broadcast", "Transpose", "Flatten", "Unflatten")
    graph = pieces.put_into(graph)
    made = {name for each in graph.operations for name in each.outputs}
    read = {name for each in graph.operations for name in each.inputs}
    assert read <= made | set(graph.inputs) | set(graph.constants)
    assert set(graph.outputs) <= made
    return [each.name for each in graph.operations if each.name not in views]


def test_a_compiled_function_is_one_operation() -> None:
    before = nn.silu
    names = names_in(lambda x, w: [nn.silu(x @ w), (nn.silu(x) + 1) @ w], (8, 8), (8, 8))
    assert sorted(names) == ["Add", "Compiled", "Compiled", "Matmul", "Matmul"]
    assert nn.silu is before


def test_a_long_compiled_function_is_several() -> None:
    assert names_in(lambda x: [nn.gelu_approx(x)], (8, 8)) == ["Power", "Compiled"]


def test_what_a_function_calls_is_compiled_with_it() -> None:
    assert names_in(lambda x: [nn.mish(x)], (8, 8))[-1] == "Compiled"


def test_arrays_filled_with_a_number_are_each_their_own() -> None:
    def grown(x: mx.array) -> list[mx.array]:
        return [mx.concatenate([x * number, mx.zeros((256, 64))]) for number in range(3)]

    graph = filled_apart(trace(grown, [mx.zeros((256, 64))]))
    assert [each.name for each in graph.operations].count("Full") == 3


def peak_on(backend: str, function: Any, *arrays: mx.array) -> int:
    """Of operations that MLX has kernels for, whose inputs are needed no more."""
    device = Device(backend, (9, 0) if backend == "cuda" else (0, 32, 4), 1 << 34)
    with in_place(device, None, training=False) as stand_ins:
        graph = stand_ins.put_into(trace(function, arrays))
    return peak(graph, graph.inputs, backend).most


def test_kernels_write_over_what_nobody_reads_any_more() -> None:
    x, weight = mx.zeros((1, 64, 8, 64)), mx.zeros(64)

    def rotated(x: mx.array, weight: mx.array) -> list[mx.array]:
        x = mx.swapaxes(mx.fast.rms_norm(x, weight, 1e-5), 1, 2)
        return [mx.fast.rope(x, 64, traditional=False, base=1e4, scale=1, offset=0)]

    small = weight.nbytes
    assert peak_on("cuda", rotated, x, weight) <= x.nbytes + small
    # On Metal what is rotated over itself lies in rows.
    assert peak_on("metal", rotated, x, weight) >= 2 * x.nbytes


def test_a_norm_copies_rows_that_are_apart() -> None:
    x, weight = mx.zeros((1, 64, 8, 64)), mx.zeros(64)

    def normed(x: mx.array, weight: mx.array) -> list[mx.array]:
        return [mx.fast.rms_norm(mx.swapaxes(x, 1, 2), weight, 1e-5)]

    assert peak_on("cuda", normed, x, weight) >= 2 * x.nbytes


def test_attention_lies_as_its_queries_do_and_needs_no_copy_for_the_heads() -> None:
    def heads(q: mx.array, k: mx.array) -> list[mx.array]:
        q, k = mx.swapaxes(q, 1, 2), mx.swapaxes(k, 1, 2)
        o = mx.fast.scaled_dot_product_attention(q, k, k, scale=1, mask="causal")
        return [mx.swapaxes(o, 1, 2).reshape(1, 256, -1)]

    x = mx.zeros((1, 256, 8, 64), mx.float16)
    assert peak_on("cuda", heads, x, x) == 3 * x.nbytes
    assert peak_on("metal", heads, x, x) == 3 * x.nbytes


def test_fused_attention_on_cuda_writes_a_bool_mask_as_numbers_twice() -> None:
    x, mask = mx.zeros((1, 8, 256, 64), mx.float16), mx.zeros((256, 256), mx.bool_)

    def attend(x: mx.array, mask: mx.array) -> list[mx.array]:
        return [mx.fast.scaled_dot_product_attention(x, x, x, scale=1, mask=mask)]

    scores = 8 * 256 * 256 * 2
    assert peak_on("cuda", attend, x, mask) == 2 * x.nbytes + mask.nbytes + 2 * scores
    assert peak_on("metal", attend, x, mask) == 2 * x.nbytes + mask.nbytes


def test_the_mask_of_a_window_is_not_computed_for_a_route_that_knows_it() -> None:
    x = mx.zeros((1, 8, 2048, 64), mx.float16)

    def attend(x: mx.array) -> list[mx.array]:
        mask = base.create_causal_mask(2048, 0, window_size=64)
        return [mx.fast.scaled_dot_product_attention(x, x, x, scale=1, mask=mask)]

    with in_place(H200, resolve(True, None), training=False) as stand_ins:
        graph = stand_ins.put_into(trace(attend, [x]))
    assert peak(graph, graph.inputs, "cuda").most == 2 * x.nbytes


def test_a_concatenation_on_cuda_is_a_node_for_each_part_and_one_more() -> None:
    x = mx.zeros((256, 64))

    def rotated(x: mx.array) -> list[mx.array]:
        for _ in range(800):
            x = mx.concatenate([x[1:], x[:1]])
        return [x]

    # MLX waits once more than ten tasks of 101 nodes are on their way: eleven, of 34 each.
    assert peak_on("cuda", rotated, x) == pytest.approx(11 * 34 * x.nbytes, rel=0.01)


def test_the_gradient_of_a_loss_that_mlx_does_not_export() -> None:
    def step(x: mx.array, w: mx.array, classes: mx.array) -> list[mx.array]:
        loss = mx.value_and_grad(lambda w: mx.mean(mx.fast.cross_entropy(x @ w, classes)))
        return list(loss(w))

    arrays = [mx.zeros((2, 16, 8)), mx.zeros((8, 64)), mx.zeros((2, 16), mx.int32)]
    own = mx.fast.cross_entropy
    with in_place(H200, None, training=True) as stand_ins:
        graph = stand_ins.put_into(trace(step, arrays))
    names = [each.name for each in graph.operations]
    assert mx.fast.cross_entropy is own
    assert names.count("CrossEntropy") == 1
    assert names.index("CrossEntropy") < names.index("CrossEntropyVJP")


def order_in_training(length: int) -> list[str]:
    """The names of the operations of attention's gradient, as MLX evaluates them on an H200."""
    x = mx.zeros((1, 8, length, 64), mx.float16)

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        o = mx.fast.scaled_dot_product_attention(q, k, v, scale=1, mask="causal")
        return mx.mean(mx.square(o))

    def step(*arrays: mx.array) -> list[mx.array]:
        loss, gradients = mx.value_and_grad(attend, argnums=(0, 1, 2))(*arrays)
        return [loss, *gradients]

    with in_place(H200, None, training=True) as stand_ins:
        graph = stand_ins.put_into(trace(step, [x, x, x]))
    made = {name for each in graph.operations for name in each.outputs}
    read = {name for each in graph.operations for name in each.inputs}
    assert read <= made | set(graph.inputs) | set(graph.constants)
    return [each.name for each in in_order(graph)]


def test_a_gradient_that_mlx_fuses_has_no_scores() -> None:
    names = order_in_training(1024)
    assert names.count("ScaledDotProductAttentionVJP") == 1
    assert "Softmax" not in names


def test_a_gradient_that_mlx_does_not_fuse_computes_the_scores_again() -> None:
    names = order_in_training(1000)
    assert names.count("ScaledDotProductAttention") == names.count("Softmax") == 1
    assert names.index("ScaledDotProductAttention") < names.index("Softmax")


def test_the_gradient_of_a_rotation_is_the_other_rotation_of_what_comes_to_it() -> None:
    def step(x: mx.array) -> list[mx.array]:
        def rotated(x: mx.array) -> mx.array:
            return mx.fast.rope(x, 64, traditional=False, base=1e4, scale=1, offset=0)

        outputs, gradients = mx.vjp(rotated, [x], [mx.exp(x)])
        return [*outputs, *gradients]

    x = mx.zeros((1, 8, 64, 64))
    # What is rotated, the outcome, and the exponentials, over which the gradient is written.
    assert peak_on("cuda", step, x) == 3 * x.nbytes


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_an_h200_needs_what_mlx_measured_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import plan

    case = plan.larger(next(case for case in plan.CASES if case.name == name))
    for settings, measured in zip((None, resolve(True, None)), MEASURED[name], strict=True):
        need = Steps(plan.module_of(case), H200, settings).generation(case.length, 1, case.how)
        assert plan.mebibytes(need.total) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("kind", "length"), sorted(TRAINED))
def test_training_on_an_h200_needs_what_mlx_measured_there(kind: str, length: int) -> None:
    config = config_of("1b", "llama")
    module = llama.Model(llama.ModelArgs.from_dict(config))
    module.set_dtype(mx.bfloat16)
    if kind == "lora":
        module.freeze()
        linear_to_lora_layers(module, 16, {"rank": 8, "scale": 20.0, "dropout": 0.0})
    for settings, measured in zip((None, resolve(True, None)), TRAINED[kind, length], strict=True):
        need = Steps(module, H200, settings).training(length, 1)
        least, most = need.least / 2**20, need.total / 2**20
        if kind == "full":  # a GPU has more to do with it than a processor with describing it
            assert most == pytest.approx(measured, rel=0.03)
        assert least <= measured <= 1.03 * most
