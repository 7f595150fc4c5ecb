"""The CPU kernel as an operation of MLX: layouts, streams, threads, compiled functions. Its
numbers are those of test_runtime_attention.py, its derivatives those of
test_runtime_transforms.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import mlx.core as mx
import pytest
from attention_cases import Case, make, runner
from backends import cpu_only

from mlx_flash_runtime.problem.masks import window_mask
from mlx_flash_runtime.routes import cpu_kernel, reference

pytestmark = cpu_only


def attend(*arrays: mx.array, mask: Any = None) -> mx.array:
    return runner(cpu_kernel, None)(*arrays, scale=0.25, mask=mask)


def wanted(*arrays: mx.array, mask: Any = None) -> mx.array:
    return runner(reference, None)(*arrays, scale=0.25, mask=mask)


def close(x: mx.array, y: mx.array) -> bool:
    return bool(mx.allclose(x, y, rtol=1e-5, atol=1e-5))


Q, K, V = make(Case(40, 40, heads=4, batch=2), mx.float32).primals
LAYOUTS = {
    "heads last": lambda x: mx.swapaxes(mx.contiguous(mx.swapaxes(x, 1, 2)), 1, 2),
    "transposed": lambda x: mx.swapaxes(mx.contiguous(mx.swapaxes(x, 2, 3)), 2, 3),
    "reversed": lambda x: x[:, :, ::-1],
    "reversed elements": lambda x: x[..., ::-1],
    "every second": lambda x: mx.repeat(x, 2, axis=2)[:, :, 1::2],
    "part of a cache": lambda x: mx.pad(x, [(0, 0), (0, 0), (3, 200), (0, 0)])[:, :, 3:43],
    "one batch for all": lambda x: mx.broadcast_to(x[:1], x.shape),
    "one row for all": lambda x: mx.broadcast_to(x[:, :, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_any_layout(layout: Any, dtype: mx.Dtype) -> None:
    q, k, v = (x.astype(dtype) for x in (Q, K, V))
    mx.eval(q, k, v)

    def outputs(attention: Any) -> list[mx.array]:
        def function(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return layout(attention(layout(q), layout(k), layout(v), mask="causal"))

        out, gradients = mx.vjp(function, [q, k, v], [layout(q)])
        return [*out, *gradients]

    rounding = 1e-5 if dtype == mx.float32 else 2e-2
    own, other = outputs(attend), outputs(wanted)
    # Where all keys are one, gradients are sums that cancel: of terms as large as the largest
    # answer.
    size = max(mx.abs(x).max().item() for x in other)
    for x, y in zip(own, other, strict=True):
        assert mx.allclose(x, y, rtol=rounding, atol=rounding * size)


@pytest.mark.parametrize("layout", ["as made", "columns strided"])
def test_blocks_of_a_bool_mask_that_show_everything_or_nothing(layout: str) -> None:
    q, k, v = (
        mx.random.normal((3, heads, 300, 16), key=mx.random.key(i))
        for i, heads in enumerate((4, 2, 2))
    )
    positions = mx.arange(300)
    # Left padding, up to whole blocks of it: its own queries see no key at all.
    mask = (positions[:, None] >= positions) & (
        positions >= mx.array([0, 70, 299])[:, None, None, None]
    )
    if layout == "columns strided":
        mask = mx.repeat(mask, 2, axis=3)[..., ::2]
    mx.eval(mask)

    def outputs(attention: Any) -> list[mx.array]:
        out, gradients = mx.vjp(lambda *x: attention(*x, mask=mask), [q, k, v], [mx.cos(q)])
        return [*out, *gradients]

    for x, y in zip(outputs(attend), outputs(wanted), strict=True):
        assert mx.allclose(x, y, rtol=1e-4, atol=1e-4)


def test_a_cache_is_not_copied() -> None:
    cache = mx.zeros((1, 8, 8192, 64))
    q = mx.zeros((1, 8, 1, 64))
    mx.eval(cache, q)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(attend(q, cache[:, :, :8000], cache[:, :, 100:8100]))
    assert mx.get_peak_memory() - before < cache.nbytes / 100


def test_inputs_stay_as_they_are() -> None:
    kept = [mx.array(x) for x in (Q, K, V)]
    mx.eval(kept)
    # Temporaries, which MLX's own operations could write their result into.
    out, gradients = mx.vjp(lambda *x: attend(*x), [x + 0 for x in (Q, K, V)], [Q + 0])
    mx.eval(out, gradients)
    assert all(mx.array_equal(x, y) for x, y in zip(kept, (Q, K, V), strict=True))
    assert close(out[0], wanted(*kept))


def test_inputs_live_until_they_are_read() -> None:
    expected = wanted(Q, K, V)
    mx.eval(expected)
    outs = []
    for _ in range(20):
        inputs = [mx.array(x) for x in (Q, K, V)]
        outs.append(attend(*inputs))
        mx.async_eval(outs[-1])
        del inputs
        mx.async_eval(mx.random.normal((2, 4, 40, 16)))  # would take their memory
    assert all(close(out, expected) for out in outs)


def test_streams_wait_for_each_other() -> None:
    streams = [mx.new_stream(mx.cpu) for _ in range(2)]
    out = Q
    for step in range(6):
        with mx.stream(streams[step % 2]):
            out = attend(out, K, V, mask="causal")
    other = Q
    for _ in range(6):
        other = wanted(other, K, V, mask="causal")
    assert close(out, other)


@pytest.mark.parametrize("length", [40, 100], ids=["alone", "by the pool"])
def test_threads_at_once(length: int) -> None:
    q, k, v = make(Case(length, length, heads=4, batch=2), mx.float32).primals
    expected = wanted(q, k, v, mask="causal")
    mx.eval(expected)
    right: list[bool] = []

    def work() -> None:
        with mx.stream(mx.new_stream(mx.cpu)):
            right.extend(close(attend(q, k, v, mask="causal"), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80


@pytest.mark.parametrize("mask", [None, "causal"])
def test_compiled_for_any_shape(mask: Any) -> None:
    compiled = mx.compile(lambda q, k, v: attend(q, k, v, mask=mask), shapeless=True)
    for queries, keys in ((40, 40), (1, 40), (7, 30)):
        inputs = Q[:, :, :queries], K[:, :, :keys], V[:, :, :keys]
        assert close(compiled(*inputs), wanted(*inputs, mask=mask))


def other_shapes() -> list[tuple[int, tuple[int, ...]]]:
    """Which of q, k, v, mask and sinks has a shape that does not fit the others, and that shape."""
    fitting = [Q.shape, K.shape, V.shape, (2, 4, 40, 40), (4,)]
    found = []
    for index, shape in enumerate(fitting):
        for axis, size in enumerate(shape):
            is_free = index == 2 and axis == 3  # the head dim of the values
            changes = () if is_free else (size + 3, size - 1)
            found += [(index, (*shape[:axis], to, *shape[axis + 1 :])) for to in changes if to > 1]
    return found


@pytest.mark.parametrize("with_gradient", [False, True])
def test_compiled_for_any_shape_it_takes_none_that_does_not_fit(with_gradient: bool) -> None:
    def loss(q: mx.array, k: mx.array, v: mx.array, mask: mx.array, sinks: mx.array) -> mx.array:
        run = runner(cpu_kernel, None)
        return run(q, k, v, scale=0.25, mask=mask, sinks=sinks).sum()

    right = [Q, K, V, mx.zeros((2, 4, 40, 40)), mx.zeros((4,))]
    for index, shape in other_shapes():
        compiled = mx.compile(mx.grad(loss) if with_gradient else loss, shapeless=True)
        mx.eval(compiled(*right))
        wrong = [*right[:index], mx.zeros(shape), *right[index + 1 :]]
        with pytest.raises(ValueError, match="FlashAttention"):
            mx.eval(compiled(*wrong))


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("additive", [False, True])
def test_compiled_for_a_mask_of_any_shape(additive: bool, axes: int) -> None:
    """And for its gradients, also of an additive mask."""

    def gradients(q: mx.array, k: mx.array, v: mx.array, mask: mx.array) -> Any:
        wrt = (0, 1, 2, 3) if additive else (0, 1, 2)
        return mx.grad(lambda *inputs: mx.sin(attend(*inputs[:3], mask=inputs[3])).sum(), wrt)(
            q, k, v, mask
        )

    compiled = mx.compile(gradients, shapeless=True)
    for queries, keys in ((40, 40), (7, 30)):
        inputs = Q[:, :, :queries], K[:, :, :keys], V[:, :, :keys]
        mask = mx.random.normal((1, 1, queries, keys)[-axes:], key=mx.random.key(axes))
        mask = mask if additive else mask < 1
        for one, other in zip(compiled(*inputs, mask), gradients(*inputs, mask), strict=True):
            assert one.shape == other.shape
            assert close(one, other)


def test_compiled_calls_that_differ_are_not_one() -> None:
    def both(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        dense, causal, again = (attend(q, k, v, mask=mask) for mask in (None, "causal", "causal"))
        return mx.stack([dense, causal, again])

    dense, causal, again = mx.compile(both)(Q, K, V)
    assert mx.array_equal(causal, again)
    assert close(dense, wanted(Q, K, V))
    assert close(causal, wanted(Q, K, V, mask="causal"))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("mask", [None, "causal", "window", "bool"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_reply_is_the_same_in_every_batch(groups: int, mask: Any, dtype: mx.Dtype) -> None:
    """To the last bit, as MLX's is, and for a head alone as among others: keys are cut by the
    lengths."""
    for queries, keys in ((1, 300), (1, 1000), (3, 2500), (70, 900), (300, 300), (400, 1100)):
        call = make(
            Case(queries, keys, heads=2 * groups, head_dim=32, value_head_dim=24, batch=5), dtype
        )
        q, k, v = call.primals
        given = mask
        if mask == "window":
            given = window_mask(queries, 130, keys)
        elif mask == "bool":
            given = mx.random.uniform(shape=(queries, keys), key=mx.random.key(1)) < 0.5
        batched = attend(q, k, v, mask=given)
        single = [attend(q[i : i + 1], k[i : i + 1], v[i : i + 1], mask=given) for i in range(5)]
        assert mx.array_equal(batched, mx.concatenate(single))
        head = attend(q[:1, :groups], k[:1, :1], v[:1, :1], mask=given)
        assert mx.array_equal(batched[:1, :groups], head)


SHORT = """
import resource
import mlx.core as mx
from mlx_flash_runtime import flash_attention, report
gradient = mx.grad(lambda x: flash_attention(x, x, x, scale=0.1).sum())
x = mx.random.normal((4096, 8, 3, 32))
mx.eval(gradient(x[:1]), x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mx.eval(gradient(x))
print(*report().as_dict()["routes"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in KiB")
def test_gradients_of_many_short_sequences_take_no_memory_by_the_lanes() -> None:
    """A whole tile of queries for each head would be 256 MiB. The arrays at hand are of 12 MiB
    each."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT], capture_output=True, text=True, timeout=120, check=True
    )
    route, more = done.stdout.split()
    assert route == "cpu_kernel"
    assert int(more) * 1024 < 128 * 2**20
