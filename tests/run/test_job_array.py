"""A job array: processes that share a store verify it together, and the last one repairs and completes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from conftest import a_result, textured_volume
from files import a_model, a_stack
from napari_cropeq.errors import OutputExistsError
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.run.batch import Batch, BatchSettings
from napari_cropeq.run.export import export
from napari_cropeq.run.naming import Naming
from napari_cropeq.store.shards import Shards

TILE = 16
PARTS = 3


@pytest.fixture(autouse=True)
def three_levels(monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


@pytest.fixture(scope="module")
def result():
    return a_result(textured_volume((12, 50, 70)))


def contents(folder: Path) -> dict[str, bytes]:
    files = (f for f in folder.rglob("*") if f.is_file() and ".cropeq" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def part(result, path: Path, number: int, **options) -> list:
    return list(export(result, path, TILE, part_of=(number, PARTS), **options))


@pytest.fixture(scope="module")
def expected(result, tmp_path_factory) -> dict[str, bytes]:
    """The files of one process that does all of the work."""
    path = tmp_path_factory.mktemp("one") / "out.ome.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "SMALLEST", 20)
        list(export(result, path, TILE))
    return contents(path)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out.ome.zarr"


# -- the last one completes the store ------------------------------------------------------------------


def first_shard(folder: Path) -> Path:
    """Return a shard of the first part."""
    return min(path for path in folder.glob("0/c/**/*") if path.name.isdigit() and path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def journal(folder: Path, number: int = 0) -> Path:
    return folder / ".cropeq" / f"journal-{number}-of-{PARTS}.jsonl"


def half_of(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = [
    pytest.param(lambda folder: flip(first_shard(folder)), 1, id="flipped"),
    pytest.param(lambda folder: half_of(first_shard(folder)), 1, id="truncated"),
    pytest.param(lambda folder: first_shard(folder).unlink(), 1, id="removed"),
    pytest.param(lambda folder: flip(journal(folder)), 0, id="journal-flipped"),
    pytest.param(lambda folder: half_of(journal(folder)), 0, id="journal-truncated"),
    pytest.param(lambda folder: journal(folder).unlink(), 0, id="journal-removed"),
]


@pytest.mark.parametrize("during", [False, True], ids=["between", "while-another-runs"])
@pytest.mark.parametrize(("damage", "damaged"), DAMAGE)
def test_the_last_process_repairs_what_others_have_done(result, out, expected, damage, damaged, during):
    part(result, out, 0)
    part(result, out, 1)
    last = export(result, out, TILE, part_of=(2, PARTS))
    steps = [next(last)] if during else []
    damage(partial_of(out))
    steps += last
    assert steps[-1].stage == "saving"
    assert max(step.damaged for step in steps) == damaged
    assert contents(out) == expected
    assert os.listdir(out.parent) == ["out.ome.zarr"]


def test_a_part_that_was_not_run_is_waited_for(result, out, expected):
    assert part(result, out, 0)[-1].stage == "shared"
    assert part(result, out, 2)[-1].stage == "shared"
    assert not out.exists()
    assert part(result, out, 1)[-1].stage == "saving"
    assert contents(out) == expected


# -- verification --------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch, out) -> list[str]:
    """The shards that are read to verify them, each of them while no other process has to wait."""
    found, record = [], Shards.record

    def noted(shards, tile):
        found.append(shards.path(tile).relative_to(partial_of(out)).as_posix())
        with FileLock(out.with_name(f".{partial_of(out).name}.lock-begin"), timeout=0):
            return record(shards, tile)

    monkeypatch.setattr(Shards, "record", noted)
    return found


def half_done(result, out: Path) -> list[str]:
    """Compute some of the tiles of all parts, and return the files of the finished shards."""
    for number in range(PARTS):
        steps = export(result, out, TILE, part_of=(number, PARTS))
        for step in steps:
            if step.done:
                assert step.stage == "tiles"
                break
        steps.close()
    folder = partial_of(out)
    return sorted(p.relative_to(folder).as_posix() for p in folder.glob("*/c/**/*") if p.is_file())


def test_processes_of_an_array_read_each_shard_once(result, out, expected, reads):
    shards = half_done(result, out)
    reads.clear()
    running = [export(result, out, TILE, part_of=(number, PARTS)) for number in range(PARTS)]
    for steps in running:
        next(steps)
    assert sorted(reads) == shards
    assert [list(steps)[-1].stage for steps in running] == ["shared"] * (PARTS - 1) + ["saving"]
    assert sorted(reads) == shards, "the last one reads nothing again"
    assert contents(out) == expected


def test_a_single_process_reads_each_shard_once(result, out, expected, reads):
    shards = half_done(result, out)
    reads.clear()
    list(export(result, out, TILE, "resume"))
    assert sorted(reads) == shards
    assert contents(out) == expected


def test_what_was_verified_in_an_earlier_run_is_verified_again(result, out, expected, reads):
    part(result, out, 0)
    part(result, out, 1)
    reads.clear()
    part(result, out, 2)
    assert len(reads) == len(set(reads))
    assert first_shard(out).relative_to(out).as_posix() in reads
    assert contents(out) == expected


# -- what has the name of the output -------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("x")


def a_file(path: Path) -> None:
    path.write_text("x")


FOREIGN = [
    pytest.param("out.ome.zarr", a_folder, id="folder"),
    pytest.param("out.ome.tif", a_file, id="file"),
    pytest.param("out.ome.tif", lambda path: a_stack(path), id="stack"),
    pytest.param("out.ome.zarr", lambda path: path.mkdir(), id="empty-folder"),
]
OPTIONS = [
    pytest.param({"part_of": (0, PARTS)}, id="job-array"),
    pytest.param({"part_of": (0, PARTS), "existing": "resume"}, id="job-array-resumed"),
    pytest.param({"existing": "resume"}, id="resumed"),
]
WORDS = r"out\.ome\.\w+ exists, but it is not a result of this package\. Move it away, or choose another name"


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("name", "make"), FOREIGN)
def test_something_else_with_the_name_of_the_output_is_no_result(tmp_path, result, name, make, options):
    path = tmp_path / name
    make(path)
    (tmp_path / "kept").mkdir()
    before = sorted(path.rglob("*"))
    with pytest.raises(OutputExistsError, match=WORDS):
        list(export(result, path, TILE, **options))
    assert sorted(path.rglob("*")) == before and sorted(os.listdir(tmp_path)) == sorted(["kept", name])


@pytest.mark.parametrize(("name", "make"), FOREIGN)
def test_a_batch_does_not_skip_it(tmp_path, name, make):
    stack = a_stack(tmp_path / "a.ome.tif")
    (tmp_path / "results").mkdir()
    make(tmp_path / "results" / name)
    naming = Naming(tmp_path / "results", "out", name.removeprefix("out"))
    batch = Batch([stack], naming, BatchSettings(a_model(), existing="resume", device="cpu"))
    list(batch.run())
    assert batch.items[0].status == "failed"
    assert isinstance(batch.items[0].error, OutputExistsError)


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_a_result_is_kept(tmp_path, result, name):
    path = tmp_path / name
    list(export(result, path, TILE))
    for options in ({"part_of": (0, PARTS)}, {"existing": "resume"}):
        (step,) = export(result, path, TILE, **options)
        assert (step.stage, step.started) == ("saving", 1)


@pytest.mark.parametrize("kind", ["folder", "missing", "file"])
@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_an_output_that_is_a_link_is_replaced_and_its_target_is_kept(tmp_path, result, name, kind):
    target = tmp_path / "target"
    {"folder": a_folder, "file": a_file, "missing": lambda path: None}[kind](target)
    (tmp_path / name).symlink_to(target)
    for _ in range(2):
        list(export(result, tmp_path / name, TILE, existing="overwrite"))
        assert not (tmp_path / name).is_symlink()
        assert sorted(os.listdir(tmp_path)) == sorted([name] + ["target"] * (kind != "missing"))
    assert kind != "folder" or os.listdir(target) == ["precious"]
