"""Work shared by processes, as workers of a cluster or a job array: the same bits, also after one is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from conftest import a_result, textured_volume
from files import SIZE, a_model, a_stack, everything, lacking
from napari_cropeq.cli.main import main
from napari_cropeq.compute.fill import groups
from napari_cropeq.compute.fingerprint import store_spec
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_shapes import TileShapes
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.errors import AccessError, ArgumentError, ClusterError, MismatchError, StoppedError
from napari_cropeq.formats import pyramid
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import partial_of
from napari_cropeq.run.batch import BatchSettings
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.distributed.worker import Work, compute
from napari_cropeq.run.export import export
from napari_cropeq.run.train_to_file import OwnTraining
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.lock import WriteToken
from processes import cropeq

distributed = pytest.importorskip("distributed")
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

SHAPE = (10, 160, 72)  # ten groups of tiles
TILE = 16
WAIT = 90


@pytest.fixture(autouse=True)
def small_groups_and_three_levels(monkeypatch):
    monkeypatch.setattr(TileShapes, "bulk", property(lambda shapes: shapes.oriented(128, 256, 16)))
    monkeypatch.setattr(pyramid, "SMALLEST", 20)


@pytest.fixture(scope="module")
def cluster():
    """Two processes with a thread each."""
    with Cluster(workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return a_stack(tmp_path_factory.mktemp("stack") / "a.ome.tif", textured_volume(SHAPE))


@pytest.fixture(scope="module")
def expected(stack, tmp_path_factory):
    """The bytes of an undisturbed run in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "SMALLEST", 20)
        return undisturbed(result_of(stack), tmp_path_factory.mktemp("expected"))


def result_of(path, planes="x", **options) -> SuperResolution:
    return SuperResolution(open_image(path), a_model(filters=16, blocks=7), planes=planes, device="cpu", **options)


def run(result, path, **options) -> None:
    for _ in export(result, path, TILE, **options):
        pass


