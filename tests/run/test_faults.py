"""Fault-injection tests for export: after any fault, a resumed export has the bytes of an undisturbed one.

By default a reduced set runs; the marker ``soak`` runs all (``make soak``).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import faults
from conftest import random_network, work_threads
from faults import (
    IN_FLIGHT,
    SHARDS,
    TILE,
    TILES,
    BreakSource,
    ClockJumps,
    FileLimit,
    Job,
    KillAt,
    KillBeforeOperation,
    Ran,
    Running,
    ScarceMemory,
    SlowDisk,
    TearLine,
    TearShard,
    Trace,
    contents,
    done,
    repair_chunk,
    write_source,
)
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.paths import old_of, partial_of, remove
from napari_cropeq.run.export import export
from napari_cropeq.store import disk as store
from napari_cropeq.store.journal import Journal
from window import TIMEOUT, cells, dock, model_for

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

ZARR, TIFF = "out.ome.zarr", "out.ome.tif"
PARTS = 2  # of a tile
soak = pytest.mark.soak


def write_model(path: Path, filters: int, blocks: int) -> Path:
    scales = [Normalisation(0.0, 4000.0)]
    Model(random_network("valid", filters, blocks), Acquisition((2.5, 1, 1)), scales).save(path)
    return path


class Bench:
    """Source, models, and the content of undisturbed exports of them; 2 blocks compute faster than 7."""

    def __init__(self, folder: Path, blocks: int = 2) -> None:
        self.folder = folder
        self.source, self.other_source = (write_source(folder / f"{n}.ome.zarr", n) for n in (0, 1))
        self.model, self.other_model = (write_model(folder / f"{n}.safetensors", n, blocks) for n in (4, 5))
        self._undisturbed: dict[str, tuple[dict[str, bytes], Ran]] = {}

    def job(self, output: Path, **options) -> Job:
        return Job(output, self.source, self.model, **options)

    def undisturbed(self, name: str) -> tuple[dict[str, bytes], Ran]:
        """Return the content of an undisturbed export, and its report."""
        if name not in self._undisturbed:
            output = self.folder / f"undisturbed-{name}" / name
            output.parent.mkdir()
            ran = done(self.job(output, faults=(Trace(),)))
            assert ran.code == 0 and len(ran.computed) == TILES * PARTS
            self._undisturbed[name] = contents(output), ran
        return self._undisturbed[name]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def case(bench, tmp_path, record_property) -> Case:
    return Case(bench, tmp_path / "case", record_property)


class Case:
    """An output, the faults, and a check that it ends like an undisturbed one."""

    def __init__(self, bench: Bench, folder: Path, record) -> None:
        self.bench, self.folder, self._record = bench, folder, record
        folder.mkdir()

    def job(self, name: str = ZARR, *made, **options) -> Job:
        return self.bench.job(self.folder / name, **({"faults": made} | options))

    def claimed(self, name: str = ZARR) -> set:
        """Return the tiles that are recorded as finished: by the journal, or by the output's name."""
        output = self.folder / name
        if output.exists() and not Journal(partial_of(output)).exists:
            return set(range(TILES))
        return {r.shard[1:] for r in Journal(partial_of(self.folder / name)).records() if r.shard[0] == 0}

    def killed(self, job: Job) -> Ran:
        ran = done(job)
        assert ran.killed, (ran.code, ran.error, ran.stages)
        return ran

    def ends_equal(
        self,
        before: Ran | None = None,
        name: str = ZARR,
        redone: int = 0,
        old: dict[str, bytes] | None = None,
        **options,
    ) -> Ran:
        """Resume the export, and check its content and which tiles were computed.

        Parameters
        ----------
        before : Ran
            The run that ended early.
        redone : int
            Damaged tiles, which are computed again.
        old : dict, optional
            Content of the old output.
        """
        claimed = self.claimed(name) if before is not None else set()
        expected, _ = self.bench.undisturbed(name)
        if (self.folder / name).exists():
            found = {key: file for key, file in contents(self.folder / name).items() if not key.startswith(".cropeq")}
            assert found in (expected, old), "an output with the final name is complete"
        ran = done(self.job(name, **options))
        assert ran.code == 0, ran.error
        found = contents(self.folder / name)
        equal = found == expected
        lost = 0
        if before is not None:
            assert len(ran.computed) == PARTS * (TILES - len(claimed) + redone), "recorded tiles are not computed again"
            lost = len(before.computed) - PARTS * len(claimed)
            assert lost <= PARTS * IN_FLIGHT, "at most the tiles in flight were lost"
        self._record("store", {"equal": equal, "killed": before is not None and before.killed, "parts_lost": lost})
        assert sorted(found) == sorted(expected)
        assert equal, [key for key in expected if found[key] != expected[key]]
        assert os.listdir(self.folder) == [name], "no other file is left"
        return ran


