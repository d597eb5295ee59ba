"""Tiles on disk: which tiles a store has, how it is resumed, and which processes may write to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import zarr

from conftest import a_result, textured_volume
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import (
    AccessError,
    ArgumentError,
    ImageError,
    InUseError,
    MismatchError,
    OutputExistsError,
)
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.paths import check_output, check_space, old_of, partial_of
from napari_cropeq.run.export import export
from napari_cropeq.store import disk as disk_module
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.folder import unfinished
from napari_cropeq.store.journal import Journal

SHAPE = (12, 50, 70)


@pytest.fixture(autouse=True)
def three_levels(monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


@pytest.fixture
def result():
    return a_result(textured_volume(SHAPE))


@pytest.fixture
def opened():
    """Open stores that are closed after the test."""
    stores = []

    def open_store(path, result, *arguments, **options) -> DiskStore:
        stores.append(DiskStore(path, store_spec(result), *arguments, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.release()


def voxels_of(store: DiskStore, index) -> np.ndarray:
    z, y, x = np.ogrid[store.grid.box(index).slices]
    return (z * 997 + y * 31 + x * 7).astype(np.uint16)


def put(store: DiskStore, *indices) -> None:
    for index in indices or store.grid.indices(Box.whole(store.grid.shape)):
        if ((), index) not in store:
            store.put(((), index), voxels_of(store, index))
    store.flush()


def read(store: DiskStore, index):
    return store.read(((), index), store.grid.box(index))


def contents(folder) -> dict[str, bytes]:
    """Return every file of a store by its name, except the journal."""
    files = (f for f in folder.rglob("*") if f.is_file() and ".cropeq" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def undisturbed(folder, result) -> dict[str, bytes]:
    store = DiskStore(folder / "undisturbed.ome.zarr", store_spec(result), 32)
    put(store)
    store.finish()
    return contents(store.folder.path)


def visible(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_it_gets_its_name_only_when_finished(tmp_path, result, opened):
    path = tmp_path / "out.ome.zarr"
    disk = opened(path, result, 32)
    assert disk.grid.shape == result.sr_shape and disk.grid.tile == (32, 32, 32)
    assert read(disk, (0, 1, 2)) is None
    put(disk, (0, 1, 2))
    assert np.array_equal(read(disk, (0, 1, 2)), voxels_of(disk, (0, 1, 2)))
    assert len(disk) == 1 and ((), (0, 0, 0)) not in disk and set(disk) == {((), (0, 1, 2))}
    assert visible(tmp_path) == ["out.partial.ome.zarr"] and unfinished(path) == disk.folder.partial
    with pytest.raises(ImageError, match=r"^1 of 6 tiles are finished\. Compute the whole volume"):
        disk.finish()
    put(disk)
    disk.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"] and unfinished(path) is None
    assert not (path / ".cropeq").exists()
    assert np.array_equal(read(disk, (0, 0, 1)), voxels_of(disk, (0, 0, 1))), "readable under its new name"
    array = zarr.open_array(path / "0", mode="r")
    assert array.shards == (32, 32, 32) and array.metadata.zarr_format == 3
    assert all(np.array_equal(array[disk.grid.box(i).slices], voxels_of(disk, i)) for _, i in disk)


def test_tiles_that_wait_to_be_written_can_be_read(tmp_path, result, opened, monkeypatch):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    slow, write = threading.Event(), disk.levels.write
    monkeypatch.setattr(disk.levels, "write", lambda *tile: slow.wait() and write(*tile))
    disk.put(((), (0, 0, 0)), voxels_of(disk, (0, 0, 0)))
    assert np.array_equal(read(disk, (0, 0, 0)), voxels_of(disk, (0, 0, 0))) and len(disk) == 0
    slow.set()
    disk.flush()
    assert np.array_equal(read(disk, (0, 0, 0)), voxels_of(disk, (0, 0, 0))) and len(disk) == 1


def test_parts_across_chunks(tmp_path, opened, monkeypatch):
    monkeypatch.setattr("napari_cropeq.formats.ome_zarr.write.CHUNK", 8)
    disk = opened(tmp_path / "out.ome.zarr", a_result(textured_volume(SHAPE)), 32)
    put(disk)
    for part in (Box((3, 5, 6), (20, 31, 30)), Box((0, 0, 0), (1, 32, 32)), Box((7, 8, 9), (8, 9, 10))):
        expected = voxels_of(disk, (0, 0, 0))[part.slices]
        assert np.array_equal(disk.read(((), (0, 0, 0)), part), expected)
        assert np.array_equal(disk.read(((), (0, 0, 0)), part), expected), "from decoded chunks"


def test_a_resumed_store_has_its_tiles_and_ends_the_same(tmp_path, result, opened):
    expected = undisturbed(tmp_path, result)
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 1), (0, 1, 2))
    disk.release()
    again = opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert set(again) == {((), (0, 0, 1)), ((), (0, 1, 2))} and again.damaged == []
    assert np.array_equal(read(again, (0, 1, 2)), voxels_of(again, (0, 1, 2)))
    put(again)
    again.finish()
    assert contents(again.folder.path) == expected
    assert len(expected) == 4 + 6 + 2 + 1, "three levels in shards, and their metadata"


def damage(path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        content[len(content) // 3] ^= 16
        path.write_bytes(content)
    elif kind == "removed":
        path.unlink()
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("kind", ["truncated", "flipped", "removed", "emptied"])
@pytest.mark.parametrize("level", [0, 1], ids="level-{}".format)
def test_a_damaged_shard_is_found_and_computed_again(tmp_path, result, opened, kind, level, caplog):
    expected = undisturbed(tmp_path, result)
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk)
    disk.release()
    damage(disk.levels[level].path(((), (0, 0, 0))), kind)
    again = opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert again.damaged == [(level, (), (0, 0, 0))] and len(again) == 6 - (level == 0)
    assert [r.levelname for r in caplog.records if "is missing or damaged" in r.getMessage()] == ["WARNING"]
    put(again)
    again.finish()
    assert contents(again.folder.path) == expected


def test_a_shard_of_zeros_has_no_file_and_is_finished(tmp_path, result, opened):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    disk.put(((), (0, 0, 0)), np.zeros((30, 32, 32), np.uint16))
    disk.flush()
    disk.release()
    path = disk.levels[0].path(((), (0, 0, 0)))
    assert not path.exists()
    again = opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert set(again) == {((), (0, 0, 0))}
    again.release()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left by something else")
    assert len(opened(tmp_path / "out.ome.zarr", result, 32, "resume")) == 0


TORN = [
    pytest.param("[0, [], [0, 0", id="cut"),
    pytest.param("[0, [], [0, 0, 0], 5]", id="too-short"),
    pytest.param('[9, [], [0, 0, 0], 5, "a"]', id="no-such-level"),
    pytest.param('[0, [], [7, 0, 0], 5, "a"]', id="no-such-shard"),
    pytest.param('[0, [3], [0, 0, 0], 5, "a"]', id="no-such-channel"),
    pytest.param("\x00\xff\x00", id="garbage"),
]


@pytest.mark.parametrize("line", TORN)
def test_damaged_lines_of_a_journal_are_skipped(tmp_path, result, opened, line):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 1))
    disk.release()
    with open(disk.folder.partial / ".cropeq" / "journal-0-of-1.jsonl", "a", encoding="latin-1") as file:
        file.write(line)
    again = opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert set(again) == {((), (0, 0, 1))}
    put(again, (0, 0, 0))
    again.release()
    assert len(opened(tmp_path / "out.ome.zarr", result, 32, "resume")) == 2, "the next record is on its own line"


def test_files_that_a_kill_left_are_removed(tmp_path, result, opened):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    disk.release()
    left = disk.levels[0].path(((), (0, 0, 1))).with_suffix(".4fd1.partial")
    left.write_bytes(b"half")
    unclaimed = disk.levels[0].path(((), (0, 1, 1)))
    unclaimed.parent.mkdir(exist_ok=True)
    unclaimed.write_bytes(b"half")
    again = opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert not left.exists() and ((), (0, 1, 1)) not in again
    put(again)
    again.finish()
    assert np.array_equal(read(again, (0, 1, 1)), voxels_of(again, (0, 1, 1)))


@pytest.mark.parametrize("existing", ["refuse", "resume"])
def test_a_store_without_a_header_is_created_again(tmp_path, result, opened, existing):
    path = tmp_path / "out.ome.zarr"
    for name in (".cropeq", "0"):
        (partial_of(path) / name).mkdir(parents=True)
    if existing == "refuse":
        with pytest.raises(OutputExistsError, match=r"An unfinished run left out\.partial\..* Complete it") as caught:
            opened(path, result, 32)
        assert caught.value.setting == "unfinished"
    else:
        assert len(opened(path, result, 32, existing)) == 0


OTHERS = [
    pytest.param({"filters": 16}, {}, r"differs in model \(", id="weights"),
    pytest.param({"planes": "y"}, {}, r"differs in planes \(\['x'\], now \['y'\]\)", id="planes"),
    pytest.param({"dtype": "float32"}, {}, r"differs in type \(uint16, now float32\)", id="type"),
    pytest.param({"translate": (1.0, 0.0, 0.0)}, {}, "differs in geometry: translate", id="place"),
    pytest.param({}, {"tile": 16}, r"differs in tile grid: shard \(\[32, 32, 32\], now \[16, 16, 16\]\)", id="tiles"),
]


@pytest.mark.parametrize(("options", "store", "words"), OTHERS)
def test_it_is_not_resumed_with_settings_that_give_other_bits(tmp_path, result, opened, options, store, words):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    disk.release()
    before = contents(disk.folder.partial)
    with pytest.raises(MismatchError, match=f"^out.partial.ome.zarr was started with .*{words}") as caught:
        opened(
            tmp_path / "out.ome.zarr",
            a_result(textured_volume(SHAPE), **options),
            **({"tile": 32} | store),
            existing="resume",
        )
    assert caught.value.setting == "restart"
    assert contents(disk.folder.partial) == before
    assert len(opened(tmp_path / "out.ome.zarr", result, 32, "resume")) == 1, "and it is not locked"


def test_changed_voxels_are_another_source(tmp_path, result, opened):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    disk.release()
    volume = textured_volume(SHAPE)
    volume[5, 20, 30] ^= 1
    with pytest.raises(MismatchError, match="differs in source: voxels"):
        opened(tmp_path / "out.ome.zarr", a_result(volume), 32, "resume")


def test_another_instruction_set_is_refused(tmp_path, result, opened):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    disk.release()
    header = disk.folder.partial / ".cropeq" / "header.json"
    started = json.loads(header.read_text())
    started["fingerprint"]["instruction set"] = "ABACUS"
    del started["checksum"]
    header.write_text(json.dumps(started))
    with pytest.raises(MismatchError, match=r"differs in instruction set \(ABACUS, now"):
        opened(tmp_path / "out.ome.zarr", result, 32, "resume")


DAMAGED = [
    pytest.param(b"{", ImageError, id="cut"),
    pytest.param(b"[]", ImageError, id="no-object"),
    pytest.param(b'{"format": 99}', MismatchError, id="newer"),
]


@pytest.mark.parametrize(("content", "error"), DAMAGED)
def test_a_damaged_header_is_reported(tmp_path, result, opened, content, error):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    disk.release()
    (disk.folder.partial / ".cropeq" / "header.json").write_bytes(content)
    with pytest.raises(error, match='tart again with existing="overwrite"') as caught:
        opened(tmp_path / "out.ome.zarr", result, 32, "resume")
    assert caught.value.setting == "restart"
    assert len(opened(tmp_path / "out.ome.zarr", result, 32, "overwrite")) == 0


def test_one_writer(tmp_path, result, opened):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))
    for existing in ("resume", "overwrite"):
        with pytest.raises(InUseError, match=r"^Another process is writing to out.partial.ome.zarr\."):
            DiskStore(tmp_path / "out.ome.zarr", store_spec(result), 32, existing)
    with pytest.raises(InUseError, match="A process of a run in 1 part is writing"):
        DiskStore(tmp_path / "out.ome.zarr", store_spec(result), 32, part=(1, 3))
    disk.release()
    shared = [opened(tmp_path / "out.ome.zarr", result, 32, part=(n, 3)) for n in (0, 2)]
    assert [len(store) for store in shared] == [1, 1], "processes that share the work"
    with pytest.raises(InUseError, match="Another process with number 2 of 0 to 2 is writing"):
        DiskStore(tmp_path / "out.ome.zarr", store_spec(result), 32, part=(2, 3))


def test_a_lock_ends_with_its_process(tmp_path, result, opened):
    code = (
        "import sys, time; from pathlib import Path; from napari_cropeq.store.lock import StoreLock\n"
        "lock = StoreLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out.partial.ome.zarr")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match="Another process"):
            DiskStore(tmp_path / "out.ome.zarr", store_spec(result), 32)
    finally:
        holder.kill()
        holder.communicate()
    assert len(opened(tmp_path / "out.ome.zarr", result, 32, "resume")) == 0


def test_a_full_disk_is_reported_and_no_more_shards_are_recorded(tmp_path, result, opened, monkeypatch):
    disk = opened(tmp_path / "out.ome.zarr", result, 32)
    put(disk, (0, 0, 0))

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_cropeq.store.shards.sync_file", full)
        with pytest.raises(AccessError, match=r"The disk is full, so out.partial.ome.zarr cannot be written"):
            for index in ((0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1)):
                disk.put(((), index), voxels_of(disk, index))
            disk.flush()
    assert set(disk) == {((), (0, 0, 0))} == {r.shard[1:] for r in Journal(disk.folder.partial).records()}
    put(disk)
    disk.finish()
    assert np.array_equal(read(disk, (0, 0, 1)), voxels_of(disk, (0, 0, 1)))


def test_an_empty_store_is_removed(tmp_path, result, opened):
    opened(tmp_path / "out.ome.zarr", result, 32).release()
    assert list(tmp_path.iterdir()) == []


def test_the_old_output_is_put_back_if_the_new_one_cannot_be_renamed(tmp_path, result, monkeypatch):
    path = tmp_path / "out.ome.zarr"
    (path / "deep").mkdir(parents=True)
    disk = DiskStore(path, store_spec(result), 32, "overwrite")
    put(disk)
    rename = os.replace

    def refuse(new, final):
        if str(new).endswith("out.partial.ome.zarr"):
            raise OSError("refused")
        rename(new, final)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="refused"):
        patch.setattr(os, "replace", refuse)
        disk.finish()
    assert (path / "deep").exists()
    os.replace(path, old_of(disk.folder.partial))  # as if killed between the two renames
    again = DiskStore(path, store_spec(result), 32, "resume")
    assert (path / "deep").exists()
    again.finish()
    assert not (path / "deep").exists() and [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_an_old_store_stays_until_the_new_one_is_finished(tmp_path, result, opened):
    path = tmp_path / "out.ome.zarr"
    path.mkdir()
    (path / "old").write_text("old")
    disk = opened(path, result, 32, "overwrite")
    put(disk, (0, 0, 0))
    assert (path / "old").read_text() == "old"
    put(disk)
    disk.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"] and not (path / "old").exists()


def test_a_store_that_cannot_be_created_leaves_nothing(tmp_path, result, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(disk_module, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DiskStore(tmp_path / "out.ome.zarr", store_spec(result), 32)
    assert visible(tmp_path) == []


def test_outputs_that_cannot_be_written(tmp_path, result):
    (tmp_path / "file").write_text("")
    for folder in ("missing", "file"):
        with pytest.raises(AccessError, match="does not exist or is not writable"):
            DiskStore(tmp_path / folder / "out.ome.zarr", store_spec(result))
    with pytest.raises(AccessError, match=r"GB free, but the result needs 1000000.0 GB\. Make space"):
        check_space(tmp_path, 10**15)
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(OutputExistsError, match="exists already") as caught:
        check_output(tmp_path / "a.ome.zarr")
    assert caught.value.setting == "existing"
    for existing in ("resume", "overwrite"):
        check_output(tmp_path / "a.ome.zarr", existing)
    with pytest.raises(
        ArgumentError, match=r"'perhaps' of existing is not known\. Choose one of refuse, resume, overwrite"
    ):
        check_output(tmp_path / "a.ome.zarr", "perhaps")


NAMES = [
    pytest.param("a.ome.zarr", "a.partial.ome.zarr", id="ome-zarr"),
    pytest.param("a.b.zarr", "a.b.partial.ome.zarr", id="zarr"),
    pytest.param("A.OME.TIF", "A.partial.ome.zarr", id="tiff"),
]


@pytest.mark.parametrize(("name", "partial"), NAMES)
def test_an_unfinished_store_has_the_name_of_an_ome_zarr(tmp_path, name, partial):
    assert partial_of(tmp_path / name) == tmp_path / partial


def test_shards_are_bulk_boxes_by_default(tmp_path, opened):
    disk = opened(tmp_path / "o.ome.zarr", a_result(textured_volume((12, 50, 300))))
    assert disk.grid.tile == (64, 64, 256), "but no larger than the volume needs"


def test_processes_share_the_work(tmp_path, result):
    expected = {}
    for path, parts in ((tmp_path / "one.ome.zarr", [(0, 1)]), (tmp_path / "many.ome.zarr", [(2, 3), (0, 3), (1, 3)])):
        stages = [list(export(result, path, 16, part_of=part)) for part in parts]
        assert [steps[-1].stage for steps in stages] == ["shared"] * (len(parts) - 1) + ["saving"]
        counts = [steps[0].total for steps in stages]
        assert sum(counts) == 2 * 4 * 5 and max(counts) - min(counts) <= 1
        expected[path.name] = contents(path)
    assert expected["one.ome.zarr"] == expected["many.ome.zarr"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.ome.zarr", "one.ome.zarr"]


@pytest.mark.parametrize("part", [(3, 3), (-1, 2), (0, 0)], ids=str)
def test_invalid_part_numbers_are_refused(tmp_path, result, part):
    with pytest.raises(ArgumentError, match=r"There is no part -?\d of \d"):
        next(export(result, tmp_path / "a.ome.zarr", part_of=part))
