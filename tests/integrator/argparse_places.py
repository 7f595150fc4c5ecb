"""Where a program builds its parser and parses its arguments: the places that `argparse_programs`
chooses from."""

from __future__ import annotations

from dataclasses import dataclass

Line = tuple[int, str]
"""A level of indentation and a statement; strings in it have double quotes."""


@dataclass(frozen=True)
class Parts:
    """What a place puts together: statements, and the expression that parses."""

    build: list[str]
    parse: list[str]
    use: list[str]

    def below(self, level: int, *parts: list[str]) -> list[Line]:
        return [(level, line) for part in parts for line in part]


GUARD = (0, 'if __name__ == "__main__":')
GAP: list[Line] = [(0, ""), (0, "")]


def at_module_level(parts: Parts) -> list[Line]:
    return parts.below(0, parts.build, parts.parse, parts.use)


def in_main(parts: Parts) -> list[Line]:
    return [
        (0, "def main():"),
        *parts.below(1, parts.build, parts.parse, parts.use),
        *GAP,
        GUARD,
        (1, "main()"),
    ]


def in_async_main(parts: Parts) -> list[Line]:
    body = parts.below(1, parts.build, parts.parse, parts.use)
    return [(0, "async def main():"), *body, *GAP, GUARD, (1, "asyncio.run(main())")]


def in_the_guard(parts: Parts) -> list[Line]:
    return [GUARD, *parts.below(1, parts.build, parts.parse, parts.use)]


def with_a_bare_main(parts: Parts) -> list[Line]:
    return [
        (0, "def main():"),
        *parts.below(1, parts.build, parts.parse, parts.use),
        *GAP,
        (0, "main()"),
    ]


def returns_the_parser(parts: Parts) -> list[Line]:
    build = [(0, "def build():"), *parts.below(1, parts.build, ["return parser"]), *GAP]
    return [*build, GUARD, (1, "parser = build()"), *parts.below(1, parts.parse, parts.use)]


def returns_the_args(parts: Parts) -> list[Line]:
    parse = [
        (0, "def parse_args():"),
        *parts.below(1, parts.build, parts.parse, ["return args"]),
        *GAP,
    ]
    return [*parse, GUARD, (1, "args = parse_args()"), *parts.below(1, parts.use)]


def returns_at_once(parts: Parts) -> list[Line]:
    parse = [
        (0, "def get_args():"),
        *parts.below(1, parts.build, ["return parser.parse_args()"]),
        *GAP,
    ]
    main = [(0, "def main():"), (1, "args = get_args()"), *parts.below(1, parts.use), *GAP]
    return [*parse, *main, GUARD, (1, "main()")]


def returned_by_a_method(parts: Parts) -> list[Line]:
    body = parts.below(2, parts.build, parts.parse, ["return args"])
    app = [(0, "class App:"), (1, "@staticmethod"), (1, "def parse():"), *body, *GAP]
    return [*app, GUARD, (1, "args = App.parse()"), *parts.below(1, parts.use)]


def passed_on_at_once(parts: Parts) -> list[Line]:
    run = [(0, "def run(args):"), (1, '"""Run."""'), *parts.below(1, parts.use), *GAP]
    return [*run, GUARD, *parts.below(1, parts.build), (1, "run(parser.parse_args())")]


def called_from_two_places(parts: Parts) -> list[Line]:
    run = [(0, "def run(args):"), *parts.below(1, parts.use), *GAP]
    again = [(1, "if sys.argv[1:]:"), (2, "run(argparse.Namespace(**vars(parser.parse_args())))")]
    return [*run, GUARD, *parts.below(1, parts.build), *again, (1, "run(parser.parse_args())")]


def as_a_global(parts: Parts) -> list[Line]:
    run = [(0, "def run():"), *parts.below(1, parts.use), *GAP]
    main = [
        (0, "def main():"),
        (1, "global args"),
        *parts.below(1, parts.build, parts.parse),
        (1, "run()"),
        *GAP,
    ]
    return [*run, *main, GUARD, (1, "main()")]