def contents(folder) -> dict[str, bytes]:
    files = (f for f in folder.rglob("*") if f.is_file() and ".cropeq" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def shards(path) -> dict[Path, int]:
    """Return the finest shards of an unfinished store, and when they were written."""
    folder = partial_of(path)
    found = (file for file in folder.glob("0/c/**/*") if file.is_file() and file.name.isdigit())
    return {file.relative_to(folder): file.stat().st_mtime_ns for file in found}


def undisturbed(result, folder) -> dict[str, bytes]:
    run(result, folder / "undisturbed.ome.zarr")
    return contents(folder / "undisturbed.ome.zarr")


def until_started(steps, tiles: int = 1) -> None:
    """Advance until some tiles are done, but not all."""
    for progress in steps:
        if progress.done - progress.started >= tiles:
            assert progress.done < progress.total
            return
    raise AssertionError("the export ended early")


# -- the same bits -----------------------------------------------------------------------------------


VARIANTS = [
    pytest.param((), {}, id="one-channel"),
    pytest.param((2,), {"dtype": "float32"}, id="two-channels-float32"),
    pytest.param((), {"planes": "both"}, id="both-planes"),
]


@pytest.mark.parametrize(("leading", "options"), VARIANTS)
def test_workers_give_the_same_bytes(cluster, tmp_path, leading, options):
    data = np.stack([textured_volume((8, 80, 40), seed) for seed in range(int(np.prod(leading)))]).reshape(
        *leading, 8, 80, 40
    )
    path = a_stack(tmp_path / "a.ome.tif", data, axes="CZYX"[1 - len(leading) :])
    result = result_of(path, **options)
    expected = undisturbed(result, tmp_path)
    run(result, tmp_path / "out.ome.zarr", cluster=cluster)
    assert contents(tmp_path / "out.ome.zarr") == expected
    assert any(name.startswith("1/") for name in expected), "coarser levels"
    assert sorted(os.listdir(tmp_path)) == ["a.ome.tif", "out.ome.zarr", "undisturbed.ome.zarr"]


def test_planes_that_the_source_lacks(cluster, tmp_path):
    """Each worker reads them as the value that was given to this process."""
    path = lacking(tmp_path / "a.ome.tif", textured_volume((6, 80, 40)), "ZYX", {"Z": 8})
    result = SuperResolution(open_image(path, 700), a_model(filters=16, blocks=7), device="cpu")
    expected = undisturbed(result, tmp_path)
    run(result, tmp_path / "out.ome.zarr", cluster=cluster)
    assert contents(tmp_path / "out.ome.zarr") == expected


def test_an_ome_tiff(cluster, tmp_path):
    result = result_of(a_stack(tmp_path / "a.ome.tif"))
    for name, options in (("one.ome.tif", {}), ("out.ome.tif", {"cluster": cluster})):
        run(result, tmp_path / name, **options)
    assert np.array_equal(stored(tmp_path / "out.ome.tif"), stored(tmp_path / "one.ome.tif"))
    assert everything(tmp_path) == ["a.ome.tif", "one.ome.tif", "out.ome.tif"]


def test_a_closed_export_is_resumed(cluster, stack, expected, tmp_path):
    """By workers, by this process, and by workers again."""
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    for options in ({"cluster": cluster}, {}, {"cluster": cluster}):
        with closing(export(result, out, TILE, "resume", **options)) as steps:
            until_started(steps)
        before = shards(out)
        assert before and not list(tmp_path.glob(".*lock-writer-*"))
    run(result, out, existing="resume", cluster=cluster)
    assert contents(out) == expected
    kept = {out / name for name, when in before.items() if (out / name).stat().st_mtime_ns == when}
    assert kept, "finished tiles are not computed again"


# -- killed processes --------------------------------------------------------------------------------


@posix
def test_a_killed_worker_costs_its_tiles_only(cluster, stack, expected, tmp_path):
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    pids = cluster.client.run(os.getpid)
    with closing(export(result, out, TILE, cluster=cluster)) as steps:
        until_started(steps)
        claimed = [json.loads(line) for line in readable(journal_of(out, 0, 1)).splitlines() if line]
        before = {f"0/c/{'/'.join(map(str, index))}" for level, _, index, *_ in claimed if level == 0}
        when = {name: time for name, time in shards(out).items() if str(name) in before}
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        for _ in steps:
            pass
    assert contents(out) == expected
    assert when and all((out / name).stat().st_mtime_ns == time for name, time in when.items())
    cluster.client.wait_for_workers(2, timeout=WAIT)
    assert set(cluster.client.run(os.getpid).values()) != set(pids.values())


@posix
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_workers_are_killed_again_and_again(stack, expected, tmp_path, seed, record_property, monkeypatch):
    """At random moments, one or both; if none is left, or the same tiles have killed several, it is started again."""
    monkeypatch.setattr("napari_cropeq.run.distributed.client.GONE_SECONDS", 10.0)
    result, out, chance, kills = result_of(stack), tmp_path / "out.ome.zarr", random.Random(seed), 0
    ended = False
    while not ended:
        try:
            with Cluster(workers=2) as cluster:
                for progress in export(result, out, TILE, "resume", cluster=cluster):
                    if progress.done < progress.total and kills < 4 and chance.random() < 0.4:
                        nannies = [nanny for nanny in cluster.client.cluster.workers.values() if nanny.pid]
                        for nanny in chance.sample(nannies, chance.randint(0, len(nannies))):
                            os.kill(nanny.pid, signal.SIGKILL)
                            kills += 1
            ended = True
        except ClusterError:  # its workers died over the same tiles, all have ended, or their tasks are lost
            assert kills
    record_property("store", {"equal": contents(out) == expected, "killed": kills, "parts_lost": 0})
    assert contents(out) == expected and kills and everything(tmp_path) == ["out.ome.zarr"]


@contextmanager
def processes(folder: Path, *environments: dict[str, str]):
    """Run a scheduler and workers with these environments as processes; yield its address and its process."""
    options = ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
    running = [started("distributed.cli.dask_scheduler", *options, "--port", "0", "--host", "127.0.0.1")]
    try:
        address = json.loads(wait_for(lambda: readable(folder / "scheduler.json")))["address"]
        for number, environment in enumerate(environments):
            words = ["--nthreads", "1", "--memory-limit", "0", "--no-nanny", "--name", f"w{number}"]
            words += ["--local-directory", str(folder)]
            running.append(started("distributed.cli.dask_worker", address, *words, "--no-dashboard", **environment))
        yield address, running[0]
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.communicate()


def started(module: str, *words: str, **environment: str) -> subprocess.Popen:
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", module, *words], env=os.environ | environment, **silent)


def readable(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_for(what):
    """Return the first true value that a function returns."""
    deadline = time.monotonic() + WAIT
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_store_is_resumed_after_the_scheduler_was_killed(stack, expected, tmp_path):
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    with processes(tmp_path, {}) as (address, scheduler), Cluster(scheduler=address) as cluster:
        with closing(export(result, out, TILE, cluster=cluster)) as steps:
            until_started(steps)
            scheduler.kill()
            with pytest.raises(ClusterError, match=rf"The scheduler at {address} no longer answers"):
                for _ in steps:
                    pass
        started = len(shards(out))
        steps = export(result, out, TILE, "resume")
        assert 0 < next(steps).started <= started
        for _ in steps:
            pass
    assert contents(out) == expected


def test_a_cluster_whose_workers_have_all_ended(stack, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cropeq.run.distributed.client.GONE_SECONDS", 1.0)
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    with processes(tmp_path, {}) as (address, _), Cluster(scheduler=address) as cluster:
        (pid,) = cluster.client.run(os.getpid).values()
        with closing(export(result, out, TILE, cluster=cluster)) as steps:
            until_started(steps)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ClusterError, match=rf"All workers at {address} have ended\. Finished tiles are kept\."):
                for _, progress in zip(range(300), steps, strict=False):
                    assert progress.done < progress.total
    run(result, out, existing="resume")
    assert contents(out) == expected


class Busy:
    """Processes that do not end in time, as on a machine that is busy."""

    def close(self, timeout: float) -> None:
        raise TimeoutError(f"timed out after {timeout} s.")


def test_processes_that_do_not_end_in_time_hide_no_error():
    cluster = Cluster(workers=1)
    cluster._local = cluster._client = Busy()
    with pytest.raises(ClusterError, match="All workers"), cluster:
        raise ClusterError("All workers have ended.", "Resume.")


def test_a_worker_that_would_compute_other_bits_writes_nothing(stack, tmp_path):
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    other = {"ATEN_CPU_CAPABILITY": "default"}
    with processes(tmp_path, other) as (address, _), Cluster(scheduler=address) as cluster:
        words = r"The worker w0 at tcp://.* the same bits: it differs in instruction set \(.*, now .*\)\."
        with pytest.raises(MismatchError, match=words):
            run(result, out, cluster=cluster)
    assert not out.exists() and not partial_of(out).exists()


def test_no_scheduler(stack, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cropeq.run.distributed.client.WAIT_SECONDS", 0.5)
    with (
        Cluster(scheduler="tcp://127.0.0.1:9") as cluster,
        pytest.raises(ClusterError, match="There is no scheduler at tcp://12"),
    ):
        run(result_of(stack), tmp_path / "out.ome.zarr", cluster=cluster)
    assert everything(tmp_path) == []


def test_an_unreadable_chunk_is_reported_and_the_rest_is_computed(cluster, tmp_path):
    """The chunk is damaged after it was first read, in workers that cache almost nothing."""
    path, data = tmp_path / "a.ome.zarr", textured_volume((8, 160, 40))
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(8, 20, 40))[:] = data
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(SIZE)}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "", "axes": axes, "datasets": datasets}]}
    result, out = result_of(path), tmp_path / "out.ome.zarr"
    expected, chunk = undisturbed(result, tmp_path), path / "0" / "c" / "0" / "6" / "0"
    whole = chunk.read_bytes()

    def keep(cap: int) -> None:
        from napari_cropeq.formats.chunk_cache import ChunkCache

        ChunkCache.__init__.__defaults__ = cap, 1

    def is_at(folder: str) -> bool:
        from napari_cropeq.run.distributed import worker as cluster_work

        return cluster_work._kept is not None and cluster_work._kept[0].folder == folder

    caps = cluster.client.run(lambda: __import__("napari_cropeq.formats.chunk_cache").formats.chunk_cache.CAP)
    cluster.client.run(keep, 1)
    try:
        with closing(export(result, out, TILE, cluster=cluster)) as steps:
            until_started(steps)
            wait_for(lambda: all(cluster.client.run(is_at, str(partial_of(out))).values()))
            chunk.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(AccessError, match=r"^\d boxes could not be .* first at z 0 to 32, y .*are kept"):
                for _ in steps:
                    pass
        done = len(shards(out))
        assert done >= 2 * 3 * 6, "the other tiles were computed"
        chunk.write_bytes(whole)
        run(result, out, existing="resume", cluster=cluster)
    finally:
        cluster.client.run(keep, next(iter(caps.values())))
    assert contents(out) == expected


