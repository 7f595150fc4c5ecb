"""What ran where: attention layers, calls, routes and reasons."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from . import layers, patch
from .layers import Counted, Decision
from .log import logger
from .problem import Device, mlx_version
from .settings import report_target
from .version import __version__


@dataclass(frozen=True)
class Report:
    """The attention calls of this process so far; see `report`."""

    mlx: str
    device: str
    enabled: bool
    block_size: int | None
    peak_memory: int  # bytes, by MLX's own count, on a GPU those of the GPU
    layers: tuple[Counted, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as data that JSON can hold."""
        return {
            "version": __version__,
            "mlx": self.mlx,
            "device": self.device,
            "enabled": self.enabled,
            "block_size": self.block_size,
            "peak_memory": self.peak_memory,
            "layers": [
                {
                    "name": layer.name,
                    "class": layer.class_name,
                    "calls": layer.calls.total(),
                    "routes": _routes([layer]),
                }
                for layer in self.layers
            ],
            "routes": _routes(self.layers),
            "reasons": [
                {"route": route, "reason": reason, "calls": calls}
                for (route, reason), calls in _decisions(self.layers).most_common()
            ],
            "calls": sum(layer.calls.total() for layer in self.layers),
        }

    def __str__(self) -> str:
        routes = _routes(self.layers)
        calls = sum(routes.values())
        if not calls:
            return "flash attention: no attention calls" + ("" if self.enabled else " (off)")
        per_route = ", ".join(f"{route} {count}" for route, count in routes.items())
        layer_count = _counted(len(self.layers), "attention layer")
        lines = [f"flash attention: {layer_count}, {_counted(calls, 'call')}: {per_route}"]
        for (route, reason), count in _decisions(self.layers).most_common():
            lines.append(f"  {route} {count}: {reason}")
        return "\n".join(lines)


def report() -> Report:
    """Which attention layers called how often, and on which route each call ran.

    A layer is the innermost `nn.Module` that made the call, named by its path in the model; a call outside any module
    is named by its line. Under `mx.compile` a call counts when it is traced, not each time the compiled function runs.
    """
    planner = patch.active()
    return Report(
        mlx=mlx_version(),
        device=Device.current().backend,
        enabled=planner is not None,
        block_size=planner.settings.block_size if planner else None,
        peak_memory=mx.get_peak_memory(),
        layers=tuple(layers.snapshot()),
    )


def _decisions(seen: Iterable[Counted]) -> Counter[Decision]:
    total: Counter[Decision] = Counter()
    for layer in seen:
        total.update(layer.calls)
    return total


def _routes(seen: Iterable[Counted]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for (route, _), calls in _decisions(seen).items():
        total[route] += calls
    return dict(total.most_common())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_writing_process: int | None = None


def write_at_exit() -> None:
    """Has `MLX_FLASH_REPORT` obeyed when this process exits; asking twice is asking once."""
    global _writing_process
    if _writing_process is None and report_target() is not None:
        _writing_process = os.getpid()
        atexit.register(_write)


def _write() -> None:
    target = report_target()
    if target is None or os.getpid() != _writing_process:  # a forked child leaves the report to its parent
        return
    summary = report()
    if target == "-":
        print(summary, file=sys.stderr)
        return
    try:
        with open(target, "w", encoding="utf-8") as file:
            json.dump(summary.as_dict(), file, indent=2)
            file.write("\n")
    except OSError as error:
        logger.error("flash attention: the report was not written: %s", error)
