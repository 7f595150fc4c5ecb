"""Commands of click. Two options on each command that runs the model, which reads them first of
all, or below its import of MLX.

Inserts: `@click.option("--disable-flash-attention")` and
`@click.option("--flash-block-size")` below the command's last own option; two parameters with
defaults, so that who calls the function need not know of them; the call.

Refuses: commands that have such an option, use their arguments as a whole or stand below a
decorator that may not hand them on, and files in which `click.option` has no name. Those get the
call alone.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from flash_codemods.commands.flags import edit_commands, optional_text
from flash_codemods.commands.functions import (
    Command,
    click_option,
    commands_to_edit,
    refusal_of_options,
)
from flash_codemods.commands.snippets import click_options
from flash_integrate.inserted.snippets import FLAG_NAMES
from flash_integrate.notes import Refusal
from flash_integrate.project.style import quote_in
from flash_integrate.project.workspace import FileFacts
from flash_integrate.python.edits import Edit, Splice
from flash_integrate.python.syntax import dotted, walk

ORDER = 14
SUMMARY = (
    "click commands: two options on the command that runs the model, "
    "the call as its first statement"
)
GIVES_FLAGS = True
REVIEW = "the options stand on the command that runs the model"


def match(facts: FileFacts) -> list[Command] | Refusal | None:
    commands = commands_to_edit(facts, "click")
    if not commands:
        return None
    if click_option(facts) is None:
        return Refusal("click.option has no name in this file")
    for command in commands:
        if reason := refusal_of_options(facts, command):
            return Refusal(reason, command.statement.line)
    return commands


def edit(facts: FileFacts, match: Sequence[Command]) -> list[Edit]:
    edits = edit_commands(facts, match, lambda command: _parameters(facts, command))
    return [*edits, *(_options(facts, command) for command in match)]


def _parameters(facts: FileFacts, command: Command) -> list[str]:
    """The parameters, annotated where the function's author annotates others, or its result."""
    disable, block_size = FLAG_NAMES
    arguments = command.node.args
    others = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if command.node.returns or any(item.annotation for item in others):
        return [f"{disable}: bool = False", f"{block_size}: {optional_text(facts)} = None"]
    return [f"{disable}=False", f"{block_size}=None"]


def _options(facts: FileFacts, command: Command) -> Splice:
    """The options, below the last option that stands above the function, or below the command's
    own decorator."""
    option = click_option(facts) or ""
    decorators = command.node.decorator_list
    names = [dotted(item.func if isinstance(item, ast.Call) else item) or "" for item in decorators]
    own = [index for index, name in enumerate(names) if name == option]
    last = decorators[max([*own, command.head or 0])]
    indent = command.node.col_offset
    beside = [part for item in decorators for part in walk(item)]
    quote = quote_in(facts.module, beside) or facts.style.quote
    style = replace(facts.style, quote=quote)
    return Splice(((last.end_lineno or last.lineno) + 1, 0), click_options(option, style, indent))