# -- late writers are stopped ------------------------------------------------------------------------


def test_a_late_task_writes_nothing(cluster, stack, tmp_path):
    result, out = result_of(stack), tmp_path / "out.ome.zarr"
    store = DiskStore(out, store_spec(result), TILE)
    try:
        work, (first, second, *_) = Work.of(store, result), groups(store, result.leading_indices, result.shapes.bulk)
        for record in cluster.client.submit(compute, work, first, pure=False).result().records:
            store.take(record)
    finally:
        store.release()
    before = contents(store.folder.partial)
    assert len(store) == len(first.missing)
    with pytest.raises(StoppedError):
        cluster.client.submit(compute, work, second, pure=False).result()
    again = DiskStore(out, store_spec(result), TILE, "resume")
    try:
        Work.of(again, result)
        with pytest.raises(StoppedError):
            cluster.client.submit(compute, work, second, pure=False).result()
    finally:
        again.release()
    assert contents(store.folder.partial) == before and not list(tmp_path.glob(".*lock-writer-*"))


def test_a_worker_that_is_writing_is_waited_for(tmp_path):
    """If the token is revoked while a worker writes, the next run waits for it, and raises if it does not end."""
    store = tmp_path / "a.partial.ome.zarr"
    (store / ".cropeq").mkdir(parents=True)
    token, next_run = WriteToken(store), WriteToken(store)
    worker, inside, continues = WriteToken(store, token.grant()), threading.Event(), threading.Event()

    def write() -> None:
        with worker.writing():
            inside.set()
            continues.wait(WAIT)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(WAIT) and worker.valid
    with pytest.raises(BlockingIOError, match=r"A worker of an earlier run is writing to a.partial.ome.zarr\."):
        next_run.revoke(0.1)
    assert not worker.valid
    continues.set()
    next_run.revoke()
    thread.join()
    with pytest.raises(StoppedError), worker.writing():
        pass
    assert os.listdir(tmp_path) == [store.name]


