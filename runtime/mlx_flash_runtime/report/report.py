"""What ran where: attention layers, calls, routes and reasons, by phase."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..kernels.cpu import library
from ..patching import originals, patch
from ..planning import counts, layers
from ..planning.counts import Decision, Kind
from ..planning.layers import Counted
from ..planning.machine import current_device
from ..problem import PHASES, Device, Phase
from ..routes import cpu_kernel
from ..stock.release import mlx_version
from ..version import __version__


@dataclass(frozen=True)
class Report:
    """The attention calls of this process so far; see `report`."""

    mlx: str
    device: str
    enabled: bool
    block_size: int | None
    peak_memory: int  # bytes, by MLX's own count, on a GPU those of the GPU
    layers: tuple[Counted, ...]
    unrecognised: tuple[str, ...] = ()  # as `module.function`, see `patching.originals`
    advice: str = ""  # the text's last line, see `_advice`
    kinds: Counter[Kind] | None = None  # all calls, where those of the layers are not all

    def as_dict(self) -> dict[str, Any]:
        """The report as data that JSON can hold:

        - `version`, `mlx`: of this package and of MLX; `device`: its backend (cpu, metal, cuda);
        - `enabled`: whether MLX is patched now; `block_size`: the one asked for, or null;
        - `peak_memory`: bytes, by MLX's own count; on a GPU those of the GPU;
        - `unrecognised`: functions, as `module.function`, that look like one of mlx-lm's that is
          patched and do something else: they were left as they are;
        - `calls`: their number; `routes`: calls by route, most used first;
        - `reasons`: a list of `route`, `reason` and `calls`, most frequent first;
        - `phases`: by phase, in the order of PHASES, the `calls`, `routes` and `reasons` of that
          phase alone, and
          `layers`, the number of layers that made them;
        - `layers`: a list, in the order of first calls, of `name`, `class`, `calls`, `routes`, and
          `phases`: calls by
          route in each phase.

        A phase is `prefill`, `decode` (at most 8 queries, on more keys) or `training` (inside a
        gradient). The first and the last are one, `prefill or training`, where MLX does not show
        whether a gradient is traced, as on the CPU, and where it is not asked because its own
        function gets the call either way. `unknown` are calls whose arguments the planner leaves
        to MLX.
        """
        calls = self.calls
        return {
            "version": __version__,
            "mlx": self.mlx,
            "device": self.device,
            "enabled": self.enabled,
            "block_size": self.block_size,
            "peak_memory": self.peak_memory,
            "unrecognised": list(self.unrecognised),
            "layers": [_layer_as_dict(layer) for layer in self.layers],
            "routes": _routes(calls),
            "reasons": _reasons(calls),
            "phases": {phase: self._phase_as_dict(phase) for phase in _phases(calls)},
            "calls": calls.total(),
        }

    @property
    def calls(self) -> Counter[Kind]:
        """All calls, by kind."""
        if self.kinds is not None:
            return self.kinds
        total: Counter[Kind] = Counter()
        for layer in self.layers:
            total.update(layer.calls)
        return total

    def _phase_as_dict(self, phase: Phase) -> dict[str, Any]:
        calls = _of_phase(self.calls, phase)
        return {
            "calls": calls.total(),
            "layers": self._layers_in(phase),
            "routes": _routes(calls),
            "reasons": _reasons(calls),
        }

    def _layers_in(self, phase: Phase) -> int:
        return sum(1 for layer in self.layers if _of_phase(layer.calls, phase))

    def __str__(self) -> str:
        total = self.calls.total()
        if not total:
            return "flash attention: no attention calls" + ("" if self.enabled else " (off)")
        per_route = ", ".join(f"{route} {calls}" for route, calls in _routes(self.calls).items())
        layer_count = counted(len(self.layers), "attention layer")
        lines = [f"flash attention: {layer_count}, {counted(total, 'call')}: {per_route}"]
        for phase in _phases(self.calls):
            own = _of_phase(self.calls, phase)
            layer_count = counted(self._layers_in(phase), "layer")
            lines.append(f"  {phase}: {layer_count}, {counted(own.total(), 'call')}")
            for one in _reasons(own):
                lines.append(f"    {one['route']} {one['calls']}: {one['reason']}")
        for name in self.unrecognised:
            lines.append(f"left as it is: {name}, which does not do what mlx-lm's function does")
        if self.advice:
            lines.append(self.advice)
        return "\n".join(lines)


def report() -> Report:
    """Which attention layers called how often, in which phase, and on which route each call ran.

    A layer is the innermost `nn.Module` that made the call, named by its path in the model; a call
    outside any module is named by its line. Under `mx.compile` a call counts when it is traced,
    not each time the compiled function runs.

    Numbers of calls by phase, route and reason are exact. Those of single layers are, too, from
    the first `report()` on and where `MLX_FLASH_REPORT` asked for a report; before, the layer is
    looked for in the first calls of each shape alone (`layers.LEARNED_CALLS`), as that takes
    longer than all the rest of planning a call.
    """
    layers.in_every_call = True
    planner = patch.active()
    device = current_device()
    return Report(
        mlx=mlx_version(),
        device=device.backend,
        enabled=planner is not None,
        block_size=planner.settings.block_size if planner else None,
        peak_memory=mx.get_peak_memory(),
        layers=tuple(layers.snapshot()),
        unrecognised=tuple(originals.unrecognised),
        advice=_advice(device, planner.settings.route if planner else None),
        kinds=counts.totals(),
    )


def _advice(device: Device, wanted_route: str | None) -> str:
    """What to do where calls would run on the CPU kernel if it were there; empty elsewhere."""
    if device.backend != "cpu" or device.own_kernel or wanted_route not in (None, cpu_kernel.name):
        return ""
    status = library.status()  # looked up already, for the device
    if status.state == "building":
        return "the CPU kernel is being built in the background: the next run has it"
    if status.reason:
        return (
            f"no CPU kernel, so attention is slower: {status.reason}; "
            "mlx-flash doctor --build tries again"
        )
    return (
        "the CPU kernel is not built, so attention is slower: mlx-flash doctor --build compiles it"
    )


def _layer_as_dict(layer: Counted) -> dict[str, Any]:
    phases = {phase: _routes(_of_phase(layer.calls, phase)) for phase in _phases(layer.calls)}
    return {
        "name": layer.name,
        "class": layer.class_name,
        "calls": layer.calls.total(),
        "routes": _routes(layer.calls),
        "phases": phases,
    }


def _phases(calls: Counter[Kind]) -> list[Phase]:
    """The phases that there were, in the order of PHASES."""
    met = {kind.phase for kind in calls}
    return [phase for phase in PHASES if phase in met]


def _of_phase(calls: Counter[Kind], phase: Phase) -> Counter[Kind]:
    """The calls of that phase alone."""
    return Counter({kind: number for kind, number in calls.items() if kind.phase == phase})


def _reasons(calls: Counter[Kind]) -> list[dict[str, Any]]:
    """The decisions behind some calls, most frequent first."""
    by_decision: Counter[Decision] = Counter()
    for kind, number in calls.items():
        by_decision[kind.decision] += number
    return [
        {"route": route, "reason": reason, "calls": number}
        for (route, reason), number in by_decision.most_common()
    ]


def _routes(calls: Counter[Kind]) -> dict[str, int]:
    """Calls by route, most used first."""
    by_route: Counter[str] = Counter()
    for kind, number in calls.items():
        by_route[kind.route] += number
    return dict(by_route.most_common())


def counted(number: int, noun: str) -> str:
    """`1 layer`, `8 layers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
