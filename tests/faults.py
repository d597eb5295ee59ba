"""Exports in separate processes, and the faults to inject there.

Processes are forked from one that has imported everything, so that hundreds of them take little time. Each writes what
it computed and how it ended to a report, line by line, so that the report of a killed process is complete.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import zarr

from processes import forking

TILE = 24
PART = (24, 24, 12)  # a tile is computed in two parts, as a large one is
SMALLEST = 20
SHAPE = (2, 20, 40, 24)  # c, z, y, x of the source; 2 x 50 x 40 x 24 of the result
TILES, SHARDS = 2 * 3 * 2 * 1, 2 * (6 + 2 + 1)
IN_FLIGHT = 3  # tiles: one is computed, one is written, one waits
DAY = 86_400.0
LIMIT = 120  # seconds after which a process counts as hanging

# Steps before and after which a process is killed: the name of a step, and its function.
CREATE = {
    "group": "napari_cropeq.store.metadata:zarr.open_group",
    "array": "napari_cropeq.store.metadata:create_array",
    "metadata": "napari_cropeq.store.metadata:write_metadata",
    "metadata-file": "napari_cropeq.store.metadata:write_whole",
    "metadata-sync": "napari_cropeq.store.metadata:sync_folder",
    "model": "napari_cropeq.store.disk:write_whole",
    "header": "napari_cropeq.store.journal:Journal.write_header",
    "header-sync": "napari_cropeq.store.journal:sync_file",
    "header-folder-sync": "napari_cropeq.store.journal:sync_folder",
}
SHARD = {
    "encode": "napari_cropeq.store.shards:Shards._encoded",
    "compress": "napari_cropeq.formats.ome_zarr.write:BloscCodec._encode_sync",
    "new-file": "pathlib:Path.write_bytes",
    "rename": "os:replace",
    "shard-write": "napari_cropeq.store.shards:Shards.write",
    "shard-sync": "napari_cropeq.store.shards:sync_file",
    "shard-folder-sync": "napari_cropeq.store.shards:sync_folder",
    "digest": "napari_cropeq.store.shards:digest_of",
    "claim": "napari_cropeq.store.journal:Journal.add",
    "level": "napari_cropeq.store.levels:Levels._build",
}
END = {
    "levels": "napari_cropeq.store.disk:DiskStore.complete_levels",
    "folders-sync": "napari_cropeq.store.folder:sync_folders",
    "marker": "napari_cropeq.store.journal:Journal.finish",
    "finish": "napari_cropeq.store.disk:DiskStore.finish",
    "name": "napari_cropeq.store.folder:replace_folder",
    "name-sync": "napari_cropeq.formats.paths:sync_folder",
    "sweep": "napari_cropeq.store.folder:remove",
    "unlock": "napari_cropeq.store.lock:StoreLock.remove",
}
END_TIFF = {
    "levels": "napari_cropeq.store.disk:DiskStore.complete_levels",
    "marker": "napari_cropeq.store.journal:Journal.finish",
    "tiff": "napari_cropeq.run.export:write_ome_tiff",
    "tiff-write": "tifffile:TiffWriter.write",
    "tiff-name": "napari_cropeq.run.export:replace_folder",
    "tiff-sweep": "napari_cropeq.run.export:remove",
    "forget": "napari_cropeq.store.journal:Journal.forget",
    "discard": "napari_cropeq.store.disk:DiskStore.discard",
}
STEPS = CREATE | SHARD | END | END_TIFF


@dataclass(frozen=True)
class Job:
    """An export, and the faults that are set up before it starts."""

    output: Path
    source: Path
    model: Path
    existing: str = "resume"
    options: dict[str, Any] = field(default_factory=dict)  # of the result
    tile: int = TILE
    faults: tuple[Callable[[Job], None], ...] = ()
    close_at: int | None = None  # number of the progress after which the run is cancelled
    error: bool = False  # whether the expected errors are exported as well
    words: tuple[str, ...] = ()  # arguments of the command line, which runs instead of the engine
    part: tuple[int, int] = (0, 1)  # number of this process among those that share the work, and their count

    @property
    def report(self) -> Path:
        """The file to which the process writes what it did."""
        number, count = self.part
        return self.output.parent.with_name(f"{self.output.parent.name}{f'-{number}' * (count > 1)}.report")

    def report_line(self, **what: Any) -> None:
        """Append a line to the report at once, so that it is kept if the process is killed."""
        handle = os.open(self.report, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps(what) + "\n").encode())
        os.close(handle)


@dataclass(frozen=True)
class Ran:
    """How a process ended."""

    code: int
    lines: list[dict[str, Any]]

    def _all(self, key: str) -> list[Any]:
        return [line[key] for line in self.lines if key in line]

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return self.code == -signal.SIGKILL

    @property
    def computed(self) -> list[Any]:
        """Channel and first voxel of every part that was computed."""
        return self._all("computed")

    @property
    def unread(self) -> list[Any]:
        """Chunks of the source that could not be read, once per attempt."""
        return self._all("unread")

    @property
    def refused(self) -> list[Any]:
        """Calls of the network for which there was not enough memory."""
        return self._all("refused")

    @property
    def error(self) -> str:
        """The error message."""
        return "; ".join(self._all("error"))

    @property
    def traced(self) -> list[Any]:
        """The operations on the files of the output."""
        return self._all("operation")

    @property
    def seconds(self) -> float:
        """From its first line to its last."""
        return float(self._all("ended")[0])

    @property
    def started(self) -> int:
        """Tiles that were finished at the start."""
        return int(self._all("started")[0])

    @property
    def stages(self) -> list[str]:
        """The stages it went through."""
        return list(dict.fromkeys(self._all("stage")))


# -- in the process ------------------------------------------------------------------------------------


def run(job: Job) -> None:
    """Run a job, with small tiles and three levels."""
    import torch

    from napari_cropeq.compute.super_resolution import SuperResolution
    from napari_cropeq.compute.tile_shapes import TileShapes
    from napari_cropeq.formats import pyramid

    torch.set_num_threads(1)
    pyramid.SMALLEST = SMALLEST
    TileShapes.bulk = property(lambda _: PART)
    compute = SuperResolution.compute

    def reported(self, leading, box, *rest):
        job.report_line(computed=[*leading, *box.start])
        return compute(self, leading, box, *rest)

    SuperResolution.compute = reported
    start = time.monotonic()
    job.report_line(pid=os.getpid())
    for fault in job.faults:
        fault(job)
    try:
        code = command_line(job) if job.words else engine(job)
    except (OSError, ValueError, MemoryError) as error:
        job.report_line(error=f"{type(error).__name__}: {error}")
        code = 1
    job.report_line(ended=time.monotonic() - start)
    sys.exit(code)


def result_of(job: Job) -> Any:
    """Open source and model."""
    from napari_cropeq.compute.super_resolution import SuperResolution
    from napari_cropeq.core.model import Model
    from napari_cropeq.formats.open import open_image

    return SuperResolution(open_image(job.source), Model.load(job.model), device="cpu", **job.options)


def engine(job: Job) -> int:
    """Run the export's engine."""
    from napari_cropeq.run.export import export

    steps = export(result_of(job), job.output, job.tile, job.existing, part_of=job.part, error=job.error)
    for number, step in enumerate(steps):
        if number == 0:
            job.report_line(started=step.started)
        job.report_line(stage=step.stage)
        if number == job.close_at:
            steps.close()
            return 130
    return 0


