"""Damage to an unfinished store, apart from its shards: metadata, header and journal are checked before they count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import a_result, textured_volume
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.errors import AccessError, ImageError
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.run.export import export
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.journal import Journal, Record
from napari_cropeq.store.unfinished import Unfinished

SHAPE = (12, 50, 70)
METADATA = ("zarr.json", "0/zarr.json", "1/zarr.json", "2/zarr.json")


@pytest.fixture(autouse=True)
def three_levels(monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


@pytest.fixture(autouse=True)
def one_tile_after_another(monkeypatch):
    """Compute each tile by itself, so that a step never ends with all of them."""
    monkeypatch.setattr(TileShapes, "bulk", property(lambda _: (32,) * 3))


@pytest.fixture(scope="module")
def result():
    return a_result(textured_volume(SHAPE))


def run(result, path: Path, **options) -> list:
    return list(export(result, path, 32, **options))


@pytest.fixture(scope="module")
def expected(result, tmp_path_factory):
    """The files of an undisturbed export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "SMALLEST", 20)
        path = tmp_path_factory.mktemp("undisturbed") / "out.ome.zarr"
        run(result, path)
        return contents(path)


@pytest.fixture
def started(tmp_path, result) -> Path:
    """An output of which some tiles are finished."""
    steps = export(result, tmp_path / "out.ome.zarr", 32)
    for step in steps:
        if step.done:
            assert step.done < step.total
            break
    steps.close()
    return tmp_path / "out.ome.zarr"


