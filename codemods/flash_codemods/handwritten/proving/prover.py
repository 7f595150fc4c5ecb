"""The processes in which this one has rewrites proved: MLX is loaded there once, and what a proof
does to it is done there alone."""

from __future__ import annotations

from collections.abc import Callable

from flash_codemods.handwritten.proving.proof import prove
from flash_codemods.handwritten.proving.question import Question, Verdict
from flash_integrate.python.processes import OwnProcesses

_one = OwnProcesses(1)


def begin_proof(
    question: Question, avoid: tuple[str, ...], processes: OwnProcesses | None = None
) -> Callable[[], Verdict]:
    """Has a rewrite proved, in one of `processes` or in one that is kept for this; what it returns
    waits for the verdict of `prove`, or that there was none in the time of a call."""
    answer = (processes or _one).begin(prove, question, avoid)

    def verdict() -> Verdict:
        return answer() or Verdict(False, reason="the proof did not end")

    return verdict


def verdict_on(question: Question, avoid: tuple[str, ...]) -> Verdict:
    """The verdict on a rewrite, waited for."""
    return begin_proof(question, avoid)()
