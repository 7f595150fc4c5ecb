"""Argparse programs as people write them, drawn by Hypothesis: `programs()`.

A program is put together from independent choices: where the parser is built and parsed, what
kinds of containers its options are in, what becomes of the namespace, and how the author lays out
code. Each prints what it was given to standard output, then loads a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from argparse_places import GAP, IN_CLASSES, PLACES, Line, Parts, as_a_global
from hypothesis import strategies as st


@dataclass(frozen=True)
class Option:
    """An argument: how it is spelled, the rest of its `add_argument` call, and values that it may
    be given."""

    spelling: str
    rest: tuple[str, ...] = ()
    values: tuple[str, ...] = ("x",)

    @property
    def dest(self) -> str:
        return self.spelling.lstrip("-").replace("-", "_")


FLAGS = ("--disable-flash-attention", "--flash-block-size")
# Many share a beginning with the flags of the tool, or with each other.
OPTIONS = [
    Option("--data", ('default="here"',)),
    Option("--dtype", ('choices=["fp16", "fp32"]',), ("fp16", "fp64")),
    Option("--dir"),
    Option("--disable-cache", ('action="store_true"',), ()),
    Option("--disable-flash", ('action="store_true"',), ()),
    Option("--file", ('help="a file"',)),
    Option("--flash", ('action="store_true"',), ()),
    Option("--flash_block_size", ("type=int",), ("8",)),
    Option("--flash-size", ("type=int", "default=3"), ("7", "seven")),
    Option("--fp16", ("action=argparse.BooleanOptionalAction", "default=False"), ()),
    Option("--model", ('default="tiny"', 'metavar="M"')),
    Option("--prompts", ('nargs="+"', "default=[]"), ("a b",)),
    Option("name", ('nargs="?"', 'default="nobody"'), ("somebody",)),
]


@dataclass(frozen=True)
class Layout:
    """How an author writes."""

    indent: str = "    "
    quote: str = '"'
    newline: str = "\n"
    exploded: bool = False
    commented: bool = False
    joined: bool = False
    """Two statements on a line, now and then."""

    def render(self, lines: list[Line]) -> str:
        text: list[str] = []
        for number, (level, line) in enumerate(lines):
            simple = (
                line.startswith(("print(", "load("))
                and number > 0
                and lines[number - 1][1].startswith("print(")
            )
            if self.joined and simple and lines[number - 1][0] == level:
                text[-1] += "; " + line
            else:
                text.append(self.indent * level + line if line else "")
            if self.commented and "(" in line and not line.endswith((":", "\\")):
                text[-1] = text[-1] if self.joined else text[-1] + "  # as the paper does"
        joined = "\n".join(text).replace('"', self.quote) + "\n"
        return joined.replace("\n", self.newline)

    def call(self, function: str, arguments: list[str]) -> list[str]:
        if self.exploded:
            return [f"{function}(", *(f"{self.indent}{argument}," for argument in arguments), ")"]
        return [f"{function}({', '.join(arguments)})"]


@dataclass(frozen=True)
class Program:
    """`text`, and command lines to try it with."""

    text: str
    argvs: list[list[str]]


# The parser


def on_the_parser(parser: str) -> list[str]:
    return []


def in_a_group(parser: str) -> list[str]:
    return [f'group = {parser}.add_argument_group("options")']


def in_an_exclusive_group(parser: str) -> list[str]:
    return [f"group = {parser}.add_mutually_exclusive_group()"]


def by_a_bound_method(parser: str) -> list[str]:
    return [f"add = {parser}.add_argument"]


CONTAINERS: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "parser": (on_the_parser, "{parser}.add_argument"),
    "group": (in_a_group, "group.add_argument"),
    "exclusive": (in_an_exclusive_group, "group.add_argument"),
    "chained": (on_the_parser, '{parser}.add_argument_group("options").add_argument'),
    "method": (by_a_bound_method, "add"),
}


def overrides(dests: list[str]) -> list[list[Line]]:
    """Ways in which a class of parsers may parse on its own, the last giving something that is not
    argparse's."""
    known = ", ".join(f'"{dest}"' for dest in dests)
    return [
        [],
        [
            (1, "def parse_args(self, *args, **kwargs):"),
            (2, "return super().parse_args(*args, **kwargs)"),
        ],
        [
            (1, "def parse_args(self, *args, **kwargs):"),
            (2, "parsed = super().parse_args(*args, **kwargs)"),
            (2, f"return argparse.Namespace(**{{key: vars(parsed)[key] for key in [{known}]}})"),
        ],
    ]


