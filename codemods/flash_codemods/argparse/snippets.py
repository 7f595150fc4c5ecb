"""What scripts with an `argparse.ArgumentParser` gain, as text."""

from __future__ import annotations

from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    BLOCK_SIZE_HELP,
    DISABLE_FLAG,
    DISABLE_HELP,
    FLAG_NAMES,
    Style,
    enable_by_flags,
    quoted_call,
)

BEFORE_COMMAND = "; before the command"
"""Ends the help of the flags of a parser that has commands: argparse takes them nowhere else."""


def flags(parser: str, style: Style, indent: int, *, has_commands: bool = False) -> str:
    """The two `add_argument` calls on the expression `parser`, at a column of `indent`;
    `has_commands` has the help say where the flags of a parser with commands go."""
    where = BEFORE_COMMAND if has_commands else ""
    disable = [repr(DISABLE_FLAG), "action='store_true'", f"help={DISABLE_HELP + where!r}"]
    block_size = [repr(BLOCK_SIZE_FLAG), "metavar='N'", f"help={BLOCK_SIZE_HELP + where!r}"]
    add = f"{parser}.add_argument"
    return quoted_call(add, disable, style, indent) + quoted_call(add, block_size, style, indent)


def enable_from(
    namespace: str, style: Style, indent: int, *, mapping: bool = False, remove: bool = False
) -> str:
    """The patch call with the flags of `namespace`, an argparse namespace or (`mapping`) its dict.

    `remove` takes the two names out again, for a namespace that is passed on as a whole.
    """
    disable, block_size = (_item(namespace, name, style, mapping) for name in FLAG_NAMES)
    code = enable_by_flags(disable, block_size, style, indent)
    return code + remove_names(namespace, style, indent, mapping=mapping) if remove else code


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
