"""`--revert` takes out what the tool inserts, and nothing that people wrote with the same names."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.inserted.removal import inserted, without
from flash_integrate.inserted.revert import revert_script
from flash_integrate.python.source import Source

CALL = """\
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    pass
else:
    enable_flash_attention()
"""
SWITCH = '"--disable-flash-attention", action="store_true"'
BY_HAND = {
    "handler": CALL.replace("    pass\n", '    print("slow")\n'),
    "handler_of_all": CALL.replace("ImportError", "Exception"),
    "other_names": CALL.replace("import enable", "import report, enable"),
    "another_name": CALL.replace("_attention\n", "_attention as enable\n"),
    "no_call": CALL.replace("else:\n    enable_flash_attention()\n", ""),
    "finally": CALL + "finally:\n    start()\n",
    "more_with_the_call": CALL + '    print("fast")\n',
    "other_values": CALL.replace("attention()", "attention(True, 64)"),
    "option": 'parser.add_argument("--flash-block-size", type=int, default=64)\n',
    "switch": f"parser.add_argument({SWITCH}, default=True)\n",
    "switch_with_a_name": f'parser.add_argument({SWITCH}, dest="plain")\n',
    "own_names": "del disable_flash_attention, flash_block_size\n",
    "more_names": "del args.model, args.flash_block_size\n",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_was_written_by_hand_stays(name: str) -> None:
    source = Source(Path("run.py"), (CALL + BY_HAND[name]).encode())
    assert without(source, inserted(source)) == BY_HAND[name].encode()


COMMAND = """\
import click


@click.command()
@click.option("--flash-block-size", default=64)
def main(flash_block_size=64):
{call}    print(flash_block_size)
"""


def test_an_option_of_a_command_with_a_default_of_its_own_stays() -> None:
    text = COMMAND.format(call=textwrap.indent(CALL, "    "))
    source = Source(Path("run.py"), text.encode())
    reverted = without(source, inserted(source)).decode()
    assert (
        '@click.option("--flash-block-size", default=64)\ndef main(flash_block_size=64):\n    print'
        in reverted
    )


EARLIER = [
    'parser._option_string_actions["--d"] = parser._option_string_actions["--dtype"]',
    "self.parser._option_string_actions['--fl'] = self.parser._option_string_actions['--flag']",
    "parser._get_option_tuples = lambda text, find=parser._get_option_tuples: [\n"
    "    found\n"
    "    for found in find(text)  # the two flags have no abbreviations\n"
    '    if found[0].dest not in ("disable_flash_attention", "flash_block_size")\n'
    "]\n",
]


EARLIER_SCRIPT = """\
import argparse

from mlx_lm import load

try:
    from mlx_flash_runtime import enable_flash_attention, flash_block_size
except ImportError:  # without the runtime this script runs on MLX's own attention
    enable_flash_attention, flash_block_size = None, int

parser = argparse.ArgumentParser()
parser.add_argument("--disable-flash-attention", action="store_true", help="use stock attention")
parser.add_argument("--flash-block-size", type=flash_block_size, default=None, metavar="N")
args = parser.parse_args()
if enable_flash_attention is not None:
    enable_flash_attention(not args.disable_flash_attention, block_size=args.flash_block_size)
del args.disable_flash_attention, args.flash_block_size
load(**vars(args))
"""


def test_what_earlier_versions_wrote_goes() -> None:
    text = EARLIER_SCRIPT.replace("args = ", "\n".join(EARLIER) + "args = ", 1)
    source = Source(Path("run.py"), text.encode())
    expected = """\
import argparse

from mlx_lm import load

parser = argparse.ArgumentParser()
args = parser.parse_args()
load(**vars(args))
"""
    assert without(source, inserted(source)).decode() == expected


def test_a_file_that_asks_to_be_left_alone_is(tmp_path: Path, flash_integrate: Run) -> None:
    path = tmp_path / "run.py"
    path.write_text(SCRIPT)
    flash_integrate(path)
    patched = path.read_text() + "# flash-integrate: skip\n"
    assert patched != SCRIPT + "# flash-integrate: skip\n"
    path.write_text(patched)
    result = flash_integrate(path, "--revert")
    assert result.returncode == 0, result.stderr
    assert path.read_text() == patched


# What was edited since

MAIN = """\
import argparse

