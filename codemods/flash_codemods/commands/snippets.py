"""What commands of click and typer gain, as text."""

from __future__ import annotations

from flash_integrate.inserted.snippets import (
    BLOCK_SIZE_FLAG,
    BLOCK_SIZE_HELP,
    DISABLE_FLAG,
    DISABLE_HELP,
    FLAG_NAMES,
    Style,
    indented,
    laid_out,
    quoted_call,
)


def click_options(option: str, style: Style, indent: int) -> str:
    """The two options above a command of click; `option` is how the file names `click.option`."""
    disable = [repr(DISABLE_FLAG), "is_flag=True", f"help={DISABLE_HELP!r}"]
    block_size = [repr(BLOCK_SIZE_FLAG), "metavar='N'", f"help={BLOCK_SIZE_HELP!r}"]
    options = [quoted_call(f"@{option}", each, style, indent) for each in (disable, block_size)]
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
    return quoted_call(head, [default, *arguments], style, indent + 1).rstrip()


def _annotated(
    name: str, kind: str, default: str, option: str, arguments: list[str], style: Style, indent: int
) -> str:
    one_line = quoted_call(option, arguments, style, -style.width).rstrip()
    line = f"{name}: Annotated[{kind}, {one_line}] = {default}"
    if indent + len(line) < style.width:  # and the comma behind it
        return line
    inner = quoted_call(option, arguments, style, indent + 5).rstrip()
    return laid_out(f"{name}: Annotated[", [kind, inner], f"] = {default}", style, indent).rstrip()