def contents(folder: Path) -> dict[str, bytes]:
    files = (f for f in folder.rglob("*") if f.is_file() and ".cropeq" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def header_of(path: Path) -> Path:
    return partial_of(path) / ".cropeq" / "header.json"


def as_of_an_earlier_version(path: Path) -> None:
    """Remove what a header contains since checksums were added."""
    header = json.loads(header_of(path).read_text())
    header.pop("metadata"), header.pop("checksum")
    header_of(path).write_text(json.dumps(header, indent=1))


# -- metadata ------------------------------------------------------------------------------------------


def changed(*keys, to):
    """Change a value in a JSON file."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        inside = content
        for key in keys[:-1]:
            inside = inside[key]
        assert json.dumps(inside[keys[-1]]) != json.dumps(to)
        inside[keys[-1]] = to
        path.write_text(json.dumps(content))

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


DATASETS = ("attributes", "ome", "multiscales", 0, "datasets")
ENDIAN = ("codecs", 0, "configuration", "codecs", 0, "configuration", "endian")
DAMAGED = [
    pytest.param("zarr.json", cut, id="cut-group"),
    pytest.param("0/zarr.json", cut, id="cut-array"),
    pytest.param("2/zarr.json", Path.unlink, id="removed"),
    pytest.param("zarr.json", lambda path: path.write_bytes(b"[" * 100_000), id="nested"),
    pytest.param("zarr.json", changed(*DATASETS, 0, "coordinateTransformations", 0, "scale", to=[9, 9, 9]), id="scale"),
    pytest.param("zarr.json", changed("attributes", "napari-cropeq", "model", to="other"), id="model"),
    pytest.param("0/zarr.json", changed("shape", to=[30, 50, 71]), id="shape"),
    pytest.param("0/zarr.json", changed("data_type", to="int16"), id="type"),
    pytest.param("1/zarr.json", changed("fill_value", to=7), id="fill-value"),
    pytest.param("1/zarr.json", changed("fill_value", to=False), id="fill-value-type"),
    pytest.param("0/zarr.json", changed(*ENDIAN, to="big"), id="byte-order"),
]


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "earlier-version"])
@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damaged_metadata_is_written_again_on_resume(started, result, expected, name, damage, earlier, caplog):
    if earlier:
        as_of_an_earlier_version(started)
    damage(partial_of(started) / name)
    steps = run(result, started, existing="resume")
    assert steps[0].started
    assert contents(started) == expected
    assert [r.levelname for r in caplog.records if "it is written again" in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_metadata_that_is_damaged_during_a_run_is_written_again(tmp_path, result, expected, name, damage):
    path = tmp_path / "out.ome.zarr"
    for step in export(result, path, 32):
        if step.stage == "saving":
            damage(partial_of(path) / name)
    assert contents(path) == expected


def test_metadata_of_an_earlier_version_stays_as_it_was_written(started, result):
    as_of_an_earlier_version(started)
    path = partial_of(started) / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    before = path.read_bytes()
    run(result, started, existing="resume")
    assert (started / "zarr.json").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")
def test_metadata_is_synced_before_the_header_is_written(tmp_path, result, monkeypatch):
    synced, fsync, write = set(), os.fsync, Journal.write_header

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def check(journal, header) -> None:
        store = journal.folder.parent
        wanted = [*(store / name for name in METADATA), store.parent, store, *(store / str(n) for n in range(3))]
        assert [path for path in wanted if path.stat().st_ino not in synced] == []
        write(journal, header)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Journal, "write_header", check)
    run(result, tmp_path / "out.ome.zarr")


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")
def test_all_folders_are_synced_before_the_output_gets_its_name(tmp_path, result, monkeypatch):
    synced, fsync, finish = set(), os.fsync, Journal.finish

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def check(journal) -> None:
        folders = [path for path in journal.folder.parent.rglob("*") if path.is_dir() and path != journal.folder]
        assert [path for path in folders if path.stat().st_ino not in synced] == []
        finish(journal)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Journal, "finish", check)
    run(result, tmp_path / "out.ome.zarr")


def test_an_unfinished_store_is_described_without_its_metadata_files(started):
    fraction = Unfinished.open(partial_of(started)).fraction
    for name in METADATA:
        (partial_of(started) / name).unlink()
    assert 0 < Unfinished.open(partial_of(started)).fraction == fraction


# -- the journal ---------------------------------------------------------------------------------------


def test_a_line_with_a_flipped_bit_is_not_read():
    record = Record((0, (1,), (2, 0, 3)), 1823, "ed1836259b977dc9b3b61dffc24198e8")
    line = record.line().rstrip().encode()
    for at in range(len(line)):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[at] ^= 1 << bit
            read = [Record.of_line(part) for part in flipped.decode(errors="replace").splitlines()]
            assert set(read) <= {None, record}, flipped


LINES = [
    pytest.param('[0, [0], [0, 0, 5], 1823, "ed"]', Record((0, (0,), (0, 0, 5)), 1823, "ed"), id="size"),
    pytest.param('[1, [], [1, 0, 0], null, ""]', Record((1, (), (1, 0, 0)), None, ""), id="fill-value"),
]


@pytest.mark.parametrize(("line", "record"), LINES)
def test_a_line_of_an_earlier_version_is_read(line, record):
    assert Record.of_line(line) == record
    assert Record.of_line(record.line()) == record


def test_a_wrong_line_is_not_believed(tmp_path, result):
    """A shard of fill value has no file, so nothing but the journal says that it is finished."""
    path = tmp_path / "out.ome.zarr"
    store = DiskStore(path, store_spec(result), 32)
    store.put(((), (0, 0, 1)), store.levels[0].whole[store.grid.box((0, 0, 1)).slices])
    store.flush()
    store.release()
    journal = partial_of(path) / ".cropeq" / "journal-0-of-1.jsonl"
    text = journal.read_text()
    assert "[0, 0, 1], null" in text
    journal.write_text(text.replace("[0, 0, 1], null", "[0, 0, 2], null"))
    store = DiskStore(path, store_spec(result), 32, "resume")
    finished = set(store)
    store.release()
    assert finished == set()


WRONG = [
    pytest.param('[1e999, [], [0, 0, 0], 5, "a"]', id="infinite"),
    pytest.param('[0, [[1]], [0, 0, 0], 5, "a"]', id="list-in-list"),
    pytest.param('[0, [], [{}, 0, 0], 5, "a"]', id="object"),
    pytest.param('[0, [], ["a", 0, 0], 5, "a"]', id="text"),
    pytest.param('[-1, [], [0, 0, 0], null, ""]', id="negative-level"),
    pytest.param('[0, [], [-1, 0, 0], null, ""]', id="negative"),
    pytest.param('[0, [3], [0, 0, 0], null, ""]', id="leading"),
    pytest.param('[0, [], [0, 0, 9], null, ""]', id="outside"),
    pytest.param('[0, [], [0.5, 0, 0], null, ""]', id="fraction"),
    pytest.param(f'[0, [], [{10**4000}, 0, 0], null, ""]', id="huge"),
    pytest.param('[0, [], [0, 0, 2], [1], "a"]', id="size"),
    pytest.param("[" * 100_000, id="nested"),
    pytest.param('{"0": 1}', id="no-list"),
]


@pytest.mark.parametrize("line", WRONG)
def test_lines_that_cannot_be_records_are_skipped(started, result, expected, line):
    with open(partial_of(started) / ".cropeq" / "journal-0-of-1.jsonl", "a") as file:
        file.write(f"\n{line}\n")
    assert Unfinished.open(partial_of(started)) is not None
    steps = run(result, started, existing="resume")
    assert steps[0].started and not steps[0].damaged
    assert contents(started) == expected


HEADERS = [
    pytest.param('"format": 1', '"format": 1, "x": ' + "[" * 5000, id="cut-in-a-list"),
    pytest.param('"format": 1', '"format": 1, "x": ' + "[" * 5000 + "]" * 5000, id="nested"),
    pytest.param('"replaces": false', '"replaces": true', id="would-replace-the-output"),
    pytest.param('"output": "out', '"output": "other', id="another-output"),
    pytest.param('"axial": "z"', '"axial": "y"', id="another-description"),
]


@pytest.mark.parametrize(("text", "other"), HEADERS)
def test_a_changed_header_is_not_believed(started, result, text, other):
    whole = header_of(started).read_text()
    assert text in whole
    header_of(started).write_text(whole.replace(text, other))
    for attempt in (lambda: run(result, started, existing="resume"), lambda: Unfinished.open(partial_of(started))):
        with pytest.raises(ImageError, match=r"^The journal of .* cannot be read .* Start again with") as caught:
            attempt()
        assert caught.value.setting == "restart"


FINGERPRINTS = [[], [[1]], "text", None, 5]


@pytest.mark.parametrize("value", FINGERPRINTS, ids=str)
@pytest.mark.parametrize("key", ["fingerprint", "result"])
def test_a_damaged_header_of_an_earlier_version(started, result, key, value):
    as_of_an_earlier_version(started)
    header = json.loads(header_of(started).read_text())
    header_of(started).write_text(json.dumps(header | {key: value}))
    attempt = Unfinished.open if key == "result" else lambda path: run(result, started, existing="resume")
    with pytest.raises(ImageError, match=r"^The journal of out\.partial\.ome\.zarr is damaged") as caught:
        attempt(partial_of(started))
    assert caught.value.setting == "restart"


# -- shards --------------------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


MESSAGE = r"^A shard of out\.partial\.ome\.zarr was damaged while the output was made .* and resume"


def test_a_shard_that_is_damaged_before_the_coarser_levels_are_made(tmp_path, result, expected):
    path = tmp_path / "out.ome.zarr"
    store = DiskStore(path, store_spec(result), 32)
    steps = export(result, path, 32)
    store.release()
    for step in steps:
        if step.done == step.total:
            break
    steps.close()
    store = DiskStore(path, store_spec(result), 32, "resume")
    store.levels[1].done.clear()
    damaged(store.levels[0].path(((), (0, 0, 0))))
    with pytest.raises(AccessError, match=MESSAGE):
        store.complete_levels()
    store.release()
    assert run(result, path, existing="resume")[0].damaged == 1
    assert contents(path) == expected


def test_a_shard_that_is_damaged_before_the_tiff_is_written(tmp_path, result):
    path = tmp_path / "out.ome.tif"
    with pytest.raises(AccessError, match=MESSAGE):
        for step in export(result, path, 32):
            if step.stage == "saving":
                damaged(partial_of(path) / "0/c/0/0/0")
    assert run(result, path, existing="resume")[0].damaged == 1