def command_line(job: Job) -> int:
    """Run ``cropeq``."""
    from napari_cropeq.cli.main import main

    with open(f"{job.report}.said", "a", encoding="utf-8") as said:
        sys.stdout = sys.stderr = said
        return main(list(job.words))


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(LIMIT)


@dataclass(frozen=True)
class KillAt:
    """Kill the process before or after the n-th call of a step."""

    step: str
    when: str
    number: int = 1

    def __call__(self, job: Job) -> None:
        module, _, path = STEPS[self.step].partition(":")
        *classes, name = path.split(".")
        owner = resolve_name(":".join([module, *[".".join(classes)] * bool(classes)]))
        function, calls = getattr(owner, name), itertools.count(1)

        def killing(*arguments, **options):
            last = next(calls) == self.number
            if last and self.when == "before":
                die()
            returned = function(*arguments, **options)
            if last:
                die()
            return returned

        setattr(owner, name, killing)


class Operations:
    """Counts operations on files of the output: open for writing, rename, create, remove, sync."""

    EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")

    def __init__(self, job: Job, act: Callable[[int, str], None]) -> None:
        self._folder, self._act = str(job.output.parent), act
        self._calls, self._fsync, self._here = itertools.count(1), os.fsync, threading.local()
        os.fsync = self._synced
        sys.addaudithook(self._heard)

    def _synced(self, handle: int) -> None:
        self._count("fsync")
        self._fsync(handle)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in self.EVENTS:
            return
        path = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
        # Paths removed with their folder are relative to it.
        if path.startswith(self._folder + os.sep) or (event != "open" and not os.path.isabs(path)):
            self._count(f"{event} {os.path.basename(path)}")

    def _count(self, what: str) -> None:
        if getattr(self._here, "busy", False):
            return
        self._here.busy = True
        self._act(next(self._calls), what)
        self._here.busy = False


@dataclass(frozen=True)
class KillBeforeOperation:
    """Kill the process before its n-th operation on the files of the output."""

    number: int

    def __call__(self, job: Job) -> None:
        Operations(job, lambda number, _: die() if number == self.number else None)


@dataclass(frozen=True)
class Trace:
    """Report all operations on the files of the output."""

    def __call__(self, job: Job) -> None:
        Operations(job, lambda _, what: job.report_line(operation=what))


