"""The command `flash-integrate`."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from flash_integrate import __version__
from flash_integrate.apply import uncommitted, write
from flash_integrate.codemod import name_of, registry
from flash_integrate.config import Config, ConfigError, load, merge
from flash_integrate.errors import FileError
from flash_integrate.options import Options, refuse_clashes
from flash_integrate.plan import Status
from flash_integrate.report.text import coloured, diff_of, print_summary
from flash_integrate.run import NOT_INTEGRATED, Outcome, explain_files, integrate, resolve, revert
from flash_integrate.stdin import revert_stdin, rewrite_stdin
from flash_integrate.terminal import ProgressBar, colours, error_console

if TYPE_CHECKING:
    from flash_integrate.extras.planning import Extras

# What only some options need is imported where they are heeded: a command line tool is to start at once.

EXIT_FOUND_WORK = 1
EXIT_FAILED = 2
EXIT_INTERRUPTED = 130
STDIN = Path("-")

EPILOG = """\b
Examples:
  flash-integrate ./my_repo --dry-run             show the diff, change nothing
  flash-integrate ./my_repo                       apply it
  flash-integrate ./my_repo --interactive         ask before each hunk
  flash-integrate ./my_repo --check               for CI: exit 1 if a script lacks the integration
  flash-integrate ./my_repo --revert              take everything out again, byte for byte
  flash-integrate --explain ./my_repo/chat.py     say what the tool sees in a file
  flash-integrate ./my_repo --dry-run | git apply
  flash-integrate - < chat.py > patched.py

