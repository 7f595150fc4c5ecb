"""Other packages that put a function of theirs in the place of MLX's: whoever is on is called,
once, in whatever order they and we are put on and taken off."""

from __future__ import annotations

import functools
import itertools
import operator
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mlx_flash_runtime import disable_flash_attention, enable_flash_attention, report
from mlx_flash_runtime.planning import layers

NAME = "scaled_dot_product_attention"
STOCK = (mx.fast.scaled_dot_product_attention,)


class Other:
    """A package that wraps the function it finds, and puts that back when it is taken off."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_on = False

    def toggle(self) -> None:
        if self.is_on:
            setattr(mx.fast, NAME, self.found())
        else:
            setattr(mx.fast, NAME, self.around(getattr(mx.fast, NAME)))
        self.is_on = not self.is_on

    def around(self, function: Any) -> Any:
        raise NotImplementedError

    def found(self) -> Any:
        raise NotImplementedError


class Closure(Other):
    def around(self, function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> mx.array:
            self.calls += 1
            return function(*args, **kwargs)  # type: ignore[no-any-return]

        self.found = lambda: function  # type: ignore[method-assign]
        return wrapper


class Decorator(Closure):
    """Which tells what it wraps."""

    def around(self, function: Any) -> Any:
        return functools.wraps(STOCK[0])(super().around(function))


class Attribute(Other):
    """A method of an object that keeps the function as an attribute."""

    def around(self, function: Any) -> Any:
        self.original = function
        return self.call

    def call(self, *args: Any, **kwargs: Any) -> mx.array:
        self.calls += 1
        return self.original(*args, **kwargs)  # type: ignore[no-any-return]

    def found(self) -> Any:
        return self.original


class Callable_(Attribute):
    """An object that is called itself."""

    def around(self, function: Any) -> Any:
        self.original = function
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self.call(*args, **kwargs)


class Default(Attribute):
    """A default argument, and the way back in a list of undos, as pytest's monkeypatch."""

    def around(self, function: Any) -> Any:
        def wrapper(*args: Any, _original: Any = function, **kwargs: Any) -> mx.array:
            self.calls += 1
            return _original(*args, **kwargs)  # type: ignore[no-any-return]

        self.undo = [(mx.fast, NAME, function)]
        return wrapper

    def found(self) -> Any:
        return self.undo.pop()[2]


class Partial(Default):
    def around(self, function: Any) -> Any:
        super().around(function)
        return functools.partial(self.counted, function)

    def counted(self, function: Any, *args: Any, **kwargs: Any) -> mx.array:
        self.calls += 1
        return function(*args, **kwargs)  # type: ignore[no-any-return]


class Global(Other):
    """A module with a global variable."""

    SOURCE = (
        "def call(*args, **kwargs):\n    other.calls += 1\n    return original(*args, **kwargs)"
    )

    def around(self, function: Any) -> Any:
        self.module = ModuleType(f"a_profiler_{id(self)}")
        sys.modules[self.module.__name__] = self.module
        self.module.__dict__.update(other=self, original=function)
        exec(self.SOURCE, self.module.__dict__)
        return self.module.__dict__["call"]

    def found(self) -> Any:
        del sys.modules[self.module.__name__]
        return self.module.__dict__["original"]


class ClassVariable(Other):
    """A class that is never made an object of."""

    def around(self, function: Any) -> Any:
        class Tracer:
            original = function
            other = self

            @classmethod
            def call(cls, *args: Any, **kwargs: Any) -> mx.array:
                cls.other.calls += 1
                return cls.original(*args, **kwargs)  # type: ignore[no-any-return]

        self.tracer = Tracer
        return Tracer.call

    def found(self) -> Any:
        return self.tracer.__dict__["original"]


KINDS = [Closure, Decorator, Attribute, Callable_, Default, Partial, Global, ClassVariable]


class Ours(Other):
    def toggle(self) -> None:
        self.is_on = not self.is_on
        enable_flash_attention(self.is_on)


class Absent(Other):
    """In our place, to see what the others do without us."""

    def toggle(self) -> None:
        pass


@pytest.fixture(autouse=True)
def mlx_s_own() -> Iterator[None]:
    yield
    setattr(mx.fast, NAME, STOCK[0])
    for name in [name for name in sys.modules if name.startswith("a_profiler_")]:
        del sys.modules[name]


def calls_after_each_step(order: Sequence[int], packages: list[Other]) -> list[list[int]]:
    """How often each package is called in a call of the program, after each step of `order`, in
    which the package of that number is put on or taken off."""
    setattr(mx.fast, NAME, STOCK[0])
    x = mx.zeros((1, 1, 4, 8))
    found = []
    for turn in order:
        packages[turn].toggle()
        layers.forget()
        for package in packages:
            package.calls = 0
        mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)
        packages[0].calls = report().as_dict()["calls"]
        found.append([package.calls for package in packages])
    disable_flash_attention()
    return found


def check(order: Sequence[int], kinds: Sequence[type[Other]]) -> None:
    """Ours is called when it is on; the others as they are without us."""
    try:
        without = calls_after_each_step(order, [Absent(), *(kind() for kind in kinds)])
    except RecursionError:  # two who put back each other's function
        reject()
    found = calls_after_each_step(order, [Ours(), *(kind() for kind in kinds)])
    ours_is_on = itertools.accumulate((turn == 0 for turn in order), operator.xor)
    wanted = [[int(on), *others] for on, (_, *others) in zip(ours_is_on, without, strict=True)]
    assert found == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_one_other_in_every_order(kind: type[Other]) -> None:
    for order in itertools.product((0, 1), repeat=4):
        check(order, [kind])


@settings(max_examples=100, deadline=None)
@given(
    order=st.lists(st.sampled_from((0, 1, 2)), min_size=3, max_size=8),
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=2),
)
def test_two_others_in_any_order(order: list[int], kinds: list[type[Other]]) -> None:
    check(order, kinds)
