"""Which attention layer called, found on the Python stack, and how often each took which route in
which phase."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from . import counts
from .counts import Kind, calls_of


@dataclass(slots=True)
class Layer:
    """One attention layer. Each thread counts its calls by kind for itself, so that counting needs
    no lock."""

    name: str
    class_name: str
    calls: dict[int, dict[Kind, int]] = field(default_factory=dict)
    module: weakref.ref[Any] | None = None


# Plans look for the layer in so many of their first calls: to find out who called costs more than
# planning. In every call where a report was asked for, by `MLX_FLASH_REPORT` or by `report()`.
LEARNED_CALLS = 256
in_every_call = False

_REACH = (1, 2, 3, 4)  # frames; to iterate over a tuple costs less than over a range
# Names by which a function gets the dictionary of its own variables.
_OWN_VARIABLES = frozenset({"locals", "vars"})
_lock = threading.Lock()
_layers: list[Layer] = []
# By identity, for as long as the module lives.
_by_module: dict[int, Layer] = {}
# Two tables by the identity of a code object (hashing one reads all of it), for as long as that
# lives: layers of calls outside any module by instruction, and whether a function is a module's
# method.
_by_site: dict[int, dict[int, Layer]] = {}
_is_method: dict[int, bool] = {}
# See `_forget_with`.
_codes: dict[int, weakref.ref[CodeType]] = {}
_NO_LAYERS: dict[int, Layer] = {}


def count(kind: Kind, caller: FrameType) -> None:
    """Counts one call of that kind, and for the layer that made it from the frame `caller`."""
    next(calls_of(kind).numbers)
    find(kind, caller)


def find(kind: Kind, caller: FrameType) -> None:
    """Counts one call of that kind for the layer that made it from the frame `caller`, and for the
    layer alone.

    The layer is the nearest `nn.Module` that runs one of its methods, a few frames up at most;
    without one, the line of the call. The variables of other functions are not looked at, see
    `_self_of`.
    """
    # On the way of every call: a dictionary and an exception that is not raised are the cheapest
    # there is.
    layer: Layer | None = None
    frame: FrameType | None = caller
    for _ in _REACH:
        if frame is None:
            break
        is_method = _is_method.get(id(frame.f_code))
        if is_method or (is_method is None and _learn(frame.f_code)):
            module = _self_of(frame)
            layer = _by_module.get(id(module))
            if layer is not None:
                break
            if _is_module(module):
                layer = _new_layer(module, frame)
                break
        frame = frame.f_back
    if layer is None:
        sites = _by_site.get(id(caller.f_code), _NO_LAYERS)
        layer = sites.get(caller.f_lasti) or _new_site(caller)
    try:
        own = layer.calls[get_ident()]
    except KeyError:
        own = layer.calls[get_ident()] = {}
    try:
        own[kind] += 1
    except KeyError:
        own[kind] = 1


class Counted(NamedTuple):
    """The calls of one layer by kind, all threads together."""

    name: str
    class_name: str
    calls: Counter[Kind]


def snapshot() -> list[Counted]:
    """The layers seen so far, in the order of their first calls."""
    with _lock:
        seen = list(_layers)
    counted = []
    for layer in seen:
        calls: Counter[Kind] = Counter()
        # list() and dict(): in one step, as other threads may be counting.
        for own in list(layer.calls.values()):
            calls.update(dict(own))
        counted.append(Counted(layer.name, layer.class_name, calls))
    return counted


def forget() -> None:
    """Starts all counts over."""
    counts.forget()
    with _lock:
        _layers.clear()
        _by_module.clear()
        _by_site.clear()


def _learn(code: CodeType) -> bool:
    _forget_with(code)  # first: an identity in the table is one that goes with its code
    takes_self = code.co_argcount > 0 and code.co_varnames[0] == "self"
    _is_method[id(code)] = is_method = takes_self and _is_of_a_module(code)
    return is_method


def _forget_with(code: CodeType) -> None:
    """Has what is known of a code object forgotten when it goes, before its identity is another's:
    one that a program has made, by `exec` or `compile`, is the program's to keep."""
    key = id(code)

    def forget_it(_: object) -> None:
        _codes.pop(key, None)
        _by_site.pop(key, None)
        _is_method.pop(key, None)

    if key not in _codes:
        _codes[key] = weakref.ref(code, forget_it)


def _is_of_a_module(code: CodeType) -> bool:
    """Whether a class of modules, or one that such a class inherits from, has a method with this
    code."""
    nn = sys.modules.get("mlx.nn")  # a program that has not imported it has no modules
    classes: list[type] = [] if nn is None else [nn.Module]
    for found in classes:  # which grows meanwhile
        classes.extend(found.__subclasses__())
    owners = {base for found in classes for base in found.__mro__}
    return any(_has_code(value, code) for owner in owners for value in list(vars(owner).values()))


def _has_code(value: object, code: CodeType) -> bool:
    while isinstance(value, FunctionType):
        if value.__code__ is code:
            return True
        value = vars(value).get("__wrapped__")  # what a decorator took
    return False


def _self_of(frame: FrameType) -> Any:
    """The variable `self` of a function that runs.

    Before Python 3.13 `f_locals` is a copy of all variables, which the frame keeps while the
    function runs, arrays that it has long dropped included. So it is emptied again, unless the
    function may hold the same dictionary itself, as its `locals()`.
    """
    variables = frame.f_locals
    found = variables.get("self")
    if type(variables) is dict and _OWN_VARIABLES.isdisjoint(frame.f_code.co_names):
        variables.clear()
    return found


def _is_module(value: object) -> bool:
    nn = sys.modules.get("mlx.nn")
    return nn is not None and isinstance(value, nn.Module)


def _new_layer(module: Any, frame: FrameType) -> Layer:
    # Named once, when first seen: a gradient checkpoint runs the layer again without its model on
    # the stack.
    name = _name(module, frame)
    class_name = type(module).__name__
    with _lock:
        if id(module) in _by_module:  # another thread was here meanwhile
            return _by_module[id(module)]
        # A model that is built anew goes on counting where the one before it, now gone, left off.
        gone = (
            old
            for old in _layers
            if _is_gone(old) and (old.name, old.class_name) == (name, class_name)
        )
        layer = next(gone, None)
        if layer is None:
            layer = Layer(name, class_name)
            _layers.append(layer)
        key = id(module)
        layer.module = weakref.ref(module, lambda _: _by_module.pop(key, None))
        _by_module[key] = layer
    return layer


def _is_gone(layer: Layer) -> bool:
    return layer.module is not None and layer.module() is None


def _name(module: Any, frame: FrameType) -> str:
    """The module's path in the outermost module on the stack that has it, as
    `model.layers.0.self_attn`."""
    name = ""
    outer: FrameType | None = frame.f_back
    while outer is not None:
        is_method = _is_method.get(id(outer.f_code))
        if is_method or (is_method is None and _learn(outer.f_code)):
            root = _self_of(outer)
            if _is_module(root):
                path = next((path for path, part in root.named_modules() if part is module), None)
                name = path or name  # the frames go outwards: the last one that knows it wins
        outer = outer.f_back
    return name or type(module).__name__


def _new_site(frame: FrameType) -> Layer:
    code = frame.f_code
    name = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
    with _lock:
        layer = next(
            (old for old in _layers if (old.name, old.class_name) == (name, "function")), None
        )
        if layer is None:  # else another call on that line
            layer = Layer(name, "function")
            _layers.append(layer)
        _forget_with(code)
        _by_site.setdefault(id(code), {})[frame.f_lasti] = layer
    return layer


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread of the parent may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