@dataclass(frozen=True)
class TearLine:
    """Kill the process when half of a line of the journal is written."""

    number: int

    def __call__(self, job: Job) -> None:
        from napari_cropeq.store.journal import Record

        line, calls = Record.line, itertools.count(1)

        def torn(record: Record) -> str:
            text = line(record)
            if next(calls) == self.number:
                (journal,) = job.output.parent.glob("*.partial.ome.zarr/.cropeq/journal-*")
                with open(journal, "a", encoding="utf-8") as file:
                    file.write(text[: len(text) // 2])
                die()
            return text

        Record.line = torn


@dataclass(frozen=True)
class TearShard:
    """Kill the process when half of a shard is in its temporary file."""

    number: int

    def __call__(self, job: Job) -> None:
        calls = itertools.count(1)

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.rename" and "/c/" in str(arguments[0]) and next(calls) == self.number:
                os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
                die()

        sys.addaudithook(heard)


@dataclass(frozen=True)
class SlowDisk:
    """Make writing a shard slower than computing several."""

    def __call__(self, job: Job) -> None:
        from napari_cropeq.store.shards import Shards

        write = Shards.write

        def slow(self, *arguments):
            time.sleep(0.2)
            return write(self, *arguments)

        Shards.write = slow


@dataclass(frozen=True)
class ClockJumps:
    """Make the system clock jump forwards and backwards by up to 1000 days, and the times of files with it."""

    seed: int

    def __call__(self, job: Job) -> None:
        chance, clock = random.Random(self.seed), time.time

        def now() -> float:
            return clock() + chance.uniform(-1000, 1000) * DAY

        time.time, time.time_ns = now, lambda: int(now() * 1e9)
        for path in job.output.parent.rglob("*"):
            os.utime(path, (now(), now()))


@dataclass(frozen=True)
class FileLimit:
    """Limit the size of files, as a quota does."""

    size: int

    def __call__(self, job: Job) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class BreakSource:
    """Make a chunk of the source unreadable once work has started: a link to itself, which no system can open."""

    chunk: str  # of the source's first level
    times: int | None = None  # reads after which it is repaired; never by default

    def __call__(self, job: Job) -> None:
        from napari_cropeq.compute import fill
        from napari_cropeq.formats import chunk_cache

        chunk_cache.ChunkCache.__init__.__defaults__ = 1, 1  # cache almost nothing
        fill.RETRIES = (0.01, 0.02)
        path, reads = job.source / self.chunk, itertools.count(1)
        plain = chunk_cache.ChunkCache._read
        when_work_starts(lambda: break_chunk(path))

        def read(self_, numbers):
            try:
                return plain(self_, numbers)
            except OSError:
                job.report_line(unread=str(numbers))
                if next(reads) == self.times:
                    repair_chunk(path)
                raise

        chunk_cache.ChunkCache._read = read


def when_work_starts(act: Callable[[], None]) -> None:
    """Call a function once source and model are open and the first tile is requested."""
    from napari_cropeq.compute.scheduler import Scheduler

    run = Scheduler.run

    def acted(self, *arguments, **options):
        act()
        return run(self, *arguments, **options)

    Scheduler.run = acted


def break_chunk(path: Path) -> None:
    """Replace a file by a link to itself."""
    if not path.is_symlink():
        os.replace(path, f"{path}.whole")
        path.symlink_to(path.name)


def repair_chunk(path: Path) -> None:
    """Put the file back."""
    os.replace(f"{path}.whole", path)


@dataclass(frozen=True)
class ScarceMemory:
    """Limit the memory of a call of the network; torch itself raises the error."""

    room: int  # bytes

    def __call__(self, job: Job) -> None:
        import torch

        from napari_cropeq.core.network import ValidNetwork

        predict = ValidNetwork.predict

        def scarce(self_, batch):
            if batch.numel() * 8 > self.room:
                job.report_line(refused=batch.numel() * 8)
                torch.empty(2**55)
            return predict(self_, batch)

        when_work_starts(lambda: setattr(ValidNetwork, "predict", scarce))


# -- outside -------------------------------------------------------------------------------------------


class Running:
    """A job that runs in its own process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.report.unlink(missing_ok=True)
        self._process = forking().Process(target=run, args=(job,), daemon=True)
        self._process.start()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The report so far."""
        text = self.job.report.read_text() if self.job.report.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def wait_for(self, number: int) -> Running:
        """Wait until it has computed some parts, or has ended."""
        deadline = time.monotonic() + LIMIT
        while self._process.is_alive() and len(Ran(0, self.lines).computed) < number:
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.002)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def end(self) -> Ran:
        """Wait for its end."""
        self._process.join(LIMIT)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"hangs: {self.lines[-3:]}")
        return Ran(self._process.exitcode, self.lines)


def done(job: Job) -> Ran:
    """Run a job to its end."""
    return Running(job).end()


def contents(path: Path) -> dict[str, bytes]:
    """Return the files of an output by their names."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def write_source(path: Path, seed: int = 0) -> Path:
    """Write an OME-Zarr of two channels."""
    from napari_cropeq.formats.metadata import ImageInfo
    from napari_cropeq.formats.ome_zarr.write import Level, write_metadata

    rng = np.random.default_rng(seed)
    voxels = (rng.integers(0, 3000, SHAPE) + np.linspace(0, 900, SHAPE[-1])).astype(np.uint16)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", data=voxels, chunks=(1, 10, 20, 24))
    write_metadata(path, ImageInfo("czyx", (2.5, 1.0, 1.0), "micrometer", name="stack"), [Level("0")])
    return path
