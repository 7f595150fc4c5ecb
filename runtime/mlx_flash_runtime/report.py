"""What ran where: attention layers, calls, routes and reasons, by phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from . import layers, patch
from .kernels.cpu import library
from .layers import Counted, Decision
from .problem import PHASES, Device, Phase, mlx_version
from .routes import cpu_kernel
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
    advice: str = ""  # the text's last line, see `_advice`

    def as_dict(self) -> dict[str, Any]:
        """The report as data that JSON can hold:

        - `version`, `mlx`: of this package and of MLX; `device`: its backend (cpu, metal, cuda);
        - `enabled`: whether MLX is patched now; `block_size`: the one asked for, or null;
        - `peak_memory`: bytes, by MLX's own count; on a GPU those of the GPU;
        - `calls`: their number; `routes`: calls by route, most used first;
        - `reasons`: a list of `route`, `reason` and `calls`, most frequent first;
        - `phases`: by phase, in the order of PHASES, the `calls`, `routes` and `reasons` of that phase alone, and
          `layers`, the number of layers that made them;
        - `layers`: a list, in the order of first calls, of `name`, `class`, `calls`, `routes`, and `phases`: calls by
          route in each phase.

        A phase is `prefill`, `decode` (at most 8 queries, on more keys) or `training` (inside a gradient). The first
        and the last are one, `prefill or training`, where MLX does not show whether a gradient is traced, as on the
        CPU, and where it is not asked because its own function gets the call either way. `unknown` are calls whose
        arguments the planner leaves to MLX.
        """
        phases = {phase: _of_phase(self.layers, phase) for phase in _phases(self.layers)}
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
                    "phases": {phase: _routes(_of_phase([layer], phase)) for phase in _phases([layer])},
                }
                for layer in self.layers
            ],
            "routes": _routes(self.layers),
            "reasons": _reasons(self.layers),
            "phases": {
                phase: {
                    "calls": _calls(layers),
                    "layers": len(layers),
                    "routes": _routes(layers),
                    "reasons": _reasons(layers),
                }
                for phase, layers in phases.items()
            },
            "calls": _calls(self.layers),
        }

    def __str__(self) -> str:
        calls = _calls(self.layers)
        if not calls:
            return "flash attention: no attention calls" + ("" if self.enabled else " (off)")
        layer_count = counted(len(self.layers), "attention layer")
        lines = [f"flash attention: {layer_count}, {counted(calls, 'call')}: {_per_route(self.layers)}"]
        for phase in _phases(self.layers):
            own = _of_phase(self.layers, phase)
            lines.append(f"  {phase}: {counted(len(own), 'layer')}, {counted(_calls(own), 'call')}")
            lines += [f"    {one['route']} {one['calls']}: {one['reason']}" for one in _reasons(own)]
        lines += [self.advice] if self.advice else []
        return "\n".join(lines)


def report() -> Report:
    """Which attention layers called how often, in which phase, and on which route each call ran.

    A layer is the innermost `nn.Module` that made the call, named by its path in the model; a call outside any module
    is named by its line. Under `mx.compile` a call counts when it is traced, not each time the compiled function runs.
    """
    planner = patch.active()
    device = Device.current()
    return Report(
        mlx=mlx_version(),
        device=device.backend,
        enabled=planner is not None,
        block_size=planner.settings.block_size if planner else None,
        peak_memory=mx.get_peak_memory(),
        layers=tuple(layers.snapshot()),
        advice=_advice(device, planner.settings.route if planner else None),
    )


def _advice(device: Device, wanted_route: str | None) -> str:
    """What to do where calls would run on the CPU kernel if it were there; empty elsewhere."""
    if device.backend != "cpu" or device.own_kernel or wanted_route not in (None, cpu_kernel.NAME):
        return ""
    status = library.status()  # looked up already, for the device
    if status.state == "building":
        return "the CPU kernel is being built in the background: the next run has it"
    if status.reason:
        return f"no CPU kernel, so attention is slower: {status.reason}; mlx-flash doctor --build tries again"
    return "the CPU kernel is not built, so attention is slower: mlx-flash doctor --build compiles it"


def _phases(seen: Iterable[Counted]) -> list[Phase]:
    """The phases that there were, in the order of PHASES."""
    met = {kind.phase for layer in seen for kind in layer.calls}
    return [phase for phase in PHASES if phase in met]


def _of_phase(seen: Iterable[Counted], phase: Phase) -> list[Counted]:
    """The layers with calls in that phase, with those calls alone."""
    parts = (
        layer._replace(calls=Counter({kind: n for kind, n in layer.calls.items() if kind.phase == phase}))
        for layer in seen
    )
    return [part for part in parts if part.calls]


def _calls(seen: Iterable[Counted]) -> int:
    return sum(layer.calls.total() for layer in seen)


def _reasons(seen: Iterable[Counted]) -> list[dict[str, Any]]:
    total: Counter[Decision] = Counter()
    for layer in seen:
        for kind, calls in layer.calls.items():
            total[kind.decision] += calls
    return [{"route": route, "reason": reason, "calls": calls} for (route, reason), calls in total.most_common()]


def _routes(seen: Iterable[Counted]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in _reasons(seen):
        total[one["route"]] += one["calls"]
    return dict(total.most_common())


def _per_route(seen: Iterable[Counted]) -> str:
    return ", ".join(f"{route} {count}" for route, count in _routes(seen).items())


def counted(number: int, noun: str) -> str:
    """`1 layer`, `8 layers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