# -- the command line --------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path, small_groups_and_three_levels, monkeypatch):
    """A command on a stack that takes some seconds; its store has the levels that other processes give it."""
    monkeypatch.undo()
    a_stack(tmp_path / "a.ome.tif", textured_volume((10, 224, 72)))
    a_model(filters=16, blocks=7).save(tmp_path / "m.safetensors")
    model, out = str(tmp_path / "m.safetensors"), str(tmp_path / "out.ome.zarr")
    return ["export", str(tmp_path / "a.ome.tif"), "-m", model, "-o", out, "--device", "cpu", "--tile", str(TILE)]


def stored(path) -> np.ndarray:
    return np.asarray(open_image(path).data)


def expected_of(words: list[str], tmp_path) -> np.ndarray:
    assert main([word.replace("out.ome.zarr", "one.ome.zarr") for word in words]) == 0
    return stored(tmp_path / "one.ome.zarr")


@posix
def test_workers_of_the_command_line_end_with_it(words, tmp_path, capsys):
    """Ctrl-C, which reaches every process of the terminal, ends all of them, and the store is resumed."""
    process = cropeq(*words, "--workers", "2")
    out, children = tmp_path / "out.ome.zarr", []
    try:
        wait_for(lambda: process.poll() is not None or readable(journal_of(out, 0, 1)).count("\n") > 12)
        assert process.poll() is None, process.communicate()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 130
    message = "Interrupted. Unfinished results are kept; run the same command with --resume to complete them."
    assert err.splitlines() == [message]
    psutil.wait_procs(children, timeout=10)
    assert [child for child in children if child.is_running()] == []
    assert shards(out) and not out.exists()
    assert main([*words, "--workers", "1", "--resume"]) == 0
    assert np.array_equal(stored(out), expected_of(words, tmp_path))
    assert "40x224x72 uint16, bit-exact on cpu" in capsys.readouterr().out


def killed_client(words: list[str], out: Path, seconds: float) -> bool:
    """Kill a command some time after it has recorded some more shards, and wait for its workers to end."""
    done = readable(journal_of(out, 0, 1)).count("\n")
    process, children = cropeq(*words, "--workers", "2", "--resume"), []
    try:
        wait_for(lambda: process.poll() is not None or readable(journal_of(out, 0, 1)).count("\n") > done + 12)
        time.sleep(seconds)
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=WAIT)
    finally:
        process.kill()
    psutil.wait_procs(children, timeout=WAIT)
    assert [child for child in children if child.is_running()] == []
    return process.returncode == -signal.SIGKILL


KILLS = [pytest.param(n, id=f"kill-{n}", marks=[pytest.mark.soak] * (n > 0)) for n in range(4)]


