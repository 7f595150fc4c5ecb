"""The process in which this one has rewrites proved: MLX is loaded there once, and what a proof
does to it is done there alone."""

from __future__ import annotations

from flash_codemods.handwritten.proving.proof import prove
from flash_codemods.handwritten.proving.question import Question, Verdict
from flash_integrate.python.processes import OwnProcess

_SECONDS = 60
_process = OwnProcess()


def verdict_on(question: Question, avoid: tuple[str, ...]) -> Verdict:
    """The verdict of `prove`, or that there was none in a minute."""
    found = _process.call(_SECONDS, prove, question, avoid)
    return found if found is not None else Verdict(False, reason="the proof did not end")