@dataclass(frozen=True)
class Parser:
    """The statements that build a parser, functions that they need, its options, and the names of
    all its values."""

    lines: list[str]
    helpers: list[Line]
    options: list[Option]
    dests: list[str]


@st.composite
def parsers(draw: st.DrawFn, parser: str, options: list[Option], layout: Layout) -> Parser:
    container = draw(
        st.sampled_from(
            ["parser", "parser", *CONTAINERS, "helper", "parents", "condition", "loop", "class"]
        )
    )
    own = draw(st.integers(0, len(options)))
    lines, helpers = [], []
    created = f'{parser} = argparse.ArgumentParser(description="A program")'
    inner = options[own:]
    if container == "parents":
        lines += [
            "common = argparse.ArgumentParser(add_help=False)",
            *_adds("common.add_argument", inner, layout),
        ]
        created = f"{parser} = argparse.ArgumentParser(parents=[common])"
    lines += [created, *_adds(f"{parser}.add_argument", options[:own], layout)]
    if container == "helper":
        helpers += [(0, "def add_options(to):"), (1, '"""Add them."""')]
        helpers += [(1, line) for line in _adds("to.add_argument", inner, layout)]
        helpers += [(0, ""), (0, "")]
        lines.append(f"add_options({parser})")
    elif container == "class":
        helpers += [
            (0, "class Parser(argparse.ArgumentParser):"),
            (1, "def __init__(self, *args, **kwargs):"),
        ]
        helpers += [(2, "super().__init__(*args, **kwargs)")]
        helpers += [(2, line) for line in _adds("self.add_argument", inner, layout)]
        helpers += [
            (0, ""),
            *draw(st.sampled_from(overrides([option.dest for option in options]))),
            (0, ""),
            (0, ""),
        ]
        lines[0] = lines[0].replace("argparse.Argument", "")
    elif container == "condition":
        adds = _adds(f"{parser}.add_argument", inner, layout) or ["pass"]
        lines += ["if sys.argv:", *(layout.indent + line for line in adds)]
    elif container == "loop":
        plain = [option for option in inner if not option.rest]
        inner = plain
        names = ", ".join(f'"{option.spelling}"' for option in plain)
        lines += [f"for option in [{names}]:", f"{layout.indent}{parser}.add_argument(option)"]
    elif container in CONTAINERS:
        prepare, method = CONTAINERS[container]
        inner = [
            option
            for option in inner
            if container != "exclusive" or option.spelling.startswith("-")
        ]
        prepared = prepare(parser) if inner else []  # argparse can't show an empty exclusive group
        lines += [*prepared, *_adds(method.format(parser=parser), inner, layout)]
    options = [*options[:own], *inner]
    dests = [option.dest for option in options]
    if draw(st.integers(0, 5)) == 0:
        lines += [
            f'commands = {parser}.add_subparsers(dest="command")',
            'train = commands.add_parser("train")',
        ]
        lines += [*_adds("train.add_argument", [Option("--depth")], layout)]
        dests += ["command", "depth"]
    return Parser(lines, helpers, options, dests)


def _adds(function: str, options: list[Option], layout: Layout) -> list[str]:
    calls = (layout.call(function, [f'"{option.spelling}"', *option.rest]) for option in options)
    return [line for call in calls for line in call]


# The namespace


def uses(args: str, dests: list[str]) -> dict[str, tuple[list[Line], list[str]]]:
    """By name, what a program may do with its namespace `args`: functions that it needs, and
    statements."""
    parameters = ", ".join(f"{dest}=None" for dest in dests)
    all_of = ", ".join(dests) or "None"
    attributes = ", ".join(f'getattr({args}, "{dest}", None)' for dest in dests)
    read = ", ".join(f"options.{dest}" for dest in dests if dest not in ("command", "depth"))
    strict = [(0, f"def show({parameters}):"), (1, f"print({all_of})"), (0, ""), (0, "")]
    fields = [(1, f"{dest}: object = None") for dest in dests] or [(1, "pass")]
    config = [(0, "@dataclasses.dataclass"), (0, "class Config:"), *fields, (0, ""), (0, "")]
    takes = [(0, "def show(options):"), (1, f"print({read})"), (0, ""), (0, "")]
    takes_all = [(0, "def show(options):"), (1, "print(sorted(vars(options)))"), (0, ""), (0, "")]
    return {
        "attributes": ([], [f"print({attributes})"]),
        "vars": ([], [f"print(sorted(vars({args}).items()))"]),
        "splatted": (strict, [f"show(**vars({args}))"]),
        "json": ([], [f"print(json.dumps(vars({args}), sort_keys=True))"]),
        "simple": ([], [f"config = types.SimpleNamespace(**vars({args}))", "print(config)"]),
        "dataclass": (config, [f"print(Config(**vars({args})))"]),
        "update": ([], ['config = {"lr": 1}', f"config.update(vars({args}))", "print(config)"]),
        "dict": ([], [f"print({args}.__dict__)"]),
        "kwargs": ([], [f"print({args}._get_kwargs())"]),
        "passed": (takes, [f"show({args})"]),
        "passed whole": (takes_all, [f"show({args})"]),
        "passed by name": (takes_all, [f"show(options={args})"]),
        "renamed": ([], [f"settings = {args}", "print(vars(settings))"]),
        "copied": ([], [f"print(vars(copy.copy({args})))"]),
        "formatted": ([], [f'print(f"{{{args}}}")']),
        "searched": ([], [f'print("flash_block_size" in {args})']),
        "lambda": ([], [f"show = lambda: vars({args})", "print(show())"]),
        "rebuilt": (
            [],
            [f"again = argparse.Namespace(**vars({args}))", f"print(again == {args}, again)"],
        ),
        "listed": ([], [f"for key, value in vars({args}).items():", "{indent}print(key, value)"]),
        "set": (
            [],
            [f"{args}.extra = 1", f'setattr({args}, "more", 2)', f"print(len(vars({args})))"],
        ),
    }


