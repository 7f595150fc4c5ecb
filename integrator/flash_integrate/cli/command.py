"""What the command does: scans, asks, writes or shows, reports; and `-`, the filter."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from flash_integrate.cli.applying import Uncommitted, apply, files_of, refuse_uncommitted
from flash_integrate.cli.errors import EXIT_FAILED, Failure
from flash_integrate.cli.options import STDIN, STDOUT, Options
from flash_integrate.cli.reports import refuse_reports_over, write_reports
from flash_integrate.cli.stdin import (
    REWRITES_FILES_ALONE,
    Piped,
    explained,
    planned,
    undone,
)
from flash_integrate.cli.terminal import ProgressBar, colours, error_console
from flash_integrate.disk.reading import SOURCE_LIMIT
from flash_integrate.errors import FileError, own_error
from flash_integrate.planning.codemod import name_of, offered, rewriters
from flash_integrate.planning.outcome import Outcome
from flash_integrate.planning.plan import Status
from flash_integrate.planning.reverting import revert
from flash_integrate.planning.run import Run, integrate
from flash_integrate.project.config import Config, ConfigError, check_patterns, load_for, merge
from flash_integrate.project.discover import discover
from flash_integrate.quoting import printable
from flash_integrate.report.explain import explain_files
from flash_integrate.report.text import diff_of, on_terminal, print_outcome, print_summary, say

if TYPE_CHECKING:
    from flash_integrate.vendor.extras import Extras

# What only some options need is imported where they are heeded: a command line tool is to start at
# once.

EXIT_FOUND_WORK = 1


def start(paths: list[Path], options: Options) -> int:
    """Runs the command; the exit status.

    Raises:
        click.ClickException: the run can't go on; says why.
    """
    try:
        return _filter(paths, options) if STDIN in paths else _run(paths, options)
    except (FileError, ConfigError, Uncommitted) as error:
        raise Failure(str(error)) from error
    except (click.ClickException, OSError):  # of a pipe that nobody reads, click takes care
        raise
    except Exception as error:
        raise Failure(str(own_error(error))) from error


def _run(paths: list[Path], options: Options) -> int:
    """Scans, writes or shows, reports; the exit status."""
    console = error_console(options.color)
    check_patterns("--exclude", options.exclude)
    config = _configuration(paths, options)
    if options.explain:
        return _explain(paths, options, config)
    outcomes = _scan(paths, options, config, ProgressBar(console))
    asks_git = options.writing and not (options.force or options.reverting)
    if options.interactive:
        from flash_integrate.review.dialogue import review

        if asks_git:  # before the questions: nobody answers them in vain
            refuse_uncommitted(outcomes, _plan_extras(outcomes, options))
        outcomes = review(outcomes, console, sys.stdin)
    extras = _plan_extras(outcomes, options)
    refuse_reports_over(files_of(outcomes, extras), options)
    if options.writing:
        if asks_git and not options.interactive:
            refuse_uncommitted(outcomes, extras)
        outcomes, extras = apply(outcomes, extras)
    if options.dry_run and STDOUT not in options.reports:
        _print_diffs(outcomes, extras, options.color)
    _report(console, outcomes, extras, options)
    write_reports(outcomes, options)
    if extras.failures or any(outcome.status is Status.FAILED for outcome in outcomes):
        return EXIT_FAILED
    return EXIT_FOUND_WORK if options.check and _has_work(outcomes, extras) else 0


def _configuration(paths: Iterable[Path], options: Options) -> Config:
    # What was put in is taken out whatever the configuration says by now.
    if options.reverting:
        return Config()
    known = offered()
    config = merge(load_for(paths, known), known, only=options.only, skip=options.skip)
    return dataclasses.replace(config, unproven=options.unproven)


def _explain(paths: list[Path], options: Options, config: Config) -> int:
    run = Run(config)
    files = list(discover(paths, options.exclude))
    for found in files:
        run.scan(found, look_further=True)
    for line in explain_files(run, files):
        click.echo(printable(line))
    return EXIT_FAILED if run.failed else 0


def _has_work(outcomes: Iterable[Outcome], extras: Extras) -> bool:
    return any(outcome.changes for outcome in outcomes) or bool(extras.changes)


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


def _print_diffs(outcomes: Iterable[Outcome], extras: Extras, color: str) -> None:
    _print_diff((line for item in outcomes if item.changes for line in diff_of(item)), color)
    _print_diff((line for change in extras.changes for line in change.diff()), color)


def _print_diff(lines: Iterable[bytes], color: str) -> None:
    coloured = colours(color, sys.stdout.isatty())
    for line in lines:
        if coloured or sys.stdout.isatty():
            shown = on_terminal(line, colours=coloured)
            line = shown.encode(sys.stdout.encoding, "backslashreplace")
        # Who reads it in a pipe gets the files' own bytes, as `git apply` needs them.
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _report(
    console: Console, outcomes: Sequence[Outcome], extras: Extras, options: Options
) -> None:
    if options.quiet:
        outcomes = [outcome for outcome in outcomes if outcome.status is Status.FAILED]
    if outcomes or not options.quiet:
        dry_run, also = not options.writing, bool(extras.changes)
        print_summary(console, outcomes, dry_run=dry_run, verbose=options.verbose, also=also)
    if not options.quiet:
        for line in extras.described(dry_run=not options.writing):
            say(console, line)
        for line in _lines(extras.notes):
            say(console, line, "yellow")
    for line in _lines(extras.failures):
        say(console, line, "red")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    return (line for text in texts for line in text.splitlines())


# Standard input


def _filter(paths: Sequence[Path], options: Options) -> int:
    """`flash-integrate -`: the source as it is to be, or its diff, on standard output; the exit
    status."""
    if len(paths) > 1:
        raise click.UsageError("- stands for standard input and goes with no other path")
    piped = Piped(sys.stdin.buffer.read(SOURCE_LIMIT + 1), options.stdin_filename)
    if len(piped.data) > SOURCE_LIMIT:
        raise Failure(f"{piped.shown}: larger than {SOURCE_LIMIT >> 20} MiB")
    named = [] if options.stdin_filename is None else [options.stdin_filename]
    config = _configuration(named, options)
    if set(config.only) & (alone := set(map(name_of, rewriters()))):
        raise Failure(f"{min(alone)} does not go with -: {REWRITES_FILES_ALONE}")
    try:
        if options.explain:
            for line in explained(piped, config):
                click.echo(printable(line))
            return 0
        outcome = undone(piped) if options.reverting else planned(piped, config)
    except FileError as error:
        raise Failure(f"{piped.shown}:{error.line or 1}: {error}") from error
    if options.dry_run:
        _print_diff(diff_of(outcome) if outcome.changes else [], options.color)
    elif not options.check:
        sys.stdout.buffer.write(outcome.after if outcome.changes else piped.data)
    if not options.quiet:
        dry_run = options.dry_run or options.check
        print_outcome(error_console(options.color), outcome, dry_run=dry_run)
    return EXIT_FOUND_WORK if options.check and outcome.changes else 0
