"""Compute a whole volume with the workers of a cluster: tiles as tasks, few of them at once, in storage order."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from napari_cropeq.compute.fill import Done, Failed, Failures, Filled, Group, groups
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.errors import ClusterError, InUseError, StoppedError
from napari_cropeq.run.distributed.client import Cluster
from napari_cropeq.run.distributed.worker import Outcome, Work, compute
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.disk_errors import disk_error

__all__ = ["spread"]

WAIT_SECONDS = 0.5

logger = logging.getLogger(__name__)


def spread(store: DiskStore, result: SuperResolution, cluster: Cluster) -> Iterator[Done | Failed | Filled | None]:
    """Let workers compute and write the missing tiles of a store, and record them; yield each event, or None.

    If a worker dies, another one computes its current tiles again. If the generator is closed early, it cancels the
    tasks; no worker writes any more once the store has been released.

    Parameters
    ----------
    store : DiskStore
        Open in this process; workers must see its folder under the same path.
    result : SuperResolution
        Its source must be a file that workers see under the same path.
    cluster : Cluster
        Its workers compute the tiles.

    Raises
    ------
    ValueError
        If the source is not a file, or a worker would compute other bits.
    OSError
        If the scheduler does not answer, the same task has killed several workers, or the store cannot be written.
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
            event = _recorded(_outcome(future, store, cluster), store, group)
            failures.note(event)
            yield event
    finally:
        if client.status == "running":
            client.cancel(list(running), force=True)
    yield Filled(store, tuple(failures.all))


def _outcome(future: Any, store: DiskStore, cluster: Cluster) -> Outcome:
    """Return the outcome of a task, or raise an error that a user can act on."""
    from distributed import CancelledError, KilledWorker

    if future.status not in ("finished", "error"):
        raise cluster.lost()
    try:
        outcome = future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"{error.allowed_failures + 1} workers died while computing the same tiles, the last one at "
            f"{error.last_worker.address}.",
            "Give the workers more memory or use smaller tiles, then resume.",
            setting="worker_memory",
        ) from error
    except StoppedError as error:
        raise InUseError(
            f"Another process has taken over {store.folder.partial.name}, so the workers of this one may not write to "
            "it.",
            "Wait until the other process has ended, then resume.",
            setting="in_use",
        ) from error
    except CancelledError as error:
        raise cluster.lost() from error
    except OSError as error:
        cluster.check()
        raise disk_error(error, store.folder.partial.name) from error
    assert isinstance(outcome, Outcome)
    return outcome


def _recorded(outcome: Outcome, store: DiskStore, group: Group) -> Done | Failed:
    """Record the tiles that a worker has written, and return the event."""
    if outcome.failure is not None:
        return Failed(outcome.failure, False, group.leading, group.box)
    for record in outcome.records:
        store.take(record)
    return Done(store, group.leading, group.box, len(outcome.records), 0)
