"""`flash-integrate -`: a file that comes through standard input, and goes out through standard
output as it is to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flash_integrate.disk.checkout import checkout_of
from flash_integrate.errors import FileError, own_errors
from flash_integrate.notebook.program import SUFFIX
from flash_integrate.planning.codemod import name_of, rewriters
from flash_integrate.planning.outcome import NOT_INTEGRATED, Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import reverted
from flash_integrate.planning.run import EVERYTHING, Run
from flash_integrate.project.config import Config
from flash_integrate.project.discover import Found
from flash_integrate.report.explain import explain_files

NAME = "<stdin>"
REWRITES_FILES_ALONE = (
    "attention by hand is rewritten in files that are named by their path alone: what stood there "
    "is kept beside them, for --revert"
)


@dataclass(frozen=True)
class Piped:
    """What came through standard input. With the `path` that `--stdin-filename` names it is that
    file, with the modules that it imports; without, it stands alone in the current folder."""

    data: bytes
    path: Path | None = None

    @property
    def found(self) -> Found:
        if self.path is None:
            # A notebook is told by its text, which no script looks like.
            is_notebook = self.data.lstrip().startswith(b"{") and b'"nbformat"' in self.data
            return Found(Path.cwd(), Path.cwd() / (NAME + SUFFIX if is_notebook else NAME))
        real = self.path.resolve()
        return Found(checkout_of(real.parent) or real.parent, real)

    @property
    def shown(self) -> str:
        return NAME if self.path is None else str(self.found.name)


def planned(piped: Piped, config: Config = EVERYTHING) -> Outcome:
    """The outcome, as it would be for the file by its path; attention by hand is left as it is.

    Raises:
        FileError: the file can't be decoded, parsed or rewritten safely.
    """
    run = _run(piped, config)
    outcome = run.outcome(piped.found)
    if outcome.status is Status.FAILED:
        raise FileError(outcome.reason, outcome.line)
    return outcome


def explained(piped: Piped, config: Config = EVERYTHING) -> Iterator[str]:
    """Lines that say what is seen in the file, and why it is or is not changed."""
    yield from explain_files(_run(piped, config), [piped.found])


def undone(piped: Piped) -> Outcome:
    """The outcome of a revert.

    Raises:
        FileError: it can't be decoded or parsed, or an insertion can't be taken out.
    """
    found = piped.found
    with own_errors():
        result = reverted(found.path, piped.data)
    outcome = Outcome(found.base, found.name, Status.SKIPPED, NOT_INTEGRATED)
    if result is None:
        return outcome
    return dataclasses.replace(
        outcome,
        status=Status.REVERTED,
        reason=f"{len(result.lines)} lines taken out",
        before=result.before,
        after=result.after,
        lines=result.lines,
    )


def _run(piped: Piped, config: Config) -> Run:
    skip = (*config.skip, *map(name_of, rewriters()))
    run = Run(dataclasses.replace(config, skip=skip), {piped.found.path: piped.data})
    run.scan(piped.found, look_further=piped.path is not None)
    return run
