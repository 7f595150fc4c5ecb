"""The statements that a patched script gains, as text; `integrated.py` finds the same statements
again."""

from __future__ import annotations

from dataclasses import dataclass

RUNTIME = "mlx_flash_runtime"
ENABLE = "enable_flash_attention"
BLOCK_SIZE_TYPE = "flash_block_size"
DISABLE_FLAG = "--disable-flash-attention"
BLOCK_SIZE_FLAG = "--flash-block-size"
DISABLE_HELP = "use stock MLX attention"
BLOCK_SIZE_HELP = "attention block size, a positive multiple of 8"
FLAG_NAMES = ("disable_flash_attention", "flash_block_size")


@dataclass(frozen=True)
class Style:
    """How a file's author writes calls: the quote character and the width that lines may have."""

    quote: str = '"'
    width: int = 88


def runtime_import(*, call: bool, flags: bool) -> str:
    """The guarded import of what a file uses: the patch `call`, the type of `--flash-block-size`,
    or both."""
    names = ", ".join([ENABLE] * call + [BLOCK_SIZE_TYPE] * flags)
    values = ", ".join(["None"] * call + ["int"] * flags)
    return (
        f"try:\n"
        f"    from {RUNTIME} import {names}\n"
        f"except ImportError:  # without the runtime this script runs on MLX's own attention\n"
        f"    {names} = {values}\n"
    )


def flags(parser: str, style: Style, indent: int, *, own_default: bool = False) -> str:
    """The two `add_argument` calls on the expression `parser`, at a column of `indent`.

    `own_default` states the default of the switch, for a parser whose `argument_default` would
    take its place.
    """
    disable = [repr(DISABLE_FLAG), "action='store_true'", f"help={DISABLE_HELP!r}"]
    if own_default:
        disable.insert(2, "default=False")
    block_size = [
        repr(BLOCK_SIZE_FLAG),
        f"type={BLOCK_SIZE_TYPE}",
        "default=None",
        "metavar='N'",
        f"help={BLOCK_SIZE_HELP!r}",
    ]
    return "".join(
        _call(f"{parser}.add_argument", arguments, style, indent)
        for arguments in (disable, block_size)
    )


def _call(function: str, arguments: list[str], style: Style, indent: int) -> str:
    """A call on one line where it fits, else one argument a line with a trailing comma."""
    arguments = [argument.replace("'", style.quote) for argument in arguments]
    line = f"{function}({', '.join(arguments)})\n"
    if indent + len(line) - 1 <= style.width:
        return line
    return f"{function}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")\n"


def click_options(option: str, style: Style, indent: int) -> str:
    """The two options above a command of click; `option` is how the file names `click.option`."""
    disable = [repr(DISABLE_FLAG), "is_flag=True", f"help={DISABLE_HELP!r}"]
    block_size = [
        repr(BLOCK_SIZE_FLAG),
        f"type={BLOCK_SIZE_TYPE}",
        "metavar='N'",
        f"help={BLOCK_SIZE_HELP!r}",
    ]
    text = "".join(
        _call(f"@{option}", arguments, style, indent) for arguments in (disable, block_size)
    )
    return "".join(" " * indent + line for line in text.splitlines(keepends=True))


def typer_parameters(option: str, style: Style, optional_int: str, *, annotated: bool) -> list[str]:
    """The two parameters of a command of typer; `option` is how the file names `typer.Option`."""
    disable = [repr(DISABLE_FLAG), f"help={DISABLE_HELP!r}"]
    block_size = [f"parser={BLOCK_SIZE_TYPE}", "metavar='N'", f"help={BLOCK_SIZE_HELP!r}"]
    kinds = zip(
        FLAG_NAMES, ("bool", optional_int), ("False", "None"), (disable, block_size), strict=True
    )
    return [_typer_parameter(option, style, annotated, *kind) for kind in kinds]


def _typer_parameter(
    option: str,
    style: Style,
    annotated: bool,
    name: str,
    kind: str,
    default: str,
    arguments: list[str],
) -> str:
    indent = 4  # of a parameter that has a line of its own, and as much again inside the brackets
    if not annotated:
        head = f"{name}: {kind} = "
        return head + _call(option, [default, *arguments], style, indent + len(head)).rstrip()
    on_one_line = _call(option, arguments, style, -style.width).rstrip()
    line = f"{name}: Annotated[{kind}, {on_one_line}] = {default}"
    if indent + len(line) < style.width:
        return line
    inner = _call(option, arguments, style, 2 * indent).replace("\n", "\n    ").rstrip()
    return f"{name}: Annotated[\n    {kind},\n    {inner},\n] = {default}"


def enable_call() -> str:
    """The patch call of a script without flags: the environment variables alone steer it."""
    return f"if {ENABLE} is not None:\n    {ENABLE}()\n"


def enable_call_from_parameters() -> str:
    """The patch call with the flags of a command's own parameters."""
    disable, block_size = FLAG_NAMES
    return f"if {ENABLE} is not None:\n    {ENABLE}(not {disable}, block_size={block_size})\n"


def enable_call_from(namespace: str, style: Style, *, mapping: bool, remove: bool) -> str:
    """The patch call with the flags of `namespace`, an argparse namespace or (`mapping`) its dict.

    `remove` takes the two names out again, for a namespace that is passed on as a whole.
    """
    disable, block_size = (_item(namespace, name, style, mapping) for name in FLAG_NAMES)
    call = f"if {ENABLE} is not None:\n    {ENABLE}(not {disable}, block_size={block_size})\n"
    return call + remove_names(namespace, style, mapping=mapping) if remove else call


def remove_names(namespace: str, style: Style, *, mapping: bool) -> str:
    """The statement that takes the two names out of a namespace or dict."""
    return f"del {', '.join(_item(namespace, name, style, mapping) for name in FLAG_NAMES)}\n"


def _item(namespace: str, name: str, style: Style, mapping: bool) -> str:
    return f"{namespace}[{style.quote}{name}{style.quote}]" if mapping else f"{namespace}.{name}"