def often(*numbers: int, all_of: range) -> Iterator:
    """Yield ``numbers``, and the rest of a range as cases for the soak."""
    for number in all_of:
        yield number, () if number in numbers else soak


# -- SIGKILL -------------------------------------------------------------------------------------------


MOMENTS = [(ZARR, n, marks) for n, marks in often(0, 1, 2, all_of=range(20))] + [(TIFF, n, soak) for n in range(10)]


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param(name, n, id=f"{name[8:]}-moment-{n}", marks=marks) for name, n, marks in MOMENTS]
)
def test_killed_at_a_random_moment(case, name, seed):
    _, undisturbed = case.bench.undisturbed(name)
    moment = random.Random(seed).uniform(0, undisturbed.seconds)
    while not (ran := killed_after(moment, case.job(name))).killed:
        remove(case.folder / name)  # it had ended by then
        moment *= 0.8
    case.ends_equal(ran, name)


def killed_after(seconds: float, job: Job) -> Ran:
    """Kill a job some time after it has started to compute."""
    running = Running(job)
    running.wait_for(1)
    time.sleep(seconds)
    running.signal(signal.SIGKILL)
    return running.end()


@soak
@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(case, seed):
    chance = random.Random(seed)
    for _ in range(8):
        killed_after(chance.uniform(0, 0.3), case.job())
    case.ends_equal()


# The steps of a run, and at which of their calls the process is killed: the first, some in the middle, the last.
TIMES = {
    **dict.fromkeys(faults.CREATE, (1,)),
    "array": (1, 2, 3),
    **dict.fromkeys(faults.SHARD, (1, 2, 7, SHARDS)),
    "compress": (1, 9),
    "rename": (1, 8, 14, 21),  # the first ones are those of metadata
    "level": (1, 3, 6),
    **dict.fromkeys(faults.END, (1,)),
    "metadata-file": (1, 4),
    "metadata-sync": (1, 4),
}
QUICK = {
    ("header", "before", 1),
    ("new-file", "after", 7),
    ("rename", "before", 21),
    ("shard-write", "after", 2),
    ("claim", "after", SHARDS),
    ("level", "before", 3),
    ("marker", "after", 1),
    ("name", "after", 1),
    ("tiff-write", "after", 1),
    ("tiff-name", "after", 1),
    ("discard", "after", 1),
}


def steps(names, times) -> list:
    kills = [(s, when, n) for s in names for n in times[s] for when in ("before", "after")]
    return [
        pytest.param(KillAt(*kill), id="{1}-{0}-{2}".format(*kill), marks=() if kill in QUICK else soak)
        for kill in kills
    ]


@pytest.mark.parametrize("kill", steps(faults.CREATE | faults.SHARD | faults.END, TIMES))
def test_killed_at_a_step(case, kill):
    case.ends_equal(case.killed(case.job(ZARR, kill)))


@pytest.mark.parametrize("kill", steps(faults.END_TIFF, dict.fromkeys(faults.END_TIFF, (1,))))
def test_killed_at_a_step_of_a_tiff(case, kill):
    case.ends_equal(case.killed(case.job(TIFF, kill)), TIFF)


