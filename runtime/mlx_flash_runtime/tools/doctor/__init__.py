"""What this machine has for attention, what is missing, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...environment import loading
from ...version import __version__
from . import surroundings
from .finding import Finding, Status

__all__ = ["Examination", "Finding", "Status", "examine"]


@dataclass(frozen=True)
class Examination:
    """All findings, and MLX's answers about its fused kernels (`kernels.Answer`), empty where it
    was not asked."""

    findings: tuple[Finding, ...]
    kernels: tuple[Any, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether anything keeps flash attention from working here."""
        return any(finding.status == "broken" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As data that JSON can hold:

        - `version`: this package's;
        - `broken`: whether anything is;
        - `findings`: a list of `name`, `status` (ok, missing, warning, broken), `value` and
          `advice`, all texts;
        - `kernels`: a list of `phase` (prefill, decode, training), `mask` (none, causal, bool),
          `dtype`, `head_dim`, `fused` (MLX's answer) and `expected` (this package's table).
        """
        return {
            "version": __version__,
            "broken": self.is_broken,
            "findings": [asdict(finding) for finding in self.findings],
            "kernels": [asdict(answer) for answer in self.kernels],
        }


def examine() -> Examination:
    """Looks at everything; takes about a second, nearly all of it for one large product."""
    failure = loading.failure()
    if failure is not None:
        broken = Finding("mlx", "broken", failure, loading.advice())
        return Examination((surroundings.system(), broken))
    from ...planning.machine import current_device
    from . import attention
    from .kernels import Answer, Unanswered, answers

    environment = attention.environment()
    if environment.status == "broken":  # nothing here runs with it
        return Examination((surroundings.system(), attention.mlx(), environment))
    device = current_device()
    kernels: tuple[Answer, ...] = ()
    try:
        kernels = tuple(answers(device))
        fused = attention.fused_kernels(kernels, device)
    except Unanswered as error:
        fused = Finding("fused kernels", "missing", str(error))
    findings = (
        surroundings.system(),
        attention.mlx(),
        attention.device_of(device),
        environment,
        attention.calibrated(device),
        attention.small_call(device),
        fused,
        attention.products(device),
        surroundings.compiler(),
        *attention.cpu_kernel(device),
        *attention.cuda_kernel(device),
        *attention.metal_kernels(device),
        surroundings.library("mlx-lm", "for language models: pip install 'mlx-flash-runtime[lm]'"),
        surroundings.library("mlx-vlm"),
        surroundings.plots(),
    )
    return Examination(tuple(finding for finding in findings if finding), kernels)
