"""`--revert` takes out what the tool inserts, and nothing that people wrote with the same names."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SCRIPT, Run

from flash_integrate.inserted.forms import is_inserted
from flash_integrate.inserted.removal import inserted, without
from flash_integrate.python.source import Source

IMPORT = """\
try:
    from mlx_flash_runtime import enable_flash_attention, flash_block_size
except ImportError:
    enable_flash_attention, flash_block_size = None, int
"""
SWITCH = '"--disable-flash-attention", action="store_true"'
BY_HAND = {
    "handler": """\
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    print("slow")
    enable_flash_attention = None
""",
    "handler_of_all": """\
try:
    from mlx_flash_runtime import enable_flash_attention
except Exception:
    enable_flash_attention = None
""",
    "other_value": """\
try:
    from mlx_flash_runtime import enable_flash_attention
except ImportError:
    enable_flash_attention = print
""",
    "other_names": """\
try:
    from mlx_flash_runtime import enable_flash_attention, report
except ImportError:
    enable_flash_attention = report = None
""",
    "option": 'parser.add_argument("--flash-block-size", type=int, default=64)\n',
    "switch": f"parser.add_argument({SWITCH}, default=True)\n",
    "switch_with_a_name": f'parser.add_argument({SWITCH}, dest="plain")\n',
    "else": """\
if enable_flash_attention is not None:
    enable_flash_attention()
else:
    print("slow")
""",
    "more_in_the_call": """\
if enable_flash_attention is not None:
    enable_flash_attention()
    print("fast")
""",
    "other_call": """\
if enable_flash_attention is not None:
    enable_flash_attention(True, block_size=64)
""",
    "own_lookup": "parser._get_option_tuples = lambda text: []\n",
    "own_table": 'parser._option_string_actions["--d"] = action\n',
    "own_names": "del disable_flash_attention, flash_block_size\n",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_was_written_by_hand_stays(name: str) -> None:
    source = Source(Path("run.py"), (IMPORT + BY_HAND[name]).encode())
    assert without(source, inserted(source)) == BY_HAND[name].encode()


COMMAND = """\
import click

{import_}

@click.command()
@click.option("--flash-block-size", default=64)
def main(flash_block_size=64):
    {call}
    print(flash_block_size)
"""


def test_an_option_of_a_command_with_a_default_of_its_own_stays() -> None:
    text = COMMAND.format(
        import_=IMPORT,
        call="if enable_flash_attention is not None:\n        enable_flash_attention()",
    )
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


@pytest.mark.parametrize("line", EARLIER)
def test_what_earlier_versions_wrote_goes(line: str) -> None:
    source = Source(Path("run.py"), line.encode())
    assert is_inserted(source.tree.body[0])


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
