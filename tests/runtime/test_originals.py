"""Copies of mlx-lm's functions in other modules: known by what they are, patched when they are
loaded, put back, and left alone where they do something else."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import pytest
from arithmetic import agree
from mlx_lm.models import base, gear, gemma2

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention, report
from mlx_flash_runtime.patching import originals
from mlx_flash_runtime.planning.machine import current_device
from mlx_flash_runtime.problem.masks import Causal, Window, structure_of

HEAD = "from typing import Any, Optional, Union\nimport mlx.core as mx\nimport mlx.nn as nn\n"
HEAD += "from mlx.utils import tree_map\n"
MASKS = inspect.getsource(base.create_causal_mask)
ADDITIVE = """
def create_additive_causal_mask(N: int, offset: int = 0):
    queries, keys = mx.arange(offset, offset + N), mx.arange(offset + N)
    return (queries[:, None] < keys[None]) * -1e9
"""
COPIES = {
    "masks": MASKS,
    "additive masks": ADDITIVE,
    "masks written otherwise": """
def create_causal_mask(N, offset=0, window_size=None):
    queries, keys = mx.arange(offset, offset + N)[:, None], mx.arange(offset + N)[None]
    seen = keys <= queries
    return seen if window_size is None else seen & (queries - keys < window_size)
""",
    "quantized": inspect.getsource(base.quantized_scaled_dot_product_attention),
    "softcap": inspect.getsource(gear._repeat_kv) + inspect.getsource(gear._softcap_attention),
    "gemma2": inspect.getsource(gemma2.Attention).replace("args: ModelArgs", "args"),
}
OTHERS = {
    "one key more in the window": MASKS.replace("linds < rinds", "linds <= rinds"),
    "an additive mask": MASKS.replace("    return mask\n", "    return mask * 1e9\n"),
    "additive masks of the future": ADDITIVE.replace("<", ">"),
    "additive masks that hide little": ADDITIVE.replace("-1e9", "-1.0"),
    "another shape": MASKS.replace("linds[:, None]", "linds[None]"),
    "no scale": COPIES["quantized"].replace("queries *= scale", "pass"),
    "no tanh": COPIES["softcap"].replace("mx.tanh(scores / softcap) * softcap", "scores"),
    "other attributes": COPIES["gemma2"].replace("self.repeats", "self.groups"),
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module with that text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(originals, "unrecognised", {})

    def load(text: str) -> ModuleType:
        (tmp_path / "my_model.py").write_text(HEAD + text, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "my_model", raising=False)
        return importlib.import_module("my_model")

    return load


def found_in(module: ModuleType) -> originals.Found:
    """The one function of a module that looks like an original."""
    [found] = originals.found_in(module)
    return found


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_recognised(copy: str, load: Callable[[str], ModuleType]) -> None:
    assert originals.held(found_in(load(COPIES[copy])))()
    assert originals.unrecognised == {}


@pytest.mark.parametrize("other", OTHERS)
def test_what_does_something_else_is_not(other: str, load: Callable[[str], ModuleType]) -> None:
    found = found_in(load(OTHERS[other]))
    assert not originals.held(found)()
    assert list(originals.unrecognised) == [".".join(("my_model", *found.original.path))]


@pytest.mark.parametrize("is_loaded_first", [True, False])
def test_a_copy_is_patched_when_loaded_and_put_back(
    is_loaded_first: bool, load: Callable[[str], ModuleType]
) -> None:
    if not is_loaded_first:
        enable_flash_attention()
    module = load(MASKS + "bound = create_causal_mask\n")
    enable_flash_attention()
    assert structure_of(module.create_causal_mask(8), 8, 8) == Causal()
    assert structure_of(module.create_causal_mask(4, 4, 3), 4, 8) == Window(3)
    assert module.bound is module.create_causal_mask
    disable_flash_attention()
    assert not hasattr(module.create_causal_mask, "__wrapped__")
    assert module.bound is module.create_causal_mask


def test_what_does_something_else_runs_as_it_is_and_the_report_says_so(
    load: Callable[[str], ModuleType],
) -> None:
    other = OTHERS["one key more in the window"]
    wanted = load(other).create_causal_mask(8, window_size=3)
    enable_flash_attention()
    module = load(other)
    assert report().as_dict()["unrecognised"] == []  # it was not used yet
    for _ in range(2):
        mask = module.create_causal_mask(8, window_size=3)
        assert type(mask) is mx.array
        assert mx.array_equal(mask, wanted)
    assert report().as_dict()["unrecognised"] == ["my_model.create_causal_mask"]
    assert str(report()).count("left as it is: my_model.create_causal_mask") == 0  # without calls
    q = mx.zeros((1, 1, 8, 16))
    mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0, mask=mask)
    assert str(report()).count("left as it is: my_model.create_causal_mask") == 1


def test_a_copy_that_is_first_called_where_mlx_traces(load: Callable[[str], ModuleType]) -> None:
    def attend(q: mx.array) -> mx.array:
        mask = module.create_causal_mask(8, window_size=3)
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=1.0, mask=mask)

    q = mx.random.normal((2, 1, 1, 8, 16), key=mx.random.key(0))
    for transform in (mx.compile, mx.vmap, lambda f: mx.grad(lambda q: f(q).sum())):
        module = load(MASKS)
        wanted = transform(attend)(q[0] if transform is not mx.vmap else q)
        enable_flash_attention()
        module = load(MASKS)
        own = transform(attend)(q[0] if transform is not mx.vmap else q)
        assert agree(own, wanted, rtol=1e-4, atol=1e-5)
        assert originals.unrecognised == {}
        disable_flash_attention()


def test_random_numbers_stay_what_they_would_be(load: Callable[[str], ModuleType]) -> None:
    found = found_in(load(COPIES["quantized"]))
    mx.random.seed(5)
    wanted = mx.random.uniform()
    mx.random.seed(5)
    assert originals.held(found)()
    assert mx.array_equal(mx.random.uniform(), wanted)


@pytest.mark.skipif(
    current_device().backend == "cuda", reason="CUDA, which MLX keeps arrays in, survives no fork"
)
def test_a_fork_before_the_first_call_is_safe() -> None:
    # In a process of its own, whose MLX has computed nothing.
    code = """
import os
from mlx_flash_runtime import enable_flash_attention
enable_flash_attention()
from mlx_lm.models import base
child = os.fork()
if child == 0:
    print(base.create_causal_mask(4).tolist()[0], flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(base.create_causal_mask(4).tolist()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[True, False, False, False]\n" * 2
