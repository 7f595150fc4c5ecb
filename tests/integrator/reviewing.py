"""Scripts whose changes come in several hunks, and a review of them that is given its answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.run import integrate
from flash_integrate.review.dialogue import review

FILLER = "".join(f"VALUE_{number} = {number}\n" for number in range(8))

# The flags and the call are far enough from each other for a hunk each.
SPREAD = f"""\
import argparse

from mlx_lm import generate, load

{FILLER}

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.description = "one"
    parser.epilog = "two"
    parser.prog = "three"
    parser.usage = "four"
    print("five")
    print("six")
    print("seven")
    args = parser.parse_args()
    print(generate(*load(args.model), "hello"))


main()
"""

# Two commands in one file, each with a parser of its own: four hunks.
TWO_PARSERS = f"""\
import argparse
import sys

from mlx_lm import generate, load

{FILLER}

def first():
    one = argparse.ArgumentParser()
    one.add_argument("--model")
{"".join(f'    print("first {number}")' + chr(10) for number in range(8))}
    args = one.parse_args()
    print(generate(*load(args.model), "hello"))


{FILLER}

def second():
    two = argparse.ArgumentParser()
    two.add_argument("--model")
{"".join(f'    print("second {number}")' + chr(10) for number in range(8))}
    args = two.parse_args()
    show(**vars(args))


def show(model):
    print(generate(*load(model), "hello"))


if __name__ == "__main__":
    {{"first": first, "second": second}}[sys.argv.pop(1)]()
"""


def scanned(path: Path, scan: Any = integrate) -> list[Outcome]:
    return list(scan([path], (), lambda found, stage: found))


def reviewed(outcomes: list[Outcome], answers: str) -> tuple[dict[str, Outcome], str]:
    """What the review makes of each file when it is given these answers, one a letter, and what it
    prints."""
    console = Console(file=io.StringIO(), width=300)
    after = review(outcomes, console, io.StringIO("\n".join(answers) + "\n"))
    assert [outcome.name for outcome in after] == [outcome.name for outcome in outcomes]
    return {outcome.name.as_posix(): outcome for outcome in after}, console.file.getvalue()  # type: ignore[attr-defined]


def only(folder: Path, text: str, scan: Any = integrate) -> Outcome:
    """The outcome of a folder with one script."""
    (folder / "run.py").write_text(text)
    [outcome] = scanned(folder, scan)
    assert outcome.changes
    return outcome
