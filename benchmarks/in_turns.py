"""Ways of doing the same, timed in turns in one process, of which MLX may refuse some."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_flash_runtime.tools.bench.machine import is_out_of_memory
from mlx_flash_runtime.tools.bench.numbers import significant
from mlx_flash_runtime.tools.bench.routes_taken import counting
from mlx_flash_runtime.tools.bench.timing import turns


@dataclass
class Tried:
    """What a way took: the seconds of its runs, and of the last one the bytes that were held before
    it, its peak with those, and the attention calls by route. `refused` is MLX's reason, if it
    can't run it on this machine."""

    seconds: list[float] = field(default_factory=list)
    held: int = 0
    peak: int = 0
    taken: Mapping[str, int] = field(default_factory=Counter)
    refused: str = ""

    @property
    def milliseconds(self) -> float | None:
        """The median; None where it was refused."""
        return None if self.refused else significant(1e3 * statistics.median(self.seconds))

    @property
    def mib(self) -> float | None:
        """The peak with what was held; None where it was refused."""
        return None if self.refused else significant(self.peak / 2**20)

    @property
    def extra_mib(self) -> float | None:
        """The peak without what was held; None where it was refused."""
        return None if self.refused else significant((self.peak - self.held) / 2**20)


def in_turns(ways: Mapping[str, Callable[[], float]], runs: int) -> dict[str, Tried]:
    """Runs each way, a function that gives the seconds that it took, once to warm up and then so
    many times. One that MLX refuses is not run again."""
    tried = {name: Tried() for name in ways}
    for name in [*ways, *turns(list(ways), runs)]:
        way = tried[name]
        if way.refused:
            continue
        mx.synchronize()
        mx.clear_cache()
        mx.reset_peak_memory()
        way.held = mx.get_active_memory()
        try:
            with counting() as way.taken:
                way.seconds.append(ways[name]())
        except RuntimeError as error:
            reason = str(error).partition(":")[0]
            way.refused = "out of memory" if is_out_of_memory(error) else reason
        way.peak = mx.get_peak_memory()
    for way in tried.values():
        del way.seconds[:1]
    return tried


def refusals(tried: Mapping[str, Tried]) -> str:
    """Which ways were refused and why, as a row shows it; `-` for none."""
    found = [f"{name}: {way.refused}" for name, way in tried.items() if way.refused]
    return "; ".join(found) or "-"