# File operations, independent of the structure of the code: evenly over the run, and each one near its end.
OPERATIONS = [(ZARR, n / 20) for n in range(20)] + [(ZARR, -n) for n in range(1, 36)]
OPERATIONS += [(TIFF, n / 4) for n in range(4)] + [(TIFF, -n) for n in range(1, 100, 6)]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        pytest.param(
            name,
            where,
            id=f"{name[8:]}-{where:.0%}" if where >= 0 else f"{name[8:]}{where}",
            marks=() if (name, where) in {(ZARR, -4), (TIFF, -37)} else soak,
        )
        for name, where in OPERATIONS
    ],
)
def test_killed_before_an_operation(case, name, where):
    _, undisturbed = case.bench.undisturbed(name)
    total = len(undisturbed.traced)
    number = 1 + (int(where * total) if where >= 0 else max(0, total + where))
    case.ends_equal(case.killed(case.job(name, KillBeforeOperation(number))), name)


TORN = [
    *(pytest.param(TearLine(n), id=f"line-{n}", marks=m) for n, m in often(5, all_of=range(1, SHARDS + 1, 2))),
    *(pytest.param(TearShard(n), id=f"shard-{n}", marks=m) for n, m in often(3, all_of=range(1, SHARDS + 1, 2))),
]


@pytest.mark.parametrize("tear", TORN)
def test_killed_in_the_middle_of_writing(case, tear):
    case.ends_equal(case.killed(case.job(ZARR, tear)))


@pytest.mark.parametrize("name", [pytest.param(ZARR, id="zarr"), pytest.param(TIFF, id="tiff", marks=soak)])
@pytest.mark.parametrize(
    "where", [pytest.param(n, id=f"{-n}-before-the-end", marks=m) for n, m in often(-6, all_of=range(-24, 0, 2))]
)
def test_killed_while_it_replaces_an_old_output(case, name, where):
    """The old output or the new one is complete; overwrite, then resume, ends with the new one."""
    old = case.folder / name
    done(replace(case.job(name), source=case.bench.other_source))
    before = contents(old)
    _, undisturbed = case.bench.undisturbed(name)
    kill = KillBeforeOperation(len(undisturbed.traced) + where)
    killed = case.killed(case.job(name, kill, existing="overwrite"))
    places = [*case.folder.iterdir(), old_of(partial_of(old))]
    held = [contents(path) for path in places if path.exists() and ".lock-" not in path.name]
    new, _ = case.bench.undisturbed(name)
    held = [{key: file for key, file in one.items() if not key.startswith(".cropeq")} for one in held]
    assert any(one in (before, new) for one in held), "one of the two is complete"
    case.ends_equal(killed, name, old=before)


def test_killed_while_the_disk_is_slow(case):
    """Computing waits for writing."""
    case.ends_equal(case.killed(case.job(ZARR, SlowDisk(), KillAt("claim", "after", 3))))


# -- damage, disk, source ------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [pytest.param(0, id="inner", marks=soak), pytest.param(-1, id="border")])
@pytest.mark.parametrize("level", [0, pytest.param(1, marks=soak)], ids="level-{}".format)
@pytest.mark.parametrize("kind", ["truncated", "flipped"])
def test_a_damaged_shard_is_computed_again(case, kind, level, which):
    killed = case.killed(case.job(ZARR, KillAt("claim", "after", SHARDS - 1)))
    shards = [p for p in (partial_of(case.folder / ZARR) / str(level) / "c").rglob("*") if p.is_file()]
    shard = sorted(shards)[which]
    content = bytearray(shard.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 3] ^= 16
    shard.write_bytes(content)
    case.ends_equal(killed, redone=level == 0)


@pytest.fixture
def disk(case) -> Iterator:
    """Mount a small disk at the folder of the case, and yield a function that changes its size."""

    def mount(options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(case.folder)]
        return shutil.which("mount") is not None and subprocess.run(words, capture_output=True).returncode == 0

    if not mount("size=64k"):
        pytest.skip("mounting a disk needs root")
    try:
        yield lambda size: mount(f"remount,size={size}k")
    finally:
        subprocess.run(["umount", "--lazy", str(case.folder)], check=True)


FULL = r"AccessError: The disk is full, so out\.partial\.ome\.zarr cannot be written\. "
FULL += r"Make space and resume; finished tiles are kept\."


