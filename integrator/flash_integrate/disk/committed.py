"""Whether git could give a file back as it is, asked so that nothing which the repo brings along
is run.

A repo's own configuration names programs: a monitor of its files, filters, hooks, the transport of
a partial clone. `git status` runs them, and an archive or a shared folder may hold a `.git` that
its owner never made. So git is only asked which object the last commit has under a name, and the
bytes of the file are compared with it by their hash.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from flash_integrate.disk.checkout import checkout_of
from flash_integrate.errors import FileError

_SECONDS = 60
"""Far more than git needs to look names up: it may wait for a pipe that stands in the place of a
file of its own."""

# The monitor is asked wherever the index is read. `explicit`: a folder that merely looks like a
# bare repo is none.
_OVERRIDDEN = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit")
# An object that a partial clone lacks would be fetched by programs that the configuration names.
# Releases of git that do not know the first of these heed the second, by which no transport is
# allowed.
_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": ""}
# GIT_DIR and the like, which a hook sets, speak of another repo; these hold the user's own word,
# on safe.directory too.
_KEPT = ("GIT_CONFIG", "GIT_EXEC_PATH")
_CONVERTS = ("filter", "ident", "working-tree-encoding")


def uncommitted(files: Mapping[Path, bytes]) -> dict[Path, str]:
    """Those of `files`, given with what they hold, that the last commit of their checkout does not
    have as they are.

    Each comes with why it may be unchanged all the same, which can't be told without running
    programs; empty for a change that is certain. Files outside a git checkout, or on a machine
    without git, are not among them: nothing can be said of those.

    Raises:
        FileError: git can't tell, with its own words.
    """
    by_checkout: dict[Path, dict[Path, Path]] = {}
    for path in files:
        real = path.resolve()  # git has the file that a link leads to under that file's own name
        if (top := checkout_of(real.parent)) is not None:
            by_checkout.setdefault(top, {})[path] = real
    found: dict[Path, str] = {}
    for top, paths in by_checkout.items():
        names = {path: os.fsencode(real.relative_to(top)) for path, real in paths.items()}
        try:
            found |= _uncommitted_in(top, names, files)
        except FileNotFoundError:  # there is no git
            return {}
    return found


def _uncommitted_in(
    top: Path, names: Mapping[Path, bytes], files: Mapping[Path, bytes]
) -> dict[Path, str]:
    """As `uncommitted`, for the files of one checkout; `names` are theirs in it."""
    objects = dict(zip(names, _objects(top, list(names.values())), strict=True))
    changed = [path for path in names if not _is_object(objects[path], files[path])]
    conversions = _conversions(top, [names[path] for path in changed]) if changed else {}
    found = {}
    for path in changed:
        if _is_object(objects[path], files[path].replace(b"\r\n", b"\n")):
            found[path] = "differs from git's copy in line endings alone, which git may convert"
        elif (how := conversions.get(names[path])) and not objects[path].endswith(b" missing"):
            found[path] = (
                f"git converts it ({how}), which is not done here: "
                "whether it has changes can't be told"
            )
        else:
            found[path] = ""
    return found


def _objects(top: Path, names: list[bytes]) -> Iterator[bytes]:
    """The ids of the objects that the last commit has under these names; `... missing` for what it
    does not have."""
    # Names with line breaks can be asked for since git 2.38.
    ending, option = (b"\0", ["-z"]) if any(b"\n" in name for name in names) else (b"\n", [])
    asked = [b"HEAD:" + name for name in names]
    answers = _git(
        top, ["cat-file", *option, "--batch-check=%(objectname)"], ending.join(asked) + ending
    )
    start = 0
    for question in asked:
        missing = b"%s missing\n" % question  # it repeats the name, line breaks and all
        end = (
            start + len(missing)
            if answers.startswith(missing, start)
            else answers.find(b"\n", start) + 1
        )
        yield answers[start : end - 1]
        start = end


def _is_object(answer: bytes, data: bytes) -> bool:
    """Whether a file's bytes, as they are, make the object of this id."""
    new_hash = hashlib.sha256 if len(answer) == 64 else hashlib.sha1
    digest = new_hash(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest().encode() == answer


def _conversions(top: Path, names: list[bytes]) -> dict[bytes, str]:
    """What `.gitattributes` has git do with each of these files besides line endings:
    `filter=lfs`."""
    answer = _git(
        top, ["check-attr", "-z", "--stdin", *_CONVERTS], b"".join(name + b"\0" for name in names)
    )
    found: dict[bytes, str] = {}
    for name, attribute, value in _triples(answer.split(b"\0")):
        if value not in (b"unspecified", b"unset"):
            found[name] = f"{os.fsdecode(attribute)}={os.fsdecode(value)}"
    return found


def _triples(fields: list[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    return zip(fields[::3], fields[1::3], fields[2::3], strict=False)


def _git(top: Path, command: list[str], asked: bytes) -> bytes:
    """What git answers to what is `asked` of it on its standard input.

    Raises:
        FileNotFoundError: there is no git.
        FileError: it can't tell.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT)
    }
    words = ["git", "-C", str(top), *_OVERRIDDEN, *command]
    try:
        result = subprocess.run(
            words, input=asked, capture_output=True, env=kept | _NO_FETCHING, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise FileError(f"git {command[0]} has not answered for {_SECONDS} seconds") from error
    if result.returncode:
        raise FileError(f"git {command[0]}: {' '.join(os.fsdecode(result.stderr).split())}")
    return result.stdout