@posix
@pytest.mark.parametrize("seed", KILLS)
def test_a_killed_client_is_resumed(words, tmp_path, seed, record_property):
    """Its workers end with it, at a random moment; started again, and killed again, it completes the output."""
    chance, out, kills = random.Random(seed), tmp_path / "out.ome.zarr", 0
    for _ in range(min(seed, 2) + 1):
        kills += killed_client(words, out, chance.uniform(0, 0.5))
    assert main([*words, "--resume"]) == 0
    assert main([word.replace("out.ome.zarr", "one.ome.zarr") for word in words]) == 0
    record_property(
        "store", {"equal": contents(out) == contents(tmp_path / "one.ome.zarr"), "killed": kills, "parts_lost": 0}
    )
    assert kills and contents(out) == contents(tmp_path / "one.ome.zarr")
    assert everything(tmp_path) == ["a.ome.tif", "m.safetensors", "one.ome.zarr", "out.ome.zarr"]


@posix
def test_a_job_array(words, tmp_path):
    """Three processes share the work; one is killed, the others end; started again, it completes the output."""
    each = [[*words, "--shard-id", str(number), "--num-shards", "3"] for number in range(3)]
    out, jobs = tmp_path / "out.ome.zarr", [cropeq(*words) for words in each]
    try:
        wait_for(lambda: jobs[1].poll() is not None or "\n[" in readable(journal_of(out, 1, 3)))
        jobs[1].kill()
        printed = [job.communicate(timeout=WAIT) for job in jobs]
        assert [job.returncode for job in jobs] == [0, -signal.SIGKILL, 0], printed
        assert (
            all("this part is done; the last part to finish completes the output" in printed[n][0] for n in (0, 2))
            and not out.exists()
        )
        jobs.append(cropeq(*each[1]))
        printed = jobs[-1].communicate(timeout=WAIT)
        assert jobs[-1].returncode == 0, printed
    finally:
        for job in jobs:
            job.kill()
    assert np.array_equal(stored(out), expected_of(words, tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a.ome.tif", "m.safetensors", "one.ome.zarr", "out.ome.zarr"]


def journal_of(out, number: int, count: int) -> Path:
    return partial_of(out) / ".cropeq" / f"journal-{number}-of-{count}.jsonl"


WRONG = [
    pytest.param(["--shard-id", "0"], "--shard-id is given without --num-shards", id="count"),
    pytest.param(["--num-shards", "2"], "--num-shards is given without --shard-id", id="number"),
    pytest.param(
        ["--shard-id", "2", "--num-shards", "2"],
        "There is no part 2 of 2: their numbers start at 0",
        id="no-such",
    ),
    pytest.param(
        ["--shard-id", "0", "--num-shards", "2", "--workers", "2"],
        "is shared by 2 processes and by a cluster. Choose one",
        id="workers",
    ),
    pytest.param(
        ["--shard-id", "0", "--num-shards", "2", "--scheduler", "a:1"],
        "is shared by 2 processes and by a cluster. Choose one",
        id="address",
    ),
    pytest.param(
        ["--shard-id", "0", "--num-shards", "2", "--overwrite"],
        "2 processes that share the work cannot overwrite",
        id="overwrite",
    ),
    pytest.param(["--workers", "2", "--scheduler", "tcp://a:1"], "Both 2 workers and the scheduler", id="both"),
    pytest.param(["--workers", "0"], "0 workers cannot compute anything", id="none"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_errors_before_any_work(words, tmp_path, capsys, options, message):
    assert main([*words, *options]) == 1
    assert message in capsys.readouterr().err
    assert everything(tmp_path) == ["a.ome.tif", "m.safetensors"]


def test_a_job_array_does_not_train(tmp_path, capsys):
    words = ["export", str(a_stack(tmp_path / "a.ome.tif")), "--train", "-o", str(tmp_path / "out.ome.zarr")]
    assert main([*words, "--shard-id", "0", "--num-shards", "2"]) == 1
    assert "2 processes that share the work need the same model" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="would train its own"):
        BatchSettings(OwnTraining(TrainingConfig()), part_of=(0, 2))


def test_without_distributed(words, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*words, "--workers", "2"]) == 1
    assert 'pip install "napari-cropeq[cluster]"' in capsys.readouterr().err


def test_a_source_in_memory_is_refused(cluster, tmp_path):
    with pytest.raises(ArgumentError, match="stack is in the memory of this process"):
        run(a_result(textured_volume((8, 20, 40))), tmp_path / "out.ome.zarr", cluster=cluster)
    assert os.listdir(tmp_path) == []


def test_a_cluster_and_a_job_array_exclude_each_other(cluster, stack, tmp_path):
    with pytest.raises(ArgumentError, match="shared by 2 processes and by a cluster"):
        run(result_of(stack), tmp_path / "out.ome.zarr", cluster=cluster, part_of=(0, 2))
