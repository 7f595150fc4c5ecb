"""The statements that a patched script gains, as text, laid out as black and ruff format would
write them; what a style of command line gains besides stands with its codemods. `forms.py` finds
the same statements again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RUNTIME = "mlx_flash_runtime"
ENABLE = "enable_flash_attention"
_INHERIT = "inherit=True"
INHERITED = f"{ENABLE}({_INHERIT})"
"""The call in a worker process."""
DISABLE_FLAG = "--disable-flash-attention"
BLOCK_SIZE_FLAG = "--flash-block-size"
DISABLE_HELP = "use stock MLX attention"
BLOCK_SIZE_HELP = "a multiple of 8"
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


def call(function: str, arguments: Sequence[str], style: Style, indent: int) -> str:
    """A call on lines of its own, at a column of `indent`."""
    return laid_out(f"{function}(", arguments, ")", style, indent)


def quoted_call(function: str, arguments: Sequence[str], style: Style, indent: int) -> str:
    """A call with strings among its arguments, in the file's quotes."""
    in_quotes = [argument.replace("'", style.quote) for argument in arguments]
    return call(function, in_quotes, style, indent)


def enable(style: Style, indent: int) -> str:
    """The patch call of a script without flags: the environment variables alone steer it."""
    return enable_with([], style, indent)


def enable_inherited(style: Style, indent: int) -> str:
    """The patch call in a worker process, which does what the program has chosen."""
    return enable_with([_INHERIT], style, indent)


def enable_by_flags(disable: str, block_size: str, style: Style, indent: int) -> str:
    """The patch call with the flags' values, which these expressions read."""
    return enable_with([f"not {disable}", block_size], style, indent)


def enable_with(arguments: Sequence[str], style: Style, indent: int) -> str:
    """The import and the call. The import stands with the call, so that MLX is not loaded before
    the script itself is past its imports."""
    enabling = call(ENABLE, arguments, style, indent + 4)
    return (
        f"try:\n"
        f"    from {RUNTIME} import {ENABLE}\n"
        f"except ImportError:\n"
        f"    pass  # not installed: MLX's own attention runs\n"
        f"else:\n"
        f"{indented(enabling)}"
    )
