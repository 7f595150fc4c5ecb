"""What `mlx-flash tune` measured on this machine: the fastest route by class of problem.

A class is everything that the choice may depend on: device, release of MLX, version of this
package, type, head dims, kind of mask, query heads per key head, phase, and lengths, window and
heads to the power of two below. The file is

    {"format": 1, "classes": {
        CLASS: {"route": NAME, "gain": NUMBER, "ms": {PHASE: {NAME: NUMBER}}}
    }}

where NAME is a route's, or `stock` for MLX's own function; `gain` says how many times as fast as
that the route is (in the phase where it gains least, null where MLX's own did not fit in memory).
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..environment import user_cache, whole_files
from ..environment.log import logger
from ..environment.variables import file_named
from ..problem import Device, Phase, Problem
from ..stock import gradient
from ..version import __version__

STOCK = "stock"
_FORMAT = 1
# A class takes some 600 bytes. What a file of this size makes of JSON fits in a small part of any
# machine's memory.
_LARGEST = 4 * 2**20


@dataclass(frozen=True)
class Measured:
    """The fastest route of a class, and the milliseconds of all that were measured, by phase."""

    route: str
    gain: float | None
    ms: dict[str, dict[str, float]] = field(default_factory=dict)


def path() -> Path:
    """`MLX_FLASH_CALIBRATION`, or a file in the user's folder for caches. Raises RuntimeError
    where the user has no home."""
    named = os.environ.get("MLX_FLASH_CALIBRATION", "")
    return file_named(named) if named else user_cache.folder() / "calibration.json"


def route_of(problem: Problem, device: Device) -> str | None:
    """The route that was measured to be the fastest for the class of `problem`; None where nothing
    was measured, as on every device that is not this machine's."""
    measured = _read_once()
    if not measured or not device.name:
        return None
    found = measured.get(class_of(problem, device))
    return None if found is None else found.route


def class_of(problem: Problem, device: Device) -> str:
    """The class of a problem on a device, as the file has it."""
    p = problem
    mask: str = p.mask
    if p.window is not None:
        mask = f"window 2^{_bucket(p.window)}"
    elif p.mask in ("bool", "additive"):
        mask += " by " + "x".join("1" if size == 1 else "n" for size in p.mask_shape)
    elif p.mask == "causal" and p.query_length == 1:  # which hides nothing
        mask = "none"
    return machine_of(device) + ", ".join(
        [
            phase_of(p, device),
            p.dtype,
            f"head dims {p.head_dim}/{p.value_head_dim}",
            f"{p.query_heads // p.key_heads} per key head",
            f"mask {mask}",
            *(["sinks"] if p.sinks else []),
            *([f"softcap {p.softcap:g}"] if p.softcap is not None else []),
            f"2^{_bucket(p.query_length)} queries",
            f"2^{_bucket(p.key_length)} keys",
            f"2^{_bucket(p.batch * p.query_heads)} heads",
        ]
    )


def machine_of(device: Device) -> str:
    """What all classes of a device and these versions start with."""
    without = "" if device.tf32 else " without TF32"
    # Before the kernel was built, other routes were the fastest.
    if device.backend in ("cpu", "cuda") and not device.own_kernel:
        without += " without kernel"
    release = ".".join(map(str, device.mlx))
    return f"{device.backend} {device.name}{without}, mlx {release}, runtime {__version__}, "


def phase_of(problem: Problem, device: Device) -> Phase:
    """The phase of a class: prefill and training are one where nobody can tell a call which it
    is."""
    if problem.phase == "decode" or (device.backend != "cpu" and gradient.shows()):
        return problem.phase
    return "prefill or training"


def _bucket(count: int) -> int:
    return count.bit_length() - 1


@lru_cache(maxsize=1)
def _read_once() -> dict[str, Measured]:
    return read()


def read() -> dict[str, Measured]:
    """The classes of the file, empty without one. A file that cannot be read, or is not what
    `save` writes, is a warning, and counts as none: the rules that this package ships apply
    then."""
    try:
        file = path()
        content = whole_files.read(file, _LARGEST)
    except (FileNotFoundError, RuntimeError):  # no file, or no home that it could be in
        return {}
    except OSError as error:
        logger.warning("flash attention: %s is ignored: %s", file, error.strerror)
        return {}
    try:
        return _classes(json.loads(content))
    except json.JSONDecodeError as error:
        words = f"it is no JSON: {error}"
    except (ValueError, RecursionError) as error:
        words = str(error)
    except (KeyError, TypeError, AttributeError):
        words = "a class in it is not one that mlx-flash tune writes"
    logger.warning("flash attention: %s is ignored, mlx-flash tune writes it anew: %s", file, words)
    return {}


def _classes(data: Any) -> dict[str, Measured]:
    if not isinstance(data, dict) or "format" not in data:
        raise ValueError('it has no "format", so it is no calibration')
    if data["format"] != _FORMAT:
        raise ValueError(f"it is of format {reprlib.repr(data['format'])}, not {_FORMAT}")
    if not isinstance(data.get("classes"), dict):
        raise ValueError('it has no "classes"')
    return {name: _measured(entry) for name, entry in data["classes"].items()}


def _measured(entry: Any) -> Measured:
    route, gain, ms = entry["route"], entry["gain"], entry["ms"]
    if not isinstance(route, str):
        raise ValueError(f"{reprlib.repr(route)} is not a route")
    if gain is not None and not _is_number(gain):
        raise ValueError(f"{reprlib.repr(gain)} is not a gain")
    for times in ms.values():
        for milliseconds in times.values():
            if not _is_number(milliseconds):
                raise ValueError(f"{reprlib.repr(milliseconds)} is not a time")
    return Measured(route, gain, ms)


def _is_number(value: Any) -> bool:
    """Whether a number is one to reckon with: no infinity, and no integer beyond all floats."""
    try:
        return isinstance(value, float | int) and math.isfinite(value)
    except OverflowError:
        return False


def save(measured: dict[str, Measured]) -> None:
    """Adds classes to the file, which is replaced in one step: a reader never finds half of it.
    Raises OSError, also where something other than a file is in its place."""
    file = path()
    classes = {name: asdict(entry) for name, entry in {**read(), **measured}.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": _FORMAT, "classes": classes}, indent=1)
    whole_files.write(file, f"{text}\n".encode())
    _read_once.cache_clear()


def forget() -> bool:
    """Deletes the file; whether there was one. Raises OSError, also where something other than a
    file is in its place."""
    _read_once.cache_clear()
    file = path()
    whole_files.check(file)
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True