def under_a_walrus(parts: Parts) -> list[Line]:
    body = [(1, "if (args := parser.parse_args()) is not None:"), *parts.below(2, parts.use)]
    return [(0, "def main():"), *parts.below(1, parts.build), *body, *GAP, GUARD, (1, "main()")]


def under_try(parts: Parts) -> list[Line]:
    body = [(1, "try:"), *parts.below(2, parts.parse), (1, "finally:"), (2, 'print("parsed")')]
    return [GUARD, *parts.below(1, parts.build), *body, *parts.below(1, parts.use)]


def under_with(parts: Parts) -> list[Line]:
    body = [(1, "with contextlib.nullcontext():"), *parts.below(2, parts.parse, parts.use)]
    return [GUARD, *parts.below(1, parts.build), *body]


def under_if_and_else(parts: Parts) -> list[Line]:
    known = [(1, "if len(sys.argv) > 1:"), *parts.below(2, parts.parse)]
    default = [(1, "else:"), (2, "args = parser.parse_args([])")]
    return [GUARD, *parts.below(1, parts.build), *known, *default, *parts.below(1, parts.use)]


def after_a_config_parser(parts: Parts) -> list[Line]:
    config = [
        "config = argparse.ArgumentParser(add_help=False)",
        'config.add_argument("--config")',
        "known, rest = config.parse_known_args()",
    ]
    parse = ["args = parser.parse_args(rest)"]
    return [
        (0, "def main():"),
        *parts.below(1, config, parts.build, parse, parts.use),
        *GAP,
        GUARD,
        (1, "main()"),
    ]


def after_one_of_its_name(parts: Parts) -> list[Line]:
    config = [
        "parser = argparse.ArgumentParser(add_help=False)",
        'parser.add_argument("--config")',
        "known, rest = parser.parse_known_args()",
    ]
    parse = ["args = parser.parse_args(rest)"]
    return [
        (0, "def main():"),
        *parts.below(1, config, parts.build, parse, parts.use),
        *GAP,
        GUARD,
        (1, "main()"),
    ]


def beside_one_of_its_name(parts: Parts) -> list[Line]:
    config = [
        (1, 'if sys.argv[1:2] == ["config"]:'),
        (2, "parser = argparse.ArgumentParser()"),
        (2, 'parser.add_argument("--config")'),
        (2, "args = parser.parse_args(sys.argv[2:])"),
        (2, "return print(args.config)"),
    ]
    own = parts.below(1, parts.build, parts.parse, parts.use)
    return [(0, "def main():"), *config, *own, *GAP, GUARD, (1, "main()")]


PLACES = [
    at_module_level,
    in_main,
    in_async_main,
    in_the_guard,
    with_a_bare_main,
    returns_the_parser,
    returns_the_args,
    returns_at_once,
    returned_by_a_method,
    passed_on_at_once,
    called_from_two_places,
    as_a_global,
    under_a_walrus,
    under_try,
    under_with,
    under_if_and_else,
    after_a_config_parser,
    after_one_of_its_name,
    beside_one_of_its_name,
]


def in_a_class(parts: Parts) -> list[Line]:
    """The parser and its namespace are attributes: the parts are to be written for `self.parser`
    and `self.args`."""
    start = [(1, "def __init__(self):"), *parts.below(2, parts.build, parts.parse), (0, "")]
    run = [(1, "def run(self):"), *parts.below(2, parts.use), *GAP]
    return [(0, "class App:"), *start, *run, GUARD, (1, "App().run()")]


def seen_from_outside(parts: Parts) -> list[Line]:
    """As `in_a_class`, and another function looks at the namespace of the object."""
    start = [(1, "def __init__(self):"), *parts.below(2, parts.build, parts.parse), *GAP]
    use = [line.replace("self.", "app.") for line in parts.use]
    return [(0, "class App:"), *start, GUARD, (1, "app = App()"), *parts.below(1, use)]


IN_CLASSES = [in_a_class, seen_from_outside]
