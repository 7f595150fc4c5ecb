"""Functions whose time a file compares: rewritten, they would no longer be what is measured."""

from __future__ import annotations

import ast

from flash_integrate.python.syntax import dotted, walk

_CLOCKS = {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns"}
_TIMEIT = {"timeit.timeit", "timeit.repeat", "timeit.Timer"}


def measured_functions(tree: ast.Module) -> dict[str, str]:
    """The functions that a file hands to one that calls them by the clock, and which that is: of
    each that reads the clock at least two, as a training loop is handed its loss alone."""
    nodes = walk(tree)
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    timers = {name for name, node in functions.items() if _times(node)} | _TIMEIT
    handed: dict[str, set[str]] = {}
    for node in nodes:
        name = dotted(node.func) if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and name in timers:
            handed.setdefault(name, set()).update(functions.keys() & _handed_over(node))
    return {
        function: timer
        for timer, measured in handed.items()
        for function in measured
        if len(measured) > 1
    }


def _times(function: ast.FunctionDef) -> bool:
    """Whether a function reads a clock and calls what it is given."""
    given = {item.arg for item in [*function.args.posonlyargs, *function.args.args]}
    calls = [dotted(node.func) or "" for node in walk(function) if isinstance(node, ast.Call)]
    reads_clock = any(
        name.rpartition(".")[2] in _CLOCKS and name.rpartition(".")[0] in ("", "time")
        for name in calls
    )
    return reads_clock and not given.isdisjoint(calls)


def _handed_over(call: ast.Call) -> set[str]:
    """The names that a call is given, and those of functions that a `lambda` among its arguments
    calls."""
    found = set()
    for given in [*call.args, *(item.value for item in call.keywords)]:
        if isinstance(given, ast.Name):
            found.add(given.id)
        elif isinstance(given, ast.Lambda):
            inner = [node.func for node in walk(given) if isinstance(node, ast.Call)]
            found |= {node.id for node in inner if isinstance(node, ast.Name)}
    return found