SIZES = [(ZARR, n, m) for n, m in often(64, 160, all_of=range(16, 240, 24))]
SIZES += [(TIFF, n, m) for n, m in often(400, all_of=range(240, 520, 40))]


@pytest.mark.parametrize(
    ("name", "size"), [pytest.param(name, n, id=f"{name[8:]}-{n}k", marks=m) for name, n, m in SIZES]
)
def test_a_full_disk(case, disk, name, size):
    disk(size)
    ran = done(case.job(name))
    assert ran.code == 1
    assert re.fullmatch(FULL, ran.error), ran.error
    again = done(case.job(name))
    assert again.code == 1 and re.fullmatch(FULL, again.error), "and again, without more space"
    disk(65536)
    case.ends_equal(again, name)


@pytest.mark.parametrize(
    "size", [pytest.param(n, id=f"{n}-bytes", marks=m) for n, m in often(20_000, all_of=range(2000, 21_000, 3000))]
)
def test_a_quota(case, size):
    """No file may be larger than a limit; the operating system raises the error."""
    ran = done(case.job(ZARR, FileLimit(size)))
    assert ran.code == 1 and re.fullmatch(FULL, ran.error), ran.error
    case.ends_equal(ran)


@pytest.fixture
def whole_source(bench) -> Iterator[None]:
    """Repair the source after the test."""
    yield
    for path in bench.source.rglob("*.whole"):
        repair_chunk(Path(str(path).removesuffix(".whole")))


CHUNKS = [
    pytest.param("0/c/0/0/1/0", r"c 0, z 0 to 24, y 0 to 24, x 0 to 24 \(voxels", id="channel-0"),
    pytest.param("0/c/1/1/1/0", r"c 1, z 0 to 24, y 0 to 24, x 0 to 24 \(voxels", id="channel-1", marks=soak),
]


@pytest.mark.usefixtures("whole_source")
@pytest.mark.parametrize(("chunk", "where"), CHUNKS)
def test_a_chunk_that_cannot_be_read(case, chunk, where):
    """It is read three times and reported, and all other tiles are computed; once it is repaired, so are the rest."""
    ran = done(case.job(ZARR, BreakSource(chunk)))
    boxes = TILES // 2  # all of its channel: they need 23 slices around them
    assert ran.code == 1 and "Too many levels of symbolic links" in ran.error
    assert re.match(f"AccessError: {boxes} boxes could not be computed, the first at {where}", ran.error)
    assert ran.error.endswith("All others are kept. Repair the source, then resume.")
    assert len(case.claimed()) == TILES - boxes, "the other tiles were computed"
    assert len(ran.unread) >= 3 * boxes, "each was tried again"
    repair_chunk(case.bench.source / chunk)
    again = done(case.job(ZARR, close_at=0))
    assert again.started == TILES - boxes
    case.ends_equal()


@pytest.mark.usefixtures("whole_source")
def test_a_chunk_that_can_be_read_on_a_retry(case):
    job = case.job(ZARR, BreakSource("0/c/0/0/1/0", times=2))
    ran = done(job)
    assert ran.code == 0
    assert len(ran.unread) in (2, 3), "prefetching may read it at the same moment"
    assert case.ends_equal().computed == [], "it was complete"


# -- other faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending", [pytest.param(signal.SIGCONT, id="continues"), pytest.param(signal.SIGKILL, id="dies")]
)
@pytest.mark.parametrize("existing", ["resume", pytest.param("overwrite", marks=soak)])
def test_two_processes_on_one_store(case, existing, ending):
    running = Running(case.job())
    running.wait_for(4)
    running.signal(signal.SIGSTOP)
    second = done(case.job(existing=existing))
    assert (second.code, second.computed) == (1, [])
    assert second.error == (
        "InUseError: Another process is writing to out.partial.ome.zarr. Wait until it has ended, or choose another "
        "output."
    )
    running.signal(ending)
    first = running.end()
    assert first.code == (0 if ending == signal.SIGCONT else -signal.SIGKILL)
    case.ends_equal(first)