\b
Exit status: 0 fine, 1 --check found work, 2 a file failed or the command line was wrong, 130 interrupted.
The diff goes to standard output, the summary to standard error.
[tool.flash-integrate] in the repo's pyproject.toml sets include, exclude, only and skip.
"""


class _Failure(click.ClickException):
    exit_code = EXIT_FAILED


def _check_report(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Whether a report can be written is asked before the run, which may change files."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(file.parent)!r}.")
    if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"{str(file)!r} can't be written.")
    return file


def _list_codemods(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        for codemod in registry():
            click.echo(f"{name_of(codemod):<16} {codemod.SUMMARY}")
        context.exit()


_REPORT: Any = {
    "type": click.Path(path_type=Path, dir_okay=False),
    "metavar": "FILE",
    "callback": _check_report,
}


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    metavar="PATH...",
)
@click.option("--dry-run", is_flag=True, help="Print the changes as a unified diff and write nothing.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything would change.")
@click.option("--revert", "reverting", is_flag=True, help="Take out what this tool has put in.")
@click.option("-i", "--interactive", is_flag=True, help="Ask before each hunk, as `git add -p` does.")
@click.option("--explain", is_flag=True, help="Say what is seen in each file, and why it is or is not changed.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out paths, as in .gitignore. Can be repeated.")
@click.option("--only", multiple=True, metavar="CODEMOD", help="Ask this codemod alone. Can be repeated.")
@click.option("--skip", multiple=True, metavar="CODEMOD", help="Do not ask this codemod. Can be repeated.")
@click.option(
    "--list-codemods",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_codemods,
    help="List the codemods and exit.",
)
@click.option("--force", is_flag=True, help="Write also over changes that are not committed to git.")
@click.option(
    "--vendor", is_flag=True, help="Also copy the runtime into the repo; again to update, --revert removes it."
)
@click.option(
    "--add-dependency",
    "dependency",
    is_flag=True,
    help="Also list mlx-flash-runtime where the repo lists MLX; --revert takes it out.",
)
@click.option("--json", "json_file", **_REPORT, help="Write the outcome of each file as JSON.")
@click.option("--sarif", "sarif_file", **_REPORT, help="Write a report for code scanning.")
@click.option("--markdown", "markdown_file", **_REPORT, help="Write a report for a pull request.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto heeds NO_COLOR.",
)
@click.option("-j", "--jobs", type=click.IntRange(1), help="Processes to plan with.  [default: by number of files]")
@click.option("-v", "--verbose", is_flag=True, help="List every file, the skipped ones with their reason.")
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context, /, paths: tuple[Path, ...], **options: Any) -> None:
    """Put the Flash Attention runtime into the MLX scripts below PATH.

    Each script that runs attention gains a guarded import, the flags --disable-flash-attention and
    --flash-block-size, and one call; scripts keep working where the runtime is not installed.
    """
    gc.disable()  # syntax trees are no cyclic garbage, and walking them again and again takes a third of a run's time
    refuse_clashes(context, stdin=STDIN in paths)
    try:
        sys.exit((_filter_stdin if STDIN in paths else _run)(list(paths), Options(**options)))
    except (FileError, ConfigError) as error:
        raise _Failure(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted. Each file is as it was, or changed as a whole.", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _run(paths: list[Path], options: Options) -> int:
    """Scans, writes or shows, reports; the exit status."""
    console = error_console(options.color)
    # What was put in is taken out whatever the configuration says by now.
    config = Config() if options.reverting else merge(load(paths[0]), only=options.only, skip=options.skip)
    if options.explain:
        for line in explain_files(paths, options.exclude, config):
            click.echo(line)
        return 0
    outcomes = _scan(paths, options, config, ProgressBar(console))
    if options.interactive:
        from flash_integrate.review.dialogue import review

        outcomes = review(outcomes, console, sys.stdin)
    extras = _plan_extras(outcomes, options)
    if options.writing:
        if not (options.force or options.reverting):
            _refuse_uncommitted(outcomes, extras)
        outcomes = _write_all(outcomes)
        extras.apply()
    if options.dry_run:
        _print_diffs(outcomes, extras, colours(options.color, sys.stdout.isatty()))
    _report(console, outcomes, extras, options)
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return EXIT_FAILED
    return EXIT_FOUND_WORK if options.check and _has_work(outcomes, extras) else 0


def _has_work(outcomes: Iterable[Outcome], extras: Extras) -> bool:
    return any(outcome.changes for outcome in outcomes) or bool(extras.changes)


def _scan(paths: list[Path], options: Options, config: Config, progress: ProgressBar) -> list[Outcome]:
    if options.reverting:
        return revert(paths, options.exclude, progress)
    return integrate(paths, options.exclude, progress, config, options.jobs)


def _plan_extras(outcomes: Sequence[Outcome], options: Options) -> Extras:
    from flash_integrate.extras.planning import plan_extras, plan_removal_of_extras

    if options.reverting:
        return plan_removal_of_extras(outcomes, dependency=options.dependency, force=options.force)
    return plan_extras(outcomes, vendor=options.vendor, dependency=options.dependency, force=options.force)


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
        write(outcome.path, outcome.before, outcome.after)
    except FileError as error:
        return dataclasses.replace(outcome, status=Status.FAILED, reason=str(error), line=error.line)
    return outcome


def _refuse_uncommitted(outcomes: Iterable[Outcome], extras: Extras) -> None:
    paths = {outcome.path: str(outcome.name) for outcome in outcomes if outcome.changes}
    paths |= {path: path.name for path in extras.overwritten}
    try:
        dirty = set(uncommitted(paths))
    except FileError as error:
        raise _Failure(f"{error}\nWith --force the files are written all the same.") from error
    if dirty:
        names = "\n".join(f"  {name}" for path, name in paths.items() if path in dirty)
        raise _Failure(
            f"these files have changes that are not committed; nothing was written:\n{names}\n"
            "Commit or stash them first, or write over them with --force."
        )


def _filter_stdin(paths: Sequence[Path], options: Options) -> int:
    """`flash-integrate -`: the source as it is to be on standard output; the exit status."""
    if len(paths) > 1:
        raise click.UsageError("- stands for standard input and goes with no other path")
    config = merge(Config(), only=options.only, skip=options.skip)
    before = sys.stdin.buffer.read()
    try:
        after = revert_stdin(before) if options.reverting else rewrite_stdin(before, wants=config.wants)[0]
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
        sys.stdout.buffer.write(coloured(line) if colours else line)
    sys.stdout.buffer.flush()


def _report(console: Console, outcomes: Sequence[Outcome], extras: Extras, options: Options) -> None:
    dry_run = not options.writing
    print_summary(console, outcomes, dry_run=dry_run, verbose=options.verbose)
    if outcomes and not extras.changes and all(outcome.reason == NOT_INTEGRATED for outcome in outcomes):
        console.print(Text("nothing to revert"))
    for line in extras.described(dry_run=dry_run):
        console.print(Text(line))
    for note in extras.notes:
        console.print(Text(note, "yellow"))
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
        raise _Failure(f"{file}: {error.strerror}") from error
