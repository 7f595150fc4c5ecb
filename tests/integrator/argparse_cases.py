"""Argparse scripts whose behaviour two more flags could change, with command lines that would show
it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A script with command lines to try; without a `note` it gets the flags, else the call alone
    for that reason."""

    text: str
    argvs: tuple[str, ...] = ("",)
    note: str | None = None


def main(*lines: str, above: str = "") -> str:
    """A script of these statements, `above` standing before its main function."""
    body = "".join(f"    {line}\n" for line in lines)
    return (
        "import argparse, dataclasses, functools, shlex, sys\n\n"
        f"from mlx_lm import load\n\n{above}\n\n"
        f'def main():\n{body}    load("tiny")\n\n\nif __name__ == "__main__":\n    main()\n'
    )


P = "p = argparse.ArgumentParser()"
DIM = ("args = p.parse_args()", "print(args.dim)")
D = ("--dim 64", "--dim=64", "")
SECOND_NAME = "parses into an object of its own"
NOT_ITS_OWN = "parses text that is not its command line"
NO_NAME = "the parsed arguments do not get a plain name, as in args = parser.parse_args()"
OWN_WAY = "the class of the parser adds or parses arguments in its own way"
CASES = {
    "boolean_optional": Case(
        main(
            P,
            'p.add_argument("--fp16", action=argparse.BooleanOptionalAction, default=False)',
            "args = p.parse_args()",
            "print(args.fp16)",
        ),
        ("--fp16", "--no-fp16", ""),
    ),
    "option_string": Case(
        main(
            P,
            'p.add_argument("--dim", action=Spelled)',
            *DIM,
            above="class Spelled(argparse.Action):\n"
            "    def __call__(self, parser, namespace, values, option_string=None):\n"
            "        namespace.dim = values if option_string == '--dim' else None\n",
        ),
        D,
    ),
    # Options whose names are not written where the parser is.
    "fields": Case(
        main(
            P,
            "for field in dataclasses.fields(Config):",
            '    p.add_argument("--" + field.name, default=field.default)',
            *DIM,
            above="@dataclasses.dataclass\nclass Config:\n    dim: int = 1\n",
        ),
        D,
    ),
    "module_dict": Case(
        main(
            P,
            "for name in OPTIONS:",
            '    p.add_argument(f"--{name}")',
            *DIM,
            above='OPTIONS = {"dim": 1, "model": 2}\n',
        ),
        D,
    ),
    "constant": Case(main(P, "p.add_argument(DIM)", *DIM, above='DIM = "--dim"\n'), D),
    "second_constant": Case(main(P, 'p.add_argument("-x", DIM)', *DIM, above='DIM = "--dim"\n'), D),
    "starred": Case(main(P, "p.add_argument(*NAMES)", *DIM, above='NAMES = ["-x", "--dim"]\n'), D),
    "nested_def": Case(
        main(P, "def opt(*a, **k):", "    p.add_argument(*a, **k)", 'opt("--dim")', *DIM), D
    ),
    "lambda": Case(
        main(P, "opt = lambda *a, **k: p.add_argument(*a, **k)", 'opt("--dim")', *DIM), D
    ),
    "partial": Case(
        main(P, "opt = functools.partial(p.add_argument, default=1)", 'opt("--dim")', *DIM), D
    ),
    "groups": Case(
        main(
            P,
            'groups = {"io": p.add_argument_group("io")}',
            'groups["io"].add_argument("--dim")',
            *DIM,
        ),
        D,
    ),
    "alias": Case(main(P, "q = p", 'q.add_argument("--dim")', *DIM), D),
    "shared_parents": Case(
        main(
            "base = argparse.ArgumentParser(add_help=False)",
            'base.add_argument("--dim")',
            "shared = [base]",
            "p = argparse.ArgumentParser(parents=shared)",
            *DIM,
        ),
        D,
        "the parser is made with parents",
    ),
    "external_adder": Case(main("from options import add_options", P, "add_options(p)", *DIM), D),
    "group_adder": Case(
        main(
            P,
            'group = p.add_argument_group("io")',
            "add(group)",
            *DIM,
            above='def add(group):\n    group.add_argument("--dim")\n',
        ),
        D,
    ),
    # What the parser leaves over is for somebody else.
    "leftovers": Case(
        main(P, 'p.add_argument("--model")', "args, rest = p.parse_known_args()", "print(rest)"),
        ("--dim 64", "--model m --x"),
    ),
    "no_abbreviations": Case(
        main(
            "p = argparse.ArgumentParser(allow_abbrev=False)",
            "p.add_argument(DIM)",
            "args, rest = p.parse_known_args()",
            "print(args.dim, rest)",
            above='DIM = "--dim"\n',
        ),
        ("--dim 64", "--di 64"),
    ),
    # Namespaces that are more than the arguments of one parse call.
    "cached": Case(
        main(
            "print(vars(get_args()))",
            "args = get_args()",
            "print(vars(args))",
            above=f"{P}\np.add_argument('--model')\n\n\n"
            "@functools.lru_cache\ndef get_args():\n    return p.parse_args()\n",
        ),
        ("", "--model m"),
        NO_NAME,
    ),
    "slots": Case(
        main(
            P,
            'p.add_argument("--model")',
            "args = p.parse_args(namespace=Args())",
            "print(args.model)",
            above='class Args:\n    __slots__ = ("model",)\n',
        ),
        ("", "--model m"),
        SECOND_NAME,
    ),
    "shared_namespace": Case(
        main(
            P,
            'p.add_argument("--model")',
            "cfg = argparse.Namespace(lr=1)",
            "p.parse_args(namespace=cfg)",
            "print(vars(cfg))",
        ),
        ("", "--model m"),
        SECOND_NAME,
    ),
    "second_argument": Case(
        main(
            P,
            'p.add_argument("--model")',
            "args = p.parse_args(None, cfg)",
            "print(vars(cfg))",
            above="cfg = argparse.Namespace(lr=1)\n",
        ),
        ("", "--model m"),
        SECOND_NAME,
    ),
    "decorated_main": Case(
        main(
            P,
            'p.add_argument("--model")',
            "work(p.parse_args())",
            above="def logged(f):\n    return lambda args: (print(vars(args)), f(args))\n\n\n"
            "@logged\ndef work(args):\n    print(args.model)\n",
        ),
        ("", "--model m"),
        NO_NAME,
    ),
    # Classes of parsers.
    "own_add_argument": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model", "m", "the model")',
            "args = p.parse_args()",
            "print(args.model)",
            above="class Parser(argparse.ArgumentParser):\n    def __init__(self):\n"
            "        super().__init__(add_help=False)\n\n"
            "    def add_argument(self, name, default, help):\n"
            "        return super().add_argument(name, default=default, help=help)\n",
        ),
        ("", "--model x"),
        OWN_WAY,
    ),
    "saved_by_the_parser": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model")',
            "args = p.parse_args()",
            "print(args.model)",
            above="class Parser(argparse.ArgumentParser):\n    def parse_args(self, *args, **kw):\n"
            "        parsed = super().parse_args(*args, **kw)\n"
            "        print(vars(parsed))\n        return parsed\n",
        ),
        ("", "--model x"),
        OWN_WAY,
    ),
    "read_by_the_parser": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model")',
            "args = p.parse_args()",
            "print(args.model)",
            above="class Parser(argparse.ArgumentParser):\n    def parse_args(self, *args, **kw):\n"
            "        parsed = super().parse_args(*args, **kw)\n        self._check(parsed, 1)\n"
            "        return parsed\n\n    def _check(self, options, times):\n"
            "        if hasattr(options, 'model') and not options.model:\n"
            "            options.model = 'tiny' * times\n",
        ),
        ("", "--model x"),
    ),
    "printed_by_the_parser": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model")',
            "args = p.parse_args()",
            "print(args.model)",
            above="class Parser(argparse.ArgumentParser):\n    def parse_args(self, *args, **kw):\n"
            "        parsed = super().parse_args(*args, **kw)\n"
            "        self._show(parsed)\n        return parsed\n\n"
            "    @staticmethod\n    def _show(options):\n        print(vars(options))\n",
        ),
        ("", "--model x"),
        OWN_WAY,
    ),
    "dict_by_a_method": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model")',
            "print(p.parse_dict())",
            "args = p.parse_args()",
            "print(args.model)",
            above="class Parser(argparse.ArgumentParser):\n    def parse_dict(self):\n"
            "        return vars(self.parse_args())\n",
        ),
        ("", "--model x"),
        OWN_WAY,
    ),
    "mixin": Case(
        main(
            "p = Parser()",
            'p.add_argument("--model")',
            "args = p.parse_args()",
            "print(args.model)",
            above="class Loud:\n    def add_argument(self, name, **kw):\n        print(name)\n"
            "        return super().add_argument(name, **kw)\n\n\n"
            "class Parser(Loud, argparse.ArgumentParser):\n    def __init__(self):\n"
            "        super().__init__(add_help=False)\n",
        ),
        ("", "--model x"),
        OWN_WAY,
    ),
    # A prompt's parser is not the command line's.
    "repl_with_the_same_parser": Case(
        main(
            P,
            'p.add_argument("--model")',
            "args = p.parse_args()",
            "for line in LINES:",
            "    command = p.parse_args(shlex.split(line))",
            "    print(command.model)",
            above='LINES = ["--model a", "--model b"]\n',
        ),
        ("", "--model x"),
        NOT_ITS_OWN,
    ),
}
REPL = main(
    P,
    'p.add_argument("--model")',
    "args = p.parse_args()",
    "commands = argparse.ArgumentParser()",
    'commands.add_argument("word")',
    'for line in ["one", "two"]:',
    "    print(parse(commands, line).word, commands.parse_args(shlex.split(line)).word)",
    above="def parse(commands, line):\n    return commands.parse_args(line.split())\n",
)
CASES["repl"] = Case(REPL, ("", "--model m"), NOT_ITS_OWN)