PARSES = {
    "plain": "{args} = {parser}.parse_args()",
    "argv": "{args} = {parser}.parse_args(sys.argv[1:])",
    "known": "{args}, rest = {parser}.parse_known_args()",
    "first": "{args} = {parser}.parse_known_args()[0]",
    "typed": "{args}: argparse.Namespace = {parser}.parse_args()",
    "twice named": "{args} = parsed = {parser}.parse_args()",
    "into": "{args} = {parser}.parse_args(namespace=argparse.Namespace())",
    "either": "{args} = {parser}.parse_args(sys.argv[1:] if len(sys.argv) > 1 else [])",
    "two steps": "{args}, rest = {parser}.parse_known_args()\n{args} = {parser}.parse_args()",
}


# The whole

IMPORTS = ["argparse", "asyncio", "contextlib", "copy", "dataclasses", "json", "sys", "types"]
layouts = st.builds(
    Layout,
    indent=st.sampled_from(["    ", "  ", "\t"]),
    quote=st.sampled_from(['"', "'"]),
    newline=st.sampled_from(["\n", "\n", "\r\n"]),
    exploded=st.booleans(),
    commented=st.booleans(),
    joined=st.integers(0, 4).map(lambda number: number == 4),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    layout = draw(layouts)
    place = draw(st.sampled_from([*PLACES, *IN_CLASSES]))
    prefix = "self." if place in IN_CLASSES else ""
    options = draw(st.lists(st.sampled_from(OPTIONS), max_size=4, unique=True))
    parser = draw(parsers(f"{prefix}parser", options, layout))
    name, template = draw(st.sampled_from(sorted(PARSES.items())))
    helpers, use = draw(st.sampled_from(list(uses(f"{prefix}args", parser.dests).values())))
    parse = template.format(args=f"{prefix}args", parser=f"{prefix}parser").split("\n")
    if name == "typed" and place is as_a_global:
        parse = ["args = parser.parse_args()"]
    use = [line.replace("{indent}", layout.indent) for line in use]
    body = place(Parts(parser.lines, parse, [*use, 'load("tiny")']))
    head = [
        *((0, f"import {module}") for module in IMPORTS),
        (0, ""),
        (0, "from mlx_lm import load"),
        *GAP,
    ]
    text = layout.render([*head, *parser.helpers, *helpers, *body])
    with_commands = "command" in parser.dests
    return Program(
        text, draw(st.lists(argvs(parser.options, with_commands), min_size=2, max_size=3))
    )


@st.composite
def argvs(draw: st.DrawFn, options: list[Option], with_commands: bool) -> list[str]:
    """Command lines, with every way to abbreviate an option, some of them wrong."""
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(options), max_size=3)) if options else []:
        value = draw(st.sampled_from(option.values)).split() if option.values else []
        if option.spelling.startswith("--"):
            written = option.spelling[: draw(st.integers(3, len(option.spelling)))]
            if any(flag.startswith(written) for flag in FLAGS):  # ambiguous with them
                written = option.spelling
            joined = len(value) == 1 and draw(st.booleans())
            words += [f"{written}={value[0]}"] if joined else [written, *value]
        elif not with_commands:
            words += value
    if with_commands and draw(st.booleans()):
        words += ["train", *draw(st.sampled_from([[], ["--depth", "2"], ["--d", "2"]]))]
    return words
