"""What the command does: scans, asks, writes or shows, reports; and `-`, the filter."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from flash_integrate.cli.options import STDIN, Options
from flash_integrate.cli.stdin import revert_stdin, rewrite_stdin
from flash_integrate.cli.terminal import ProgressBar, colours, error_console
from flash_integrate.disk.committed import uncommitted
from flash_integrate.disk.reading import SOURCE_LIMIT
from flash_integrate.disk.writing import remove_leftovers, write
from flash_integrate.errors import FileError, own_error
from flash_integrate.planning.codemod import offered
from flash_integrate.planning.outcome import NOT_INTEGRATED, Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.planning.run import integrate, resolve
from flash_integrate.project.config import Config, ConfigError, check_patterns, load_for, merge
from flash_integrate.quoting import printable, quoted
from flash_integrate.report.explain import explain_files
from flash_integrate.report.text import diff_of, on_terminal, print_summary, say

if TYPE_CHECKING:
    from flash_integrate.vendor.extras import Extras

# What only some options need is imported where they are heeded: a command line tool is to start at
# once.

EXIT_FOUND_WORK = 1
EXIT_FAILED = 2


class _Failure(click.ClickException):
    """Ends the run with a message, of which nothing but its own line breaks reaches the terminal
    as a control."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


def start(paths: list[Path], options: Options) -> int:
    """Runs the command; the exit status.

    Raises:
        click.ClickException: the run can't go on; says why.
    """
    try:
        return _filter_stdin(paths, options) if STDIN in paths else _run(paths, options)
    except (FileError, ConfigError) as error:
        raise _Failure(str(error)) from error
    except (click.ClickException, OSError):  # of a pipe that nobody reads, click takes care
        raise
    except Exception as error:
        raise _Failure(str(own_error(error))) from error


def _run(paths: list[Path], options: Options) -> int:
    """Scans, writes or shows, reports; the exit status."""
    console = error_console(options.color)
    check_patterns("--exclude", options.exclude)
    # What was put in is taken out whatever the configuration says by now.
    config = (
        Config()
        if options.reverting
        else merge(load_for(paths, offered()), offered(), only=options.only, skip=options.skip)
    )
    config = dataclasses.replace(config, unproven=options.unproven)
    if options.explain:
        for line in explain_files(paths, options.exclude, config):
            click.echo(printable(line))
        return 0
    outcomes = _scan(paths, options, config, ProgressBar(console))
    if options.interactive:
        from flash_integrate.review.dialogue import review

        outcomes = review(outcomes, console, sys.stdin)
    extras = _plan_extras(outcomes, options)
    _refuse_reports_over(_files_of(outcomes, extras), options)
    if options.writing:
        if not (options.force or options.reverting):
            _refuse_uncommitted(outcomes, extras)
        remove_leftovers({path.parent for path in _files_of(outcomes, extras)})
        outcomes = _write_all(outcomes)
        extras = extras.apply()
    if options.dry_run:
        _print_diffs(outcomes, extras, colours(options.color, sys.stdout.isatty()))
    _report(console, outcomes, extras, options)
    if extras.failures or any(outcome.status is Status.FAILED for outcome in outcomes):
        return EXIT_FAILED
    return EXIT_FOUND_WORK if options.check and _has_work(outcomes, extras) else 0


def _has_work(outcomes: Iterable[Outcome], extras: Extras) -> bool:
    return any(outcome.changes for outcome in outcomes) or bool(extras.changes)


def _files_of(outcomes: Iterable[Outcome], extras: Extras) -> list[Path]:
    """The files that this run looked at, and those that it may write beside them."""
    return [*(outcome.path for outcome in outcomes), *(change.path for change in extras.changes)]


def _refuse_reports_over(paths: Iterable[Path], options: Options) -> None:
    """Refuses a report in the place of one of `paths`, by whatever name: a hard link is the same
    file too."""
    reports = [file for file in options.reports if file.exists()]
    for path in paths if reports else ():
        for file in reports:
            with suppress(OSError):  # a file that has vanished is none
                if file.samefile(path):
                    raise _Failure(
                        f"the report {file} would be written over {path}; nothing was written"
                    )


def _scan(
    paths: list[Path], options: Options, config: Config, progress: ProgressBar
) -> list[Outcome]:
    if options.reverting:
        return revert(paths, options.exclude, progress)
    return integrate(paths, options.exclude, progress, config, options.jobs)