from mlx_lm import load

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--disable-flash-attention", action="store_true", help="use stock attention")
parser.add_argument("--flash-block-size", metavar="N", help="a multiple of 8")
args = parser.parse_args()
{call}
load(args.model)
"""
TRY = """\
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    pass
else:
    enable_flash_attention(not args.disable_flash_attention, args.flash_block_size)
"""
EDITED = {
    "another_value": (
        MAIN.format(call=TRY.replace("args.flash_block_size", "64")),
        15,
        "args.disable_flash_attention",
    ),
    "another_handler": (
        MAIN.format(call=TRY.replace("    pass", "    print('slow')")),
        15,
        "args.disable_flash_attention",
    ),
    "without_the_guard": (
        EARLIER_SCRIPT.replace("if enable_flash_attention is not None:\n    ", ""),
        14,
        "args.disable_flash_attention",
    ),
    "a_value_printed": (
        MAIN.format(call=TRY + "print(args.flash_block_size)"),
        16,
        "args.flash_block_size",
    ),
    "the_function_used_again": (
        MAIN.format(call=TRY + "enable_flash_attention(False)"),
        16,
        "enable_flash_attention",
    ),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_use_that_was_edited_since_keeps_the_file_as_it_is_and_names_the_line(
    name: str, tmp_path: Path, flash_integrate: Run
) -> None:
    text, line, used = EDITED[name]
    path = tmp_path / "run.py"
    path.write_text(text)
    result = flash_integrate(path, "--revert")
    assert result.returncode == 2
    assert f"run.py:{line}" in result.stderr.decode()
    assert f"{used} is used here" in result.stderr.decode()
    assert path.read_text() == text


def test_an_edited_call_that_needs_nothing_of_what_goes_stays() -> None:
    own = CALL.replace("attention()", "attention(True, 64)")
    text = MAIN.format(call=TRY + own)
    result = revert_script(Source(Path("run.py"), text.encode()))
    assert result is not None
    assert own in result.after.decode()
    assert "args.flash_block_size" not in result.after.decode()


def test_options_of_the_same_name_that_are_the_users_own_are_no_use_of_ours() -> None:
    text = MAIN.format(call=TRY + "print(config.flash_block_size, config['flash_block_size'])")
    assert revert_script(Source(Path("run.py"), text.encode())) is not None


PARSER = """\
import argparse


def build():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    return parser
"""
FLAGS = """\
    parser.add_argument("--disable-flash-attention", action="store_true", help="use stock")
    parser.add_argument("--flash-block-size", metavar="N", help="a multiple of 8")
"""
USER = """\
from mlx_lm import load
from options import build

args = build().parse_args()
{call}load(args.model)
"""


@pytest.mark.parametrize("which", ["both", "the_parser"])
def test_flags_stay_while_another_file_reads_them(
    which: str, tmp_path: Path, flash_integrate: Run
) -> None:
    """As where their owner has moved the call there."""
    patched = PARSER.replace("    return", FLAGS + "    return")
    call = TRY.replace("args.flash_block_size", "64") if which == "both" else TRY
    (tmp_path / "options.py").write_text(patched)
    (tmp_path / "use.py").write_text(USER.format(call=call))
    result = flash_integrate(tmp_path if which == "both" else tmp_path / "options.py", "--revert")
    assert result.returncode == 2
    assert b"use.py:10 still reads its flags" in result.stderr
    assert (tmp_path / "options.py").read_text() == patched
    if which == "the_parser":
        assert flash_integrate(tmp_path, "--revert").returncode == 0
        assert (tmp_path / "options.py").read_text() == PARSER
        assert (tmp_path / "use.py").read_text() == USER.format(call="")
