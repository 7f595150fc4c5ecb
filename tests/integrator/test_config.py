"""`[tool.flash-integrate]`: where it is found, what it leaves out, and what is said when it can't
be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Run

from flash_integrate.planning.codemod import name_of, offered, registry
from flash_integrate.project.config import Config, ConfigError, load, merge

CODEMODS = [name_of(codemod) for codemod in registry()]


def write(folder: Path, table: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(table)
    return folder / "pyproject.toml"


def test_without_a_file_everything_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    config = load(tmp_path, offered())
    assert config == Config()
    assert config.leaves_out(tmp_path / "run.py") is None
    assert all(map(config.wants, CODEMODS))


def test_the_nearest_file_with_the_table_is_found_from_a_folder_or_a_script(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    file = write(tmp_path, '[tool.flash-integrate]\nexclude = ["old/"]\n')
    write(tmp_path / "pack", '[project]\nname = "pack"\n')  # has no table: it hides nothing
    (tmp_path / "pack" / "run.py").touch()
    assert load(tmp_path, offered()).file == file
    assert load(tmp_path / "pack", offered()).file == file
    assert load(tmp_path / "pack" / "run.py", offered()).file == file
    nested = write(tmp_path / "pack", "[tool.flash-integrate]\n")
    assert load(tmp_path / "pack" / "run.py", offered()).file == nested


def test_the_search_ends_at_the_top_of_the_checkout(tmp_path: Path) -> None:
    write(tmp_path, '[tool.flash-integrate]\nexclude = ["old/"]\n')
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    assert load(tmp_path / "checkout", offered()).file is None
    (tmp_path / "folder").mkdir()
    assert load(tmp_path / "folder", offered()).file == tmp_path / "pyproject.toml"


def test_patterns_are_relative_to_the_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[tool.flash-integrate]\nexclude = ["old/", "/sub/one.py", "*_test.py", "!keep_test.py"]\n',
    )
    (tmp_path / "sub").mkdir()
    config = load(tmp_path / "sub", offered())
    out = ["old/run.py", "sub/old/run.py", "sub/one.py", "sub/a_test.py"]
    kept = ["run.py", "one.py", "deep/sub/one.py", "keep_test.py"]
    assert {name: config.leaves_out(tmp_path / name) for name in out} == dict.fromkeys(
        out, "[tool.flash-integrate] excludes it"
    )
    assert {name: config.leaves_out(tmp_path / name) for name in kept} == dict.fromkeys(kept)
    assert config.leaves_out(tmp_path / "old", is_folder=True)
    assert not config.leaves_out(tmp_path.parent / "elsewhere" / "old" / "run.py")


def test_include_names_all_that_is_taken_and_exclude_takes_from_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "[tool.flash-integrate]\n"
        'include = ["scripts/", "/train.py"]\n'
        'exclude = ["scripts/old.py"]\n',
    )
    config = load(tmp_path, offered())
    assert config.leaves_out(tmp_path / "scripts" / "run.py") is None
    assert config.leaves_out(tmp_path / "train.py") is None
    assert config.leaves_out(tmp_path / "other.py") == "[tool.flash-integrate] does not include it"
    assert (
        config.leaves_out(tmp_path / "scripts" / "old.py") == "[tool.flash-integrate] excludes it"
    )
    # A folder that is not included itself may hold what is.
    assert config.leaves_out(tmp_path / "deep", is_folder=True) is None
    assert config.leaves_out(tmp_path / "deep" / "scripts" / "run.py") is None


def test_only_and_skip_choose_codemods(tmp_path: Path) -> None:
    first, second = CODEMODS[:2]
    write(tmp_path, f'[tool.flash-integrate]\nskip = ["{first}"]\n')
    config = load(tmp_path, offered())
    assert [config.wants(first), config.wants(second)] == [False, True]
    write(tmp_path, f'[tool.flash-integrate]\nonly = ["{first}"]\n')
    config = load(tmp_path, offered())
    assert [config.wants(first), config.wants(second)] == [True, False]


def test_the_command_line_takes_the_place_of_only_and_adds_to_skip() -> None:
    first, second, third = CODEMODS[:3]
    config = Config(only=(first, second), skip=(third,))
    assert merge(config, offered()) == config
    assert merge(config, offered(), only=[third]) == Config(only=(third,))
    assert merge(config, offered(), skip=[second]) == Config(
        only=(first, second), skip=(third, second)
    )


def test_the_command_line_is_checked() -> None:
    with pytest.raises(
        ConfigError, match=rf"^--only: no codemod is called 'nonsense'; there are .*{CODEMODS[0]}"
    ):
        merge(Config(), offered(), only=["nonsense"])
    with pytest.raises(ConfigError, match=r"^--skip: no codemod .* did you mean flat-script\?$"):
        merge(Config(), offered(), skip=["flatscript"])
    with pytest.raises(ConfigError, match=rf"^--only and --skip both name {CODEMODS[0]}"):
        merge(Config(), offered(), only=CODEMODS[:1], skip=CODEMODS[:1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.flash-integrate", "not valid TOML"),
        ("[tool]\nflash-integrate = 3\n", "tool.flash-integrate must be a table"),
        (
            '[tool.flash-integrate]\nexclud = ["a"]\n',
            "has no key 'exclud'; it has include, exclude, only, skip",
        ),
        ('[tool.flash-integrate]\nexclude = "old"\n', "exclude must be a list of strings"),
        ("[tool.flash-integrate]\ninclude = [1]\n", "include must be a list of strings"),
        (
            '[tool.flash-integrate]\nexclude = ["!"]\n',
            "exclude: '!' is not a pattern of .gitignore",
        ),
        ('[tool.flash-integrate]\nonly = ["fire"]\n', "only: no codemod is called 'fire'"),
        (
            '[tool.flash-integrate]\nonly = ["main-guard"]\nskip = ["main-guard"]\n',
            "only and skip both name main-guard",
        ),
    ],
)
def test_what_can_not_be_used_is_said_with_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, offered())
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path, offered())


def test_what_can_be_named_is_listed_by_the_command_and_the_page(flash_integrate: Run) -> None:
    listed = flash_integrate("--list-codemods").stdout.decode().splitlines()
    page = (Path(__file__).parents[2] / "docs" / "integrator.md").read_text()
    assert [line.split(maxsplit=1) for line in listed] == [list(item) for item in offered().items()]
    table = page.partition("| codemod | scripts |\n")[2].partition("\n\n")[0]
    assert {*CODEMODS, "notebook", "handwritten-attention"} == set(
        re.findall(r"^\| `([a-z-]+)` \| ", table, re.MULTILINE)
    )
