"""A run over a whole volume by the workers of a cluster: tiles as tasks, few of them at once, in storage order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from napari_cropeq.compute.fill import Done, Failed, Failures, Filled, Group, groups
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.errors import StoppedError
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.distributed.worker import Outcome, Work, compute
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.disk_errors import disk_error

__all__ = ["spread"]

WAIT_SECONDS = 0.5


def spread(store: DiskStore, result: SuperResolution, cluster: Cluster) -> Iterator[Done | Failed | Filled | None]:
    """Have what is missing in a store computed and written by workers, and claim it; yield what happens, or None.

    A worker that dies costs what it was at: that is done again by another. Closed before its end, it calls the tasks
    off; no worker writes any more once the store has been released.

    Parameters
    ----------
    store : DiskStore
        Held by this process; workers must see its folder under the same path.
    result : SuperResolution
        Of a source that is a file, which workers must see as well.
    cluster : Cluster
        Whose workers compute.

    Raises
    ------
    ValueError
        If the source is not a file, or a worker would compute other bits.
    OSError
        If the scheduler is gone, a task has killed several workers, or the store cannot be written.
    """
    work = Work.of(store, result)
    client, failures = cluster.client, Failures()
    waiting = groups(store, result.leading_indices, result.shapes.bulk)
    running: dict[Any, Group] = {}
    ended: SimpleQueue[Any] = SimpleQueue()
    try:
        while True:
            for group in itertools.islice(waiting, max(0, cluster.room - len(running))):
                future = client.submit(compute, work, group, pure=False)
                running[future] = group
                future.add_done_callback(ended.put)
            if not running and cluster.room:
                break
            try:
                future = ended.get(timeout=WAIT_SECONDS)
            except Empty:
                cluster.check()
                yield None
                continue
            group = running.pop(future)
            event = _claimed(_outcome(future, store, cluster), store, group)
            failures.note(event)
            yield event
    finally:
        if client.status == "running":
            client.cancel(list(running), force=True)
    yield Filled(store, tuple(failures.all))


def _outcome(future: Any, store: DiskStore, cluster: Cluster) -> Outcome:
    """Return what a task gave, or raise what went wrong as a sentence."""
    from distributed import CancelledError, KilledWorker

    if future.status not in ("finished", "error"):
        raise cluster.lost()
    try:
        outcome = future.result()
    except KilledWorker as error:
        raise OSError(
            f"Got {error.allowed_failures + 1} workers that died over the same tiles, the last at "
            f"{error.last_worker.address}, expected them to live: give workers more memory or use smaller tiles, and "
            "resume."
        ) from error
    except StoppedError as error:
        raise OSError(
            f"Got {store.folder.partial.name}, which workers may not write to any more, expected this process to be "
            "the only one at work on it: resume when no other is."
        ) from error
    except CancelledError as error:
        raise cluster.lost() from error
    except OSError as error:
        cluster.check()
        raise disk_error(error, store.folder.partial.name) from error
    assert isinstance(outcome, Outcome)
    return outcome


def _claimed(outcome: Outcome, store: DiskStore, group: Group) -> Done | Failed:
    """Claim what a worker has written."""
    if outcome.failure is not None:
        return Failed(outcome.failure, False, group.leading, group.box)
    for record in outcome.records:
        store.take(record)
    return Done(store, group.leading, group.box, len(outcome.records), 0)
