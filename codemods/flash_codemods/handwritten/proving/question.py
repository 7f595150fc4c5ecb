"""What a proof is asked, and how it ends: plain data, that another process can be given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """Two versions of a function's attention. Text, so that another process can be asked."""

    old: str
    new: str
    function: tuple[str, ...]
    """The way to the function: the names of classes and functions around it, and its own."""
    index: int
    """Which of the functions with these names it is."""
    product: tuple[int, int, int, int]
    """Where weights times values stand in the old text: lines and columns."""
    call: str
    rank: int
    bools: tuple[str, ...] = ()
    """The names that stand for bool arrays, as the statements that make them say."""
    numbers: tuple[str, ...] = ()
    """The parameters that are numbers, as their annotations or defaults say."""
    makers: tuple[int, ...] = ()
    """The lines of the old text on which the function makes its masks; none of them is an input
    then."""
    sizes: tuple[int, ...] = ()
    """Those on which it makes the sizes of groups, none of which is ever an input."""
    without_copies: bool = False
    """Whether copies of heads are no longer made: inputs with fewer key heads have to run."""


@dataclass(frozen=True)
class Verdict:
    """How a proof ended. `error` is the largest difference of an output in float32, `unseen` what
    becomes of a row that sees no key, and `narrower` whether outputs of 16 bits stay so where they
    became float32. `differs` says that the two were found to be different."""

    proved: bool
    inputs: int = 0
    error: float = 0.0
    reason: str = ""
    unseen: str = ""
    narrower: bool = False
    differs: bool = False

    def text(self) -> str:
        if self.differs:
            return f"tried on {self.inputs} random inputs, the fused call differs: {self.reason}"
        if not self.proved:
            return f"matched by form ({self.reason})" if self.reason else "matched by form"
        off = f"within {self.error:.0e}" if self.error else "the same bit for bit"
        kept = "; 16-bit inputs give 16-bit outputs, not float32 as before" if self.narrower else ""
        return f"proved on {self.inputs} random inputs, outputs {off}{kept}"