PARTS_OF_AN_ARRAY = 4
ARRAYS = [(seed, damage, m) for damage in (False, True) for seed, m in often(0, all_of=range(12))]


@pytest.mark.parametrize(
    ("seed", "damage"),
    [pytest.param(seed, damage, id=f"{'damaged' * damage}{seed}", marks=m) for seed, damage, m in ARRAYS],
)
def test_a_job_array_is_killed_again_and_again(case, seed, damage, record_property):
    """Its processes are started again until all have ended, and shards may be damaged meanwhile."""
    chance, rounds = random.Random(seed), 1 if seed == 0 else 5
    waiting = {n: case.job(part=(n, PARTS_OF_AN_ARRAY)) for n in range(PARTS_OF_AN_ARRAY)}
    while waiting:
        running = {n: Running(job) for n, job in waiting.items()}
        victims = chance.sample(list(running), chance.randint(1, len(running))) if rounds else []
        running[chance.choice(list(running))].wait_for(chance.randint(0, 3))
        for number in victims:
            time.sleep(chance.uniform(0, 0.15))
            running[number].signal(signal.SIGKILL)
        ended = {n: one.end() for n, one in running.items()}
        assert all(ran.code == 0 or (n in victims and ran.killed) for n, ran in ended.items()), ended
        record_property("kills", sum(ran.killed for ran in ended.values()))
        waiting = {n: job for n, job in waiting.items() if ended[n].code}
        rounds = max(0, rounds - 1)
        shards = sorted(p for p in partial_of(case.folder / ZARR).glob("?/c/**/*") if p.is_file())
        if damage and waiting and shards:
            shard = chance.choice(shards)
            os.truncate(shard, shard.stat().st_size // 2)
    assert (case.folder / ZARR).exists(), "the last process has completed the output"
    assert case.ends_equal().computed == []


CHANGES = [
    pytest.param(lambda job, bench: replace(job, model=bench.other_model), "differs in model (", id="weights"),
    pytest.param(
        lambda job, bench: replace(job, source=bench.other_source), "differs in source: voxels (", id="source"
    ),
    pytest.param(
        lambda job, bench: replace(job, tile=16),
        "differs in tile grid: shard ([24, 24, 24], now [16, 16, 16]); in tile grid: chunk",
        id="tile-grid",
    ),
    pytest.param(
        lambda job, bench: replace(job, options={"dtype": "float32"}),
        "differs in type (uint16, now float32)",
        id="type",
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_changed_between(case, change, words):
    killed = case.killed(case.job(ZARR, KillAt("claim", "after", 5)))
    before = contents(partial_of(case.folder / ZARR))
    other = done(change(case.job(), case.bench))
    assert (other.code, other.computed) == (1, [])
    assert other.error.startswith(f"MismatchError: out.partial.ome.zarr was started with other settings: it {words}")
    assert other.error.endswith('Resume it with the same settings, or start again with existing="overwrite".')
    assert contents(partial_of(case.folder / ZARR)) == before
    case.ends_equal(killed)


@pytest.mark.parametrize("seed", [pytest.param(n, id=f"jumps-{n}", marks=m) for n, m in often(0, all_of=range(4))])
@pytest.mark.parametrize("name", [pytest.param(ZARR, id="zarr"), pytest.param(TIFF, id="tiff", marks=soak)])
def test_a_clock_that_jumps(case, name, seed):
    """By years, forwards and backwards, within runs and between them; the times of all files are wrong, too."""
    killed = case.killed(case.job(name, ClockJumps(seed), KillAt("claim", "after", 3 + 2 * seed)))
    case.ends_equal(killed, name, faults=(ClockJumps(seed + 1),))


@pytest.mark.parametrize(
    "number", [pytest.param(n, id=f"step-{n}", marks=m) for n, m in often(3, 24, all_of=range(0, TILES * PARTS + 2, 3))]
)
@pytest.mark.parametrize("name", [pytest.param(ZARR, id="zarr"), pytest.param(TIFF, id="tiff", marks=soak)])
def test_cancelled(case, name, number):
    ran = done(case.job(name, close_at=number))
    assert ran.code == 130
    if not case.claimed(name):
        assert os.listdir(case.folder) == [], "without a finished tile, no file is left"
    case.ends_equal(ran, name)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=soak)], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("seed", [pytest.param(n, id=f"moment-{n}", marks=m) for n, m in often(0, all_of=range(4))])
@pytest.mark.parametrize("name", [pytest.param(ZARR, id="zarr"), pytest.param(TIFF, id="tiff", marks=soak)])
def test_interrupted(case, name, seed, number):
    """The real command line, in a process that gets a real signal."""
    job = case.job(name)
    words = ["export", job.source, "-m", job.model, "-o", job.output, "--tile", TILE, "--device", "cpu"]
    running = Running(replace(job, words=tuple(map(str, words))))
    running.wait_for(1)
    _, undisturbed = case.bench.undisturbed(name)
    time.sleep(random.Random(seed).uniform(0, undisturbed.seconds / 2))
    running.signal(number)
    ran = running.end()
    assert ran.code in (0, 130), "interrupted, or done before that"
    case.ends_equal(ran, name)


@pytest.mark.parametrize(
    ("room", "words"),
    [
        pytest.param(2**18, "", id="smaller-calls"),
        pytest.param(0, "OutOfMemoryError: 12 boxes could not be computed, .*memory", id="too-little"),
    ],
)
def test_out_of_memory(tmp_path, record_property, room, words):
    """Calls of the network become smaller, with the same bits; if that does not help, an error is raised.

    The calls of a shallow network, with a narrow margin, are too small to be halved.
    """
    (tmp_path / "bench").mkdir()
    case = Case(Bench(tmp_path / "bench", blocks=7), tmp_path / "case", record_property)
    ran = done(case.job(ZARR, ScarceMemory(room)))
    assert ran.refused, "a call needed too much memory"
    assert ran.code == (1 if words else 0) and re.match(words, ran.error), ran.error
    assert not words or ("All others are kept." in ran.error and ran.error.endswith(", then resume."))
    case.ends_equal()


# -- the window ----------------------------------------------------------------------------------------


@pytest.fixture
def small_tiles(monkeypatch):
    """Use many small shards and three levels for runs in the window."""
    monkeypatch.setattr(pyramid, "SMALLEST", faults.SMALLEST)
    monkeypatch.setattr(store, "BULK", (TILE,) * 3)


ENDINGS = [
    pytest.param(lambda viewer, dock: dock.buttons["stop"].native.click(), id="stop"),
    pytest.param(lambda viewer, dock: viewer.window.remove_dock_widget("all"), id="dock-closed", marks=soak),
    pytest.param(lambda viewer, dock: viewer.layers.clear(), id="layers-removed", marks=soak),
    pytest.param(lambda viewer, dock: viewer.close(), id="window-closed"),
]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "tiles", [pytest.param(n, id=f"{n}-tiles", marks=m) for n, m in often(5, all_of=range(1, 14, 4))]
)
def test_ended_in_the_window(viewer, qtbot, tmp_path, ending, tiles, record_property):
    """A real window; its unfinished output is resumed, and equals one that was never in a window."""
    viewer.add_image(cells((20, 40, 72)), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=16, blocks=7), "a model")
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / ZARR
    volume.destination.value = output
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: getattr(volume.result.worker.whole, "disk", None) is not None, timeout=TIMEOUT)
    started, result = volume.result.worker.whole.disk, volume.result.result
    qtbot.waitUntil(lambda: len(started) >= tiles, timeout=TIMEOUT)
    ending(viewer, volume)
    qtbot.waitUntil(lambda: not volume.result.busy or not work_threads(), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: not started.folder._locked, timeout=TIMEOUT)
    first, *_ = export(result, output, existing="resume")
    list(export(result, tmp_path / ZARR))
    equal = contents(output) == contents(tmp_path / ZARR)
    record_property("store", {"equal": equal, "killed": False, "parts_lost": 0})
    assert equal and (first.started >= tiles or first.stage == "saving"), "it may have been complete by then"
    assert os.listdir(tmp_path / "out") == [ZARR]
