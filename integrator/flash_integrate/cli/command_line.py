"""The command line of `flash-integrate`; what it does stands in `command`, which takes longer to
load."""

from __future__ import annotations

import gc
import os
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flash_integrate import __version__
from flash_integrate.cli.errors import WrongUsage
from flash_integrate.cli.options import STDIN, STDOUT, Options, refuse_clashes
from flash_integrate.cli.terminal import print_in_any_encoding
from flash_integrate.quoting import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_INTERRUPTED = 130

EPILOG = """\b
Examples:
  flash-integrate ./my_repo --dry-run             show the diff, change nothing
  flash-integrate ./my_repo                       apply it
  flash-integrate ./my_repo --interactive         ask before each hunk
  flash-integrate ./my_repo --check               for CI: exit 1 if a script lacks the integration
  flash-integrate ./my_repo --revert              take everything out again, byte for byte
  flash-integrate ./my_repo --only handwritten-attention   rewrite attention by hand alone
  flash-integrate --explain ./my_repo/chat.py     say what the tool sees in a file
  cd my_repo && flash-integrate . --dry-run | git apply
  flash-integrate - < chat.py > patched.py
  flash-integrate --check --quiet --json - | jq .summary

\b
Exit status: 0 fine, 1 --check found work, 2 a file failed or the command line was wrong, \
130 interrupted.
The diff goes to standard output, the summary to standard error.
[tool.flash-integrate] in the repo's pyproject.toml sets include, exclude, only and skip.
"""


def _is_read(file: Path) -> bool:
    """Whether a file of this name is one that this tool reads: a source, or what configures or
    packages a repo."""
    return (
        file.suffix in {".py", ".pyw", ".ipynb"}
        or file.name in {".gitignore", "pyproject.toml", "setup.cfg", "VENDORED.json"}
        or fnmatch(file.name, "requirements*.txt")
    )


def _codemods(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """The codemods whose name begins so, for the shell's completion."""
    from click.shell_completion import CompletionItem

    from flash_integrate.planning.codemod import offered

    found = offered().items()
    return [CompletionItem(name, help=text) for name, text in found if name.startswith(begun)]


def _check_report(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Whether a report can be written is asked before the run, which may change files."""
    if file == STDOUT:
        return file
    if file is not None and _is_read(Path(os.path.realpath(file))):
        raise click.BadParameter(
            f"{str(file)!r} has the name of a file that this tool reads; choose another."
        )
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(file.parent)!r}.")
    if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"{str(file)!r} can't be written.")
    return file


def _list_codemods(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from flash_integrate.planning.codemod import offered

        for name, summary in offered().items():
            click.echo(f"{name:<22} {summary}")
        context.exit()


_REPORT: Any = {
    "type": click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    "metavar": "FILE",
    "callback": _check_report,
}


class _Command(click.Command):
    """A command that tells of every wrong use in one way."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise WrongUsage(error, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise WrongUsage(error, ctx) from error


@click.command(
    cls=_Command,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument(
    "paths",
    nargs=-1,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    metavar="[PATH]...",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the changes as a unified diff and write nothing."
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if anything would change.")
@click.option("--revert", "reverting", is_flag=True, help="Take out what this tool has put in.")
@click.option(
    "-i", "--interactive", is_flag=True, help="Ask before each hunk, as `git add -p` does."
)
@click.option(
    "--explain",
    is_flag=True,
    help="Say what is seen in each file, and why it is or is not changed.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out paths, as in .gitignore. Can be repeated.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="CODEMOD",
    shell_complete=_codemods,
    help="Use this codemod alone. Can be repeated.",
)
@click.option(
    "--skip",
    multiple=True,
    metavar="CODEMOD",
    shell_complete=_codemods,
    help="Do not use this codemod. Can be repeated.",
)
@click.option(
    "--list-codemods",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_codemods,
    help="List the codemods and exit.",
)
@click.option(
    "--unproven",
    is_flag=True,
    help="Offer rewrites of attention by hand also where the proof could not be made.",
)
@click.option(
    "--force", is_flag=True, help="Write also over changes that are not committed to git."
)
@click.option(
    "--vendor",
    is_flag=True,
    help="Also copy the runtime into the repo; again to update, --revert removes it.",
)
@click.option(
    "--add-dependency",
    "dependency",
    is_flag=True,
    help="Also list mlx-flash-runtime where the repo lists MLX; --revert takes it out.",
)
@click.option(
    "--stdin-filename",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With -: the file that standard input is the text of.",
)
@click.option(
    "--json", "json_file", **_REPORT, help="Write the outcome of each file as JSON; - for stdout."
)
@click.option(
    "--sarif", "sarif_file", **_REPORT, help="Write a report for code scanning; - for stdout."
)
@click.option(
    "--markdown",
    "markdown_file",
    **_REPORT,
    help="Write a report for a pull request; - for stdout.",
)
@click.option("--html", "html_file", **_REPORT, help="Write a page to review on; - for stdout.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto heeds NO_COLOR.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    help="Processes to plan with.  [default: by number of files]",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors; the diff is shown.")
@click.option(
    "-v", "--verbose", is_flag=True, help="List every file, the skipped ones with their reason."
)
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context, /, paths: tuple[Path, ...], **options: Any) -> None:
    """Put the Flash Attention runtime into the MLX scripts below PATH: by default those of the
    current folder; - is standard input.

    \b
    Each script that runs attention gains one call, and two flags that steer it,
    --disable-flash-attention and --flash-block-size. Where the runtime is not
    installed, it runs on MLX's own attention as before.
    """
    # Python looks for garbage whenever some hundred objects were made, and a syntax tree has ten
    # thousand: that would take a third of a run's time.
    gc.set_threshold(200_000)
    print_in_any_encoding()
    given = list(paths) or [Path()]
    refuse_clashes(context, stdin=STDIN in given)
    try:
        from flash_integrate.cli.command import start

        sys.exit(start(given, Options(**options)))
    except KeyboardInterrupt as error:
        told = getattr(error, "told", ("nothing was written",))
        click.echo("\n".join(["Interrupted:", *map(printable, told)]), err=True)
        sys.exit(EXIT_INTERRUPTED)
