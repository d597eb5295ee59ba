"""What Windows and macOS do differently with files and text, simulated where the tests run on Linux."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_cropeq.core import whole_file
from napari_cropeq.core.whole_file import remove_file, rename, sync_file, write_whole
from napari_cropeq.errors import AccessError, ArgumentError
from napari_cropeq.formats import paths
from napari_cropeq.formats.paths import check_not_input, check_output, replace_folder

ROOT = Path(__file__).parents[1]


class OpenError(PermissionError):
    """Windows' error for a file that is open in another program."""

    winerror = 32

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "The process cannot access the file because it is being used by another process")


@pytest.fixture
def open_elsewhere(monkeypatch):
    """Return a function that makes the next calls of a function of ``os`` fail, as while a file is open."""

    def fail(name, times):
        original, left = getattr(os, name), [times]

        def call(*arguments, **options):
            if left[0]:
                left[0] -= 1
                raise OpenError
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    monkeypatch.setattr(whole_file, "PAUSE_SECONDS", 0.0)
    return fail


def test_a_file_is_replaced_once_a_virus_scanner_has_closed_it(tmp_path, open_elsewhere):
    (tmp_path / "a.json").write_bytes(b"old")
    open_elsewhere("replace", 3)
    write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_gets_its_name_once_its_files_are_closed(tmp_path, open_elsewhere):
    (tmp_path / "new" / "c").mkdir(parents=True)
    open_elsewhere("replace", 3)
    replace_folder(tmp_path / "new", tmp_path / "out.ome.zarr", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_a_file_is_removed_once_it_is_closed(tmp_path, open_elsewhere):
    (tmp_path / "shard").write_bytes(b"")
    open_elsewhere("unlink", 3)
    remove_file(tmp_path / "shard")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda path: write_whole(path, b"new"), id="written"),
        pytest.param(lambda path: rename(path.with_name("other"), path), id="renamed"),
    ],
)
def test_a_file_that_stays_open_gives_a_remedy_and_is_kept(tmp_path, open_elsewhere, monkeypatch, act):
    (tmp_path / "a.json").write_bytes(b"old")
    monkeypatch.setattr(whole_file, "WAIT_SECONDS", 0.0)
    open_elsewhere("replace", 1_000)
    with pytest.raises(AccessError, match=r"one of them is open.*Close it in other programs, and layers that show it"):
        act(tmp_path / "a.json")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_another_error_is_not_waited_for(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(whole_file.time, "sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(AccessError, match="Operation not permitted"):
        write_whole(tmp_path / "a.json", b"new")


@pytest.mark.skipif(os.name != "posix", reason="fcntl is POSIX's")
@pytest.mark.parametrize("supported", [True, False], ids=["local-disk", "network-disk"])
def test_macos_syncs_down_to_the_drive(tmp_path, monkeypatch, supported):
    import fcntl

    calls = []

    def full(_, command):
        calls.append(command)
        if not supported:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    (tmp_path / "a").write_bytes(b"")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    sync_file(tmp_path / "a")
    assert calls == ([51] if supported else [51, "fsync"])


@pytest.mark.parametrize(
    ("given", "output"),
    [
        pytest.param("Stack.ome.zarr", "stack.ome.zarr", id="case"),
        pytest.param("Zelle-u\u0308.ome.zarr", "Zelle-\u00fc.ome.zarr", id="composition"),
        pytest.param("STACK.partial.ome.zarr", "stack.ome.zarr", id="unfinished"),
    ],
)
def test_macos_has_one_file_for_names_that_differ_in_case(tmp_path, monkeypatch, given, output):
    check_not_input(tmp_path / output, [tmp_path / given])  # two files here
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ArgumentError, match=r"also an input|kept until it is complete"):
        check_not_input(tmp_path / output, [tmp_path / given])


@pytest.mark.parametrize("allowed", [True, False], ids=["long-paths", "short-paths"])
def test_a_path_that_is_too_long_for_windows_is_refused_before_the_work(tmp_path, monkeypatch, allowed):
    path = tmp_path / ("a" * (190 - len(str(tmp_path))) + ".ome.zarr")
    check_output(path)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(paths, "_long_paths", lambda: allowed)
    check_output(tmp_path / "short.ome.zarr")
    if allowed:
        check_output(path)
    else:
        with pytest.raises(AccessError, match=r"Choose a folder with a shorter path, or allow long paths in Windows\."):
            check_output(path)


def test_the_longest_path_inside_a_store_is_not_underestimated():
    inside = Path("0", "c", *["99"] * 2, *["9999"] * 3, f"9999.{'0' * 32}{paths.PARTIAL}")
    assert len(str(inside)) < paths.INSIDE


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_text_that_the_console_cannot_show_is_no_error(encoding):
    """Such as µ, ≤ or − in a file that the output of Windows is redirected to."""
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "napari_cropeq.cli", "train", "--help"]
    done = subprocess.run(command, capture_output=True, timeout=120, env=env)
    assert (done.returncode, done.stderr) == (0, b"") and b"--voxel-size" in done.stdout