# A command line that a test may give instead.
GIVEN = (
    "import argparse, sys\n\nfrom mlx_lm import load\n\n\ndef main(argv=None):\n"
    f"    {P}\n    p.add_argument('--dim')\n{{parse}}\n    print(args.dim)\n    load('tiny')\n\n\n"
    'if __name__ == "__main__":\n    main({given})\n'
)
LISTED = "    args = p.parse_args(list(argv) if argv is not None else None)"
CHOSEN = (
    "    given = list(argv) if argv is not None else sys.argv[1:]\n    args = p.parse_args(given)"
)
REST = "    rest = argv[1:]\n    args = p.parse_args(rest)"
CASES |= {
    "given_or_none": Case(GIVEN.format(parse=LISTED, given=""), D),
    "given_or_argv": Case(GIVEN.format(parse=CHOSEN, given=""), D),
    "given_or": Case(
        GIVEN.format(parse="    args = p.parse_args(argv or None)", given="tuple(sys.argv[1:])"), D
    ),
    "given_rest": Case(GIVEN.format(parse=REST, given="sys.argv"), D),
    "given_none": Case(GIVEN.format(parse="    args = p.parse_args(None)", given=""), D),
    "given_else": Case(GIVEN.format(parse=LISTED, given="['--dim', '1']"), D, NOT_ITS_OWN),
    "given_else_here": Case(
        GIVEN.format(parse=CHOSEN.replace("sys.argv[1:]", "['--dim', '1']"), given=""),
        D,
        NOT_ITS_OWN,
    ),
}
