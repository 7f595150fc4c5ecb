"""The statements that a patched script gains, as text, laid out as black and ruff format would
write them; `integrated.py` finds the same statements again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RUNTIME = "mlx_flash_runtime"
ENABLE = "enable_flash_attention"
DISABLE_FLAG = "--disable-flash-attention"
BLOCK_SIZE_FLAG = "--flash-block-size"
DISABLE_HELP = "use stock MLX attention"
BLOCK_SIZE_HELP = "a multiple of 8"
BEFORE_COMMAND = "; before the command"
"""Ends the help of the flags of a parser that has commands: argparse takes them nowhere else."""
FLAG_NAMES = ("disable_flash_attention", "flash_block_size")


@dataclass(frozen=True)
class Style:
    """How a file is written: the quote character of its calls' strings, and the width that its
    formatter gives lines."""

    quote: str = '"'
    width: int = 88


def laid_out(head: str, items: Sequence[str], tail: str, style: Style, indent: int) -> str:
    """What stands in brackets, at a column of `indent`: on one line where it fits; else the items
    on a line of their own; else an item a line, with a trailing comma."""
    joined = ", ".join(items)
    line = f"{head}{joined}{tail}\n"
    if "\n" not in joined and indent + len(line) - 1 <= style.width:
        return line
    if "\n" not in joined and indent + 4 + len(joined) <= style.width:
        return f"{head}\n    {joined}\n{tail}\n"
    inner = "".join(f"{item},\n" for item in items)
    return f"{head}\n{indented(inner)}{tail}\n"


def indented(code: str, columns: int = 4) -> str:
    """Code that stands `columns` further to the right."""
    return "".join(" " * columns + line for line in code.splitlines(keepends=True))


def _call(function: str, arguments: Sequence[str], style: Style, indent: int) -> str:
    return laid_out(f"{function}(", arguments, ")", style, indent)


def _option(function: str, arguments: Sequence[str], style: Style, indent: int) -> str:
    """A call with strings among its arguments, in the file's quotes."""
    in_quotes = [argument.replace("'", style.quote) for argument in arguments]
    return _call(function, in_quotes, style, indent)


def flags(
    parser: str,
    style: Style,
    indent: int,
    *,
    own_defaults: bool = False,
    has_commands: bool = False,
) -> str:
    """The two `add_argument` calls on the expression `parser`, at a column of `indent`.

    `own_defaults` states the defaults, for a parser whose `argument_default` would take their
    place; `has_commands` has the help say where the flags of a parser with commands go.
    """
    where = BEFORE_COMMAND if has_commands else ""
    disable = [repr(DISABLE_FLAG), "action='store_true'"]
    block_size = [repr(BLOCK_SIZE_FLAG)]
    if own_defaults:
        disable.append("default=False")
        block_size.append("default=None")
    disable.append(f"help={DISABLE_HELP + where!r}")
    block_size += ["metavar='N'", f"help={BLOCK_SIZE_HELP + where!r}"]
    add = f"{parser}.add_argument"
    return _option(add, disable, style, indent) + _option(add, block_size, style, indent)


def click_options(option: str, style: Style, indent: int) -> str:
    """The two options above a command of click; `option` is how the file names `click.option`."""
    disable = [repr(DISABLE_FLAG), "is_flag=True", f"help={DISABLE_HELP!r}"]
    block_size = [repr(BLOCK_SIZE_FLAG), "metavar='N'", f"help={BLOCK_SIZE_HELP!r}"]
    options = [_option(f"@{option}", each, style, indent) for each in (disable, block_size)]
    return indented("".join(options), indent)


def typer_parameters(
    option: str, style: Style, optional_text: str, indent: int, *, annotated: bool
) -> list[str]:
    """The two parameters of a command of typer, for lines of their own at a column of `indent`;
    `option` is how the file names `typer.Option`."""
    disable = [repr(DISABLE_FLAG), f"help={DISABLE_HELP!r}"]
    block_size = ["metavar='N'", f"help={BLOCK_SIZE_HELP!r}"]
    write = _annotated if annotated else _with_option_as_default
    return [
        write(FLAG_NAMES[0], "bool", "False", option, disable, style, indent),
        write(FLAG_NAMES[1], optional_text, "None", option, block_size, style, indent),
    ]


def _with_option_as_default(
    name: str, kind: str, default: str, option: str, arguments: list[str], style: Style, indent: int
) -> str:
    head = f"{name}: {kind} = {option}"
    # The comma behind the parameter takes a column too.
    return _option(head, [default, *arguments], style, indent + 1).rstrip()


def _annotated(
    name: str, kind: str, default: str, option: str, arguments: list[str], style: Style, indent: int
) -> str:
    one_line = _option(option, arguments, style, -style.width).rstrip()
    line = f"{name}: Annotated[{kind}, {one_line}] = {default}"
    if indent + len(line) < style.width:  # and the comma behind it
        return line
    inner = _option(option, arguments, style, indent + 5).rstrip()
    return laid_out(f"{name}: Annotated[", [kind, inner], f"] = {default}", style, indent).rstrip()


def enable(style: Style, indent: int) -> str:
    """The patch call of a script without flags: the environment variables alone steer it."""
    return _guarded([], style, indent)


def enable_inherited(style: Style, indent: int) -> str:
    """The patch call in a worker process, which does what the program has chosen."""
    return _guarded(["inherit=True"], style, indent)


def enable_from_parameters(style: Style, indent: int) -> str:
    """The patch call with the flags of a command's own parameters."""
    disable, block_size = FLAG_NAMES
    return _guarded([f"not {disable}", block_size], style, indent)


def enable_from(
    namespace: str, style: Style, indent: int, *, mapping: bool = False, remove: bool = False
) -> str:
    """The patch call with the flags of `namespace`, an argparse namespace or (`mapping`) its dict.

    `remove` takes the two names out again, for a namespace that is passed on as a whole.
    """
    disable, block_size = (_item(namespace, name, style, mapping) for name in FLAG_NAMES)
    code = _guarded([f"not {disable}", block_size], style, indent)
    return code + remove_names(namespace, style, indent, mapping=mapping) if remove else code


def _guarded(arguments: Sequence[str], style: Style, indent: int) -> str:
    """The import and the call. The import stands with the call, so that MLX is not loaded before
    the script itself is past its imports."""
    call = _call(ENABLE, arguments, style, indent + 4)
    return (
        f"try:\n"
        f"    from {RUNTIME} import {ENABLE}\n"
        f"except ImportError:\n"
        f"    pass  # not installed: MLX's own attention runs\n"
        f"else:\n"
        f"{indented(call)}"
    )


def remove_names(namespace: str, style: Style, indent: int, *, mapping: bool) -> str:
    """The statements that take the two names out of a namespace or dict. Out of a namespace by its
    dict: type checkers know of no attribute of it that can be deleted."""
    held_in = namespace if mapping else f"vars({namespace})"
    items = [_item(held_in, name, style, mapping=True) for name in FLAG_NAMES]
    line = f"del {', '.join(items)}\n"
    if indent + len(line) - 1 <= style.width:
        return line
    return "".join(f"del {item}\n" for item in items)


def _item(namespace: str, name: str, style: Style, mapping: bool) -> str:
    return f"{namespace}[{style.quote}{name}{style.quote}]" if mapping else f"{namespace}.{name}"
