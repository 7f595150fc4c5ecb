"""Functions that other packages put in the place of MLX's, such as a profiler's: what they hold,
and which of it is MLX's own function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import mlx.core as mx

# A value that something holds, and how to have it hold another one.
Held = tuple[object, Callable[[Any], object]]

# Wrappers keep what they wrap within a step or two: no search through a whole program.
_MOST_VALUES = 2000


def mlx_function_in(function: Any) -> Any:
    """MLX's own function of the same purpose that `function` is, or holds; `function` itself where
    none is found."""
    own = type(mx.eval)
    if isinstance(function, own):
        return function
    for value, _ in _held_by(function, None):
        if isinstance(value, own) and value.__name__ == "scaled_dot_product_attention":
            return value
    return function


def replace_in(function: Any, old: object, new: object) -> bool:
    """Has `function`, and whatever wrappers it holds, hold `new` instead of `old`. Returns whether
    `new` was found or put there: whether a call of `function` may lead to it."""
    found = False
    for value, put in _held_by(function, new):
        if value is old:
            put(new)
            found = True
        elif value is new:
            found = True
    return found


def _held_by(function: Any, last: object) -> Iterator[Held]:
    """What a function holds, and what that holds in its turn, nearest first; not what `last`
    holds."""
    seen = {id(function), id(last)}
    waiting: deque[Any] = deque([function])
    while waiting and len(seen) < _MOST_VALUES:
        for value, put in list(_held_directly(waiting.popleft())):
            yield value, put
            if id(value) not in seen and not isinstance(value, ModuleType | mx.array):
                seen.add(id(value))
                waiting.append(value)


def _held_directly(holder: Any) -> Iterator[Held]:
    """The places of a function, a method, an object or a container that can hold a function."""
    if isinstance(holder, FunctionType):
        yield from _of_function(holder)
    elif isinstance(holder, MethodType):
        yield holder.__self__, _not_replaced
        yield holder.__func__, _not_replaced
    elif isinstance(holder, partial):
        for value in (holder.func, *holder.args):
            yield value, partial(_replace_in_partial, holder, value)
        yield from _of_items(holder.keywords)
    elif type(holder) is dict:
        yield from _of_items(holder)
    elif type(holder) is list:
        for index, value in enumerate(holder):
            yield value, partial(holder.__setitem__, index)
    elif isinstance(holder, type):
        for name, value in list(vars(holder).items()):
            yield value, partial(setattr, holder, name)
    else:
        yield from _of_object(holder)


def _of_function(function: FunctionType) -> Iterator[Held]:
    """Its closure, the global variables that it names, the defaults of its arguments."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable that has no value yet
            yield cell.cell_contents, partial(setattr, cell, "cell_contents")
    names = function.__globals__
    for name in function.__code__.co_names:
        if name in names:
            yield names[name], partial(names.__setitem__, name)
    for value in function.__defaults__ or ():
        yield value, partial(_replace_default, function, value)
    yield from _of_items(function.__kwdefaults__ or {})
    yield from _of_items(function.__dict__)


def _of_object(holder: Any) -> Iterator[Held]:
    """Its attributes, and its `__call__`."""
    call = getattr(type(holder), "__call__", None)  # noqa: B004  # not whether it can be called
    if isinstance(call, FunctionType):
        yield call, _not_replaced
    attributes = getattr(holder, "__dict__", None)
    if type(attributes) is dict:
        yield from _of_items(attributes)


def _of_items(items: dict[Any, Any]) -> Iterator[Held]:
    for name, value in list(items.items()):
        yield value, partial(items.__setitem__, name)


def _replace_default(function: FunctionType, old: object, new: object) -> None:
    defaults = function.__defaults__ or ()
    function.__defaults__ = tuple(new if value is old else value for value in defaults)


def _replace_in_partial(holder: partial[Any], old: object, new: Any) -> None:
    func = new if holder.func is old else holder.func
    arguments = tuple(new if value is old else value for value in holder.args)
    holder.__setstate__(  # type: ignore[attr-defined]  # as copying and unpickling do
        (func, arguments, holder.keywords, vars(holder))
    )


def _not_replaced(_: object) -> None:
    """For what is looked into alone."""
