"""Files that exist complete or not at all, and the temporary files that they are written to."""

from __future__ import annotations

import os
import resource
import secrets
from pathlib import Path

import pytest

from napari_cropeq.core.whole_file import whole_file, write_whole
from napari_cropeq.errors import AccessError
from processes import Forked

posix = pytest.mark.skipif(os.name != "posix", reason="links and limits are POSIX's")


def a_link(place: Path, target: Path) -> None:
    place.symlink_to(target)


def a_link_to_nothing(place: Path, target: Path) -> None:
    target.unlink()
    place.symlink_to(target)


def a_file(place: Path, target: Path) -> None:
    place.write_bytes(b"another program's")


GUESSED = f"out.json.{'0' * 16}.partial"
PLANTED = [
    pytest.param("out.json.partial", a_file, id="file"),
    pytest.param("out.json.partial", a_link, id="link"),
    pytest.param("out.json.partial", a_link_to_nothing, id="link-to-nothing"),
    pytest.param(GUESSED, a_link, id="link-of-the-same-name"),
    pytest.param(GUESSED, a_link_to_nothing, id="link-of-the-same-name-to-nothing"),
]


def listing(folder: Path) -> dict[str, str]:
    """Return the targets of links and the contents of files by their names."""
    return {p.name: os.readlink(p) if p.is_symlink() else p.read_text() for p in folder.iterdir()}


@posix
@pytest.mark.parametrize(("place", "plant"), PLANTED)
def test_what_has_the_temporary_name_is_neither_followed_nor_removed(tmp_path, monkeypatch, place, plant):
    tokens = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(tokens))
    (tmp_path / "precious").write_bytes(b"precious")
    plant(tmp_path / place, tmp_path / "precious")
    before = listing(tmp_path)
    write_whole(tmp_path / "out.json", b"content")
    assert listing(tmp_path) == before | {"out.json": "content"}


@posix
def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out.json").symlink_to(tmp_path / "precious")
    write_whole(tmp_path / "out.json", b"content")
    assert listing(tmp_path) == {"precious": "precious", "out.json": "content"}


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "out.json"
    with whole_file(path) as one:
        one.write(b"one")
        with whole_file(path) as other:
            other.write(b"the other one")
        assert path.read_bytes() == b"the other one"
    assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["out.json"]


def write_and_die(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        os._exit(0)


@posix
def test_only_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "out.json"
    Forked(write_and_die, path).wait(60)
    (left,) = os.listdir(tmp_path)
    others = {"out.json.partial", "out.json.1.partial", f"x{left}", f"{left}.bak"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / GUESSED).symlink_to(path)
    others.add(GUESSED)
    with whole_file(path):
        (writing,) = set(os.listdir(tmp_path)) - others - {left}
        write_whole(path, b"content")
        assert set(os.listdir(tmp_path)) == others | {"out.json", writing}
    assert set(os.listdir(tmp_path)) == others | {"out.json"}


def write_with_a_limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        write_whole(path, bytes(10_000))
    except AccessError as error:
        print(error.problem, error.remedy, sep="|")


@posix
def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "out.json"
    out, err = Forked(write_with_a_limit, path).communicate(60)
    assert out == f"The disk is full, so {path} cannot be written.|Make space and try again.\n", err
    assert os.listdir(tmp_path) == []


@posix
def test_a_folder_that_is_gone_is_said_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "gone" / "out.json"
    with pytest.raises(AccessError, match=r"out\.json cannot be written \(No such file or directory\)"):
        write_whole(path, b"content")
