"""The reports of a run: to a file, or to standard output for `-`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from flash_integrate.cli.options import STDOUT, Options
from flash_integrate.errors import FileError
from flash_integrate.planning.outcome import Outcome
from flash_integrate.quoting import quoted

# A report that is not asked for is not imported: a command line tool is to start at once.


def refuse_reports_over(paths: Iterable[Path], options: Options) -> None:
    """Checks that no report takes the place of one of `paths`, by whatever name: a hard link is
    the same file too.

    Raises:
        FileError: one would.
    """
    reports = [file for file in options.reports if file != STDOUT and file.exists()]
    for path in paths if reports else ():
        for file in reports:
            with suppress(OSError):  # a file that has vanished is none
                if file.samefile(path):
                    raise FileError(
                        f"the report {file} would be written over {path}; nothing was written"
                    )


def write_reports(outcomes: Sequence[Outcome], options: Options) -> None:
    """Writes each report that is asked for.

    Raises:
        FileError: one can't be written.
    """
    dry_run = not options.writing
    if options.json_file is not None:
        from flash_integrate.report.json_report import as_json

        _write(options.json_file, as_json(outcomes, options.mode, dry_run=dry_run))
    if options.sarif_file is not None:
        from flash_integrate.report.sarif import as_sarif

        _write(options.sarif_file, as_sarif(outcomes, dry_run=dry_run))
    if options.markdown_file is not None:
        from flash_integrate.report.markdown import as_markdown

        _write(options.markdown_file, as_markdown(outcomes, dry_run=dry_run))
    if options.html_file is not None:
        from flash_integrate.report.review_page import as_html

        _write(options.html_file, as_html(outcomes, dry_run=dry_run))


def _write(file: Path, text: str) -> None:
    if file == STDOUT:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{quoted(file)}: {error.strerror}") from error
