"""Workers of dask.distributed: processes on this machine, or those of a running scheduler."""

from __future__ import annotations

import importlib.util
import logging
import time
from typing import Any

from dask.system import CPU_COUNT

from napari_cropeq.errors import ArgumentError, ClusterError, MissingPackageError

__all__ = ["Cluster"]

AHEAD = 2  # groups of tiles per worker: one is computed, one waits or is written
COUNT_SECONDS = 1.0
GONE_SECONDS = 60.0  # without any worker: a process that was killed is started again within seconds
WAIT_SECONDS = 60

logger = logging.getLogger(__name__)


class Cluster:
    """The workers that compute tiles; they are started or connected to when they are first needed.

    Parameters
    ----------
    workers : int, optional
        How many processes to start on this machine; they share its cores.
    scheduler : str, optional
        Address of a running scheduler to connect to instead, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    MissingPackageError
        If distributed is not installed.
    ArgumentError
        If neither or both are given, or there would be no worker.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if (workers is None) == (scheduler is None):
            raise ArgumentError(
                "Neither a number of workers nor a scheduler is given."
                if workers is None
                else f"Both {workers} workers and the scheduler {scheduler} are given.",
                "Give one of the two.",
                setting="scheduler",
            )
        if workers is not None and workers < 1:
            raise ArgumentError(f"{workers} workers cannot compute anything.", "Start at least 1.", setting="workers")
        if importlib.util.find_spec("distributed") is None:
            raise MissingPackageError(
                "Workers need the package distributed, which is not installed.",
                'Install it with: pip install "napari-cropeq[cluster]"',
                setting="distributed",
            )
        self._workers, self._scheduler = workers, scheduler
        self._local: Any = None
        self._client: Any = None
        self._room, self._counted, self._seen = 0, 0.0, 0.0  # when workers were counted, and last seen

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """The client of dask.distributed, connected to at least one worker.

        Raises
        ------
        ClusterError
            If there is no scheduler, or it has no worker.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def room(self) -> int:
        """How many groups of tiles to submit at once, so that no worker is idle and few groups wait in memory.

        Raises
        ------
        ClusterError
            If the scheduler does not answer, or has had no worker for a minute.
        """
        if time.monotonic() - self._counted > COUNT_SECONDS or not self._room:
            self.check()
            try:
                self._room = AHEAD * len(self.client.nthreads())
            except Exception as error:
                raise self.lost() from error
            self._counted = time.monotonic()
            if self._room:
                self._seen = self._counted
            elif self._counted - self._seen > GONE_SECONDS:
                raise ClusterError(
                    f"All workers {self._where} have ended. Finished tiles are kept.",
                    "Start workers, then resume.",
                    setting="worker_memory",
                )
        return self._room

    def check(self) -> None:
        """Raise ClusterError if the scheduler does not answer."""
        if self.client.status != "running":
            raise self.lost()

    def lost(self) -> ClusterError:
        """Return the error for a scheduler that no longer answers."""
        return ClusterError(
            f"The scheduler {self._where} no longer answers. Finished tiles are kept.",
            "Check or restart the scheduler, then resume.",
            setting="scheduler",
        )

    @property
    def _where(self) -> str:
        return "of the local cluster" if self._scheduler is None else f"at {self._scheduler}"

    def close(self) -> None:
        """Disconnect from the scheduler, and end the processes that were started here."""
        client, local, self._client, self._local = self._client, self._local, None, None
        for ending, seconds in ((client, 5), (local, 10)):
            if ending is not None:
                try:
                    ending.close(timeout=seconds)
                except TimeoutError:  # must not hide the error that ended the run; they end with this process
                    logger.warning("%r has not ended in %d s", ending, seconds)

    def _connect(self) -> Any:
        from distributed import Client, LocalCluster

        if self._scheduler is None:
            assert self._workers is not None
            self._local = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=max(1, CPU_COUNT // self._workers),
                processes=True,
                memory_limit=0,  # the network takes the memory, and distributed cannot move that elsewhere
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # else port 8787 is taken
                preload=["napari_cropeq.run.distributed.worker"],
                silence_logs=logging.CRITICAL,
            )
        try:
            client = Client(self._local or self._scheduler, set_as_default=False, timeout=WAIT_SECONDS)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"There is no scheduler at {self._scheduler} ({' '.join(str(error).split())}).",
                "Start one (dask scheduler), or correct the address, which looks like tcp://10.0.0.1:8786.",
                setting="scheduler",
            ) from error
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as error:
            client.close(timeout=5)
            raise ClusterError(
                f"The scheduler at {self._scheduler} has no workers.",
                f"Start at least one (dask worker {self._scheduler}).",
                setting="scheduler",
            ) from error
        logger.info("connected to %s with %d workers", self._scheduler or "a local cluster", len(client.nthreads()))
        return client