def _plan_extras(outcomes: Sequence[Outcome], options: Options) -> Extras:
    from flash_integrate.vendor.extras import plan_extras, plan_removal_of_extras

    if options.reverting:
        return plan_removal_of_extras(outcomes, dependency=options.dependency, force=options.force)
    return plan_extras(
        outcomes, vendor=options.vendor, dependency=options.dependency, force=options.force
    )


def _write_all(outcomes: list[Outcome]) -> list[Outcome]:
    """Writes the files first that others need, and not the others where that fails."""
    needed = {(outcome.base, name) for outcome in outcomes for name in outcome.needs}
    first = [_written(item) if (item.base, item.name) in needed else item for item in outcomes]
    return [item if (item.base, item.name) in needed else _written(item) for item in resolve(first)]


def _written(outcome: Outcome) -> Outcome:
    """Writes a change to disk; an outcome that could not be written is a failed one."""
    if not outcome.changes:
        return outcome
    try:
        write(outcome.path, outcome.base, outcome.before, outcome.result)
    except FileError as error:
        return dataclasses.replace(
            outcome, status=Status.FAILED, reason=str(error), line=error.line
        )
    return outcome


def _refuse_uncommitted(outcomes: Iterable[Outcome], extras: Extras) -> None:
    held = {outcome.path: outcome.before for outcome in outcomes if outcome.changes}
    held |= {change.path: change.before for change in extras.changes if change.before is not None}
    names = {item.path: quoted(item.name) for item in (*outcomes, *extras.changes)}
    try:
        found = uncommitted(held)
    except FileError as error:
        raise _Failure(f"{error}\nWith --force the files are written all the same.") from error
    if found:
        listed = [
            f"  {names[path]}: {doubt}" if doubt else f"  {names[path]}"
            for path, doubt in found.items()
        ]
        raise _Failure(
            "these files have changes that are not committed; nothing was written:\n"
            + "\n".join(listed)
            + "\n"
            "Commit or stash them first, or write over them with --force."
        )


def _filter_stdin(paths: Sequence[Path], options: Options) -> int:
    """`flash-integrate -`: the source as it is to be on standard output; the exit status."""
    if len(paths) > 1:
        raise click.UsageError("- stands for standard input and goes with no other path")
    config = merge(Config(), offered(), only=options.only, skip=options.skip)
    before = sys.stdin.buffer.read(SOURCE_LIMIT + 1)
    if len(before) > SOURCE_LIMIT:
        raise _Failure(f"<stdin>: larger than {SOURCE_LIMIT >> 20} MiB")
    try:
        after = (
            revert_stdin(before)
            if options.reverting
            else rewrite_stdin(before, wants=config.wants)[0]
        )
    except FileError as error:
        raise _Failure(f"<stdin>:{error.line or 1}: {error}") from error
    if options.check:
        return EXIT_FOUND_WORK if after != before else 0
    sys.stdout.buffer.write(after)
    return 0


def _print_diffs(outcomes: Iterable[Outcome], extras: Extras, colours: bool) -> None:
    diffs = [diff_of(outcome) for outcome in outcomes if outcome.changes]
    diffs += [list(change.diff()) for change in extras.changes]
    for line in (line for diff in diffs for line in diff):
        # Who reads it in a pipe gets the files' own bytes, as `git apply` needs them.
        shown = (
            on_terminal(line, colours=colours).encode() if colours or sys.stdout.isatty() else line
        )
        sys.stdout.buffer.write(shown)
    sys.stdout.buffer.flush()


def _report(
    console: Console, outcomes: Sequence[Outcome], extras: Extras, options: Options
) -> None:
    dry_run = not options.writing
    print_summary(console, outcomes, dry_run=dry_run, verbose=options.verbose)
    if (
        outcomes
        and not extras.changes
        and all(outcome.reason == NOT_INTEGRATED for outcome in outcomes)
    ):
        say(console, "nothing to revert")
    for line in extras.described(dry_run=dry_run):
        say(console, line)
    for line in (line for note in extras.notes for line in note.splitlines()):
        say(console, line, "yellow")
    for line in (line for failure in extras.failures for line in failure.splitlines()):
        say(console, line, "red")
    if options.json_file is not None:
        from flash_integrate.report.json_report import as_json

        _write_report(options.json_file, as_json(outcomes, options.mode))
    if options.sarif_file is not None:
        from flash_integrate.report.sarif import as_sarif

        _write_report(options.sarif_file, as_sarif(outcomes, dry_run=dry_run))
    if options.markdown_file is not None:
        from flash_integrate.report.markdown import as_markdown

        _write_report(options.markdown_file, as_markdown(outcomes, dry_run=dry_run))


def _write_report(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _Failure(f"{quoted(file)}: {error.strerror}") from error
