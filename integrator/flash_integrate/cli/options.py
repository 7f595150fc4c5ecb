"""The command line's options as one value, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import click

STDIN = STDOUT = Path("-")

# With these modes goes nothing but what is named: an option that would do nothing is refused.
_WITH_STDIN = {
    "check",
    "dry_run",
    "explain",
    "reverting",
    "only",
    "skip",
    "color",
    "quiet",
    "stdin_filename",
}
_WITH_EXPLAIN = {"explain", "exclude", "only", "skip", "unproven", "color", "stdin_filename"}
_CLASHES = (
    ("vendor", "dependency"),
    ("reverting", "only"),
    ("reverting", "skip"),
    ("reverting", "unproven"),
    ("quiet", "verbose"),
    ("quiet", "interactive"),
)


@dataclass(frozen=True)
class Options:
    """The command line's options, by the names of its help text."""

    dry_run: bool
    check: bool
    reverting: bool
    interactive: bool
    explain: bool
    exclude: tuple[str, ...]
    only: tuple[str, ...]
    skip: tuple[str, ...]
    unproven: bool
    force: bool
    vendor: bool
    dependency: bool
    stdin_filename: Path | None
    json_file: Path | None
    sarif_file: Path | None
    markdown_file: Path | None
    html_file: Path | None
    color: str
    jobs: int | None
    quiet: bool
    verbose: bool

    @property
    def reports(self) -> list[Path]:
        """The files that the run writes reports to; `STDOUT` is standard output."""
        return [
            file
            for file in (self.json_file, self.sarif_file, self.markdown_file, self.html_file)
            if file is not None
        ]

    @property
    def writing(self) -> bool:
        return not (self.dry_run or self.check)

    @property
    def mode(self) -> str:
        action = "revert" if self.reverting else "apply"
        return (
            f"{action} --dry-run" if self.dry_run else f"{action} --check" if self.check else action
        )


def refuse_clashes(context: click.Context, *, stdin: bool) -> None:
    """Refuses options that do not go together.

    Raises:
        click.UsageError: names them.
    """
    source = click.core.ParameterSource.COMMANDLINE
    flags = {
        name: max(item.opts, key=len)
        for item in context.command.params
        if (name := item.name) is not None
    }
    given = [
        name for name in flags if name != "paths" and context.get_parameter_source(name) is source
    ]
    if stdin:
        _refuse_others("- (standard input)", given, _WITH_STDIN, flags)
    if "explain" in given:
        _refuse_others("--explain", given, _WITH_EXPLAIN, flags)
    if "stdin_filename" in given and not stdin:
        raise click.UsageError("--stdin-filename goes with - (standard input) alone")
    reports = [name for name in given if context.params.get(name) == STDOUT]
    if len(reports) > 1:
        names = " and ".join(flags[name] for name in reports)
        raise click.UsageError(f"{names} can't both be written to standard output")
    for one, other in _CLASHES:
        if one in given and other in given:
            raise click.UsageError(f"{flags[one]} does not go with {flags[other]}")


def _refuse_others(
    mode: str, given: Collection[str], allowed: set[str], flags: dict[str, str]
) -> None:
    if others := [flags[name] for name in given if name not in allowed]:
        raise click.UsageError(f"{mode} does not go with {', '.join(others)}")
