"""What others own, or can write to, is not opened; what is the user's own is."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_flash_runtime.environment import private_files
from mlx_flash_runtime.environment.private_files import NotPrivate

SOMEBODY = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Nothing may depend on what the user lets others do by default."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of the user's own, two below one that is as well."""
    return private_files.folder(tmp_path / "one" / "two", make=0o700)


def test_folders_are_made_for_the_user_alone(tmp_path: Path) -> None:
    assert private_files.folder(tmp_path / "one" / "two", make=0o700) == tmp_path / "one" / "two"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("one", "one/two")] == [
        0o700,
        0o700,
    ]
    assert (
        private_files.folder(tmp_path / "one" / "two", make=0o755).stat().st_mode & 0o777 == 0o700
    )


def test_a_folder_that_is_not_there_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        private_files.folder(tmp_path / "one" / "two")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    with pytest.raises(NotADirectoryError):
        private_files.folder(tmp_path / "one" / "two", make=0o700)


@pytest.mark.parametrize(
    "mode", [0o777, 0o702, 0o1777, pytest.param(0o720, marks=as_root)], ids=oct
)
def test_a_folder_that_others_can_write_to(mode: int, place: Path) -> None:
    place.chmod(mode)
    if os.geteuid() == 0:
        os.chown(place, -1, SOMEBODY)
    with pytest.raises(NotPrivate, match=f"^{place}: other users can write to it"):
        private_files.folder(place)


@as_root
def test_a_group_that_is_the_user_s_alone_may_write() -> None:
    users = [user for user in pwd.getpwall() if user.pw_uid and _has_a_group_alone(user)]
    if not users:
        pytest.skip("no user of this machine has a group")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o770)
        os.chown(folder, users[0].pw_uid, users[0].pw_gid)
        assert _as_user(users[0].pw_uid, Path(folder)) == folder
        os.chown(folder, -1, SOMEBODY)
        assert "other users can write to it" in _as_user(users[0].pw_uid, Path(folder))
        os.chown(folder, 0, -1)  # so that it can be taken away


def _has_a_group_alone(user: pwd.struct_passwd) -> bool:
    group = grp.getgrgid(user.pw_gid)
    return group.gr_name == user.pw_name and not group.gr_mem


def _as_user(uid: int, folder: Path) -> str:
    os.seteuid(uid)
    try:
        return str(private_files.folder(folder))
    except NotPrivate as error:
        return str(error)
    finally:
        os.seteuid(0)


def test_a_parent_that_others_can_write_to(place: Path) -> None:
    place.parent.chmod(0o777)
    with pytest.raises(NotPrivate, match=f"^{place.parent}: other users can write to it"):
        private_files.folder(place / "three", make=0o700)
    assert not list(place.iterdir())
    place.parent.chmod(0o1777)  # as /tmp is
    assert private_files.folder(place) == place


def test_a_sticky_folder_itself_is_everybody_s(place: Path) -> None:
    place.parent.chmod(0o1777)
    with pytest.raises(NotPrivate):
        private_files.folder(place / "..")


@as_root
@pytest.mark.parametrize("name", ["one", "one/two"])
def test_another_user_s_folder(name: str, tmp_path: Path, place: Path) -> None:
    os.chown(tmp_path / name, SOMEBODY, -1)
    with pytest.raises(
        NotPrivate, match=f"^{tmp_path / name}: it belongs to another user \\(uid {SOMEBODY}\\)$"
    ):
        private_files.folder(place / "three", make=0o700)
    assert not (place / "three").exists()


def test_own_links_to_folders_are_followed_and_what_they_lead_through_is_looked_at(
    tmp_path: Path, place: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("one/../one/two")
    assert private_files.folder(link) == place
    place.parent.chmod(0o777)
    with pytest.raises(NotPrivate, match=f"^{place.parent}: "):
        private_files.folder(link)


@as_root
def test_another_user_s_link(tmp_path: Path, place: Path) -> None:
    tmp_path.chmod(0o1777)
    link = tmp_path / "link"
    link.symlink_to(place)
    os.chown(link, SOMEBODY, -1, follow_symlinks=False)
    with pytest.raises(NotPrivate, match=f"^{link}: it belongs to another user"):
        private_files.folder(link)


def test_a_current_folder_that_is_gone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert private_files.folder(place) == place
    with pytest.raises(FileNotFoundError):
        private_files.folder(Path("relative"), make=0o700)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        private_files.folder(tmp_path / "a")


def test_own_files_are_read(place: Path) -> None:
    (place / "file").write_bytes(b"content")
    (place / "file").chmod(0o644)
    assert private_files.read(place / "file", 7) == b"content"
    assert private_files.is_private(place / "file")


def test_a_file_is_made_for_the_user_alone(place: Path) -> None:
    os.close(private_files.open_file(place / "file", os.O_RDWR | os.O_CREAT))
    assert (place / "file").stat().st_mode & 0o777 == 0o600


def _large(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)  # of zeros that take no space


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)
        try:  # by a short name: those of sockets are limited
            before = os.getcwd()
            os.chdir(folder)
            one.bind(path.name)
        finally:
            os.chdir(before)
            os.close(folder)


def _writable(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def _of_another_user(path: Path) -> None:
    path.touch()
    os.chown(path, SOMEBODY, -1)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(__file__),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path, 0o600),
        lambda path: path.mkdir(0o700),
        _socket,
        _writable,
        _large,
        pytest.param(_of_another_user, marks=as_root),
    ],
    ids=[
        "device",
        "link",
        "dangling link",
        "fifo",
        "folder",
        "socket",
        "writable",
        "large",
        "another user's",
    ],
)
def test_other_files_are_not_opened(make: object, place: Path) -> None:
    make(place / "file")  # type: ignore[operator]
    with pytest.raises(OSError, match=str(place / "file")):
        private_files.read(place / "file", 2**16)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_CREAT], ids=["open", "create"])
def test_nothing_is_made_or_opened_through_a_link(flags: int, place: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "there", tmp_path / "not there"):
        (tmp_path / "there").write_text("content")
        (place / "file").symlink_to(target)
        with pytest.raises(NotPrivate, match="it is a link"):
            private_files.open_file(place / "file", flags)
        (place / "file").unlink()
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("/dev/zero"), lambda path: os.mkfifo(path), _socket, _writable],
    ids=["link", "fifo", "socket", "writable"],
)
def test_whatever_is_in_its_place_is_replaced(make: object, place: Path) -> None:
    make(place / "file")  # type: ignore[operator]
    private_files.write(place / "file", b"content")
    assert private_files.read(place / "file", 7) == b"content"
    assert [path.name for path in place.iterdir()] == ["file"]


def test_nothing_is_written_where_others_can_write(place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(NotPrivate, match="other users can write to it"):
        private_files.write(place / "file", b"content")
    assert not list(place.iterdir())
