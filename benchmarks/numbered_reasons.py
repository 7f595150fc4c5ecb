"""The planner's reasons below a table of routes, by the numbers that its cells have in brackets."""

from __future__ import annotations


class NumberedReasons:
    """Reasons in the order in which a table first names them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, text: str, reason: str) -> str:
        """The text of a cell with the number of its reason: `native [2]`."""
        return f"{text} [{self._numbers.setdefault(reason, len(self._numbers) + 1)}]"

    def lines(self) -> list[str]:
        """The reasons, a numbered line each."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]
