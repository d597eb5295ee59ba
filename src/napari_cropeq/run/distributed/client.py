"""Workers of dask.distributed: processes of this machine, or those that a scheduler has."""

from __future__ import annotations

import importlib.util
import logging
import time
from typing import Any

from dask.system import CPU_COUNT

__all__ = ["Cluster"]

AHEAD = 2  # groups of tiles at a worker: one is computed, one waits or is written
COUNT_SECONDS = 1.0
WAIT_SECONDS = 60


class Cluster:
    """Where tiles are computed; nothing is started or connected to before it is needed.

    Parameters
    ----------
    workers : int, optional
        Start so many processes on this machine; they share its cores.
    scheduler : str, optional
        Connect to the scheduler at this address, such as ``tcp://10.0.0.1:8786``, instead.

    Raises
    ------
    ImportError
        If distributed is not installed.
    ValueError
        If it is neither or both, or no worker at all.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if (workers is None) == (scheduler is None):
            raise ValueError(f"Got {workers} workers and the scheduler {scheduler}, expected one of them: choose one.")
        if workers is not None and workers < 1:
            raise ValueError(f"Got {workers} workers, expected at least 1: give how many processes to start.")
        if importlib.util.find_spec("distributed") is None:
            raise ImportError(
                "Got work for a cluster, but distributed is not installed: install it with "
                'pip install "napari-cropeq[cluster]".'
            )
        self._workers, self._scheduler = workers, scheduler
        self._local: Any = None
        self._client: Any = None
        self._room, self._counted = 0, 0.0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """The client of distributed, connected to at least one worker.

        Raises
        ------
        OSError
            If there is no scheduler, or it has no worker.
        """
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def room(self) -> int:
        """How many groups of tiles to have at the workers at once, so that none waits and few are held.

        Raises
        ------
        OSError
            If the scheduler is gone.
        """
        if time.monotonic() - self._counted > COUNT_SECONDS or not self._room:
            self.check()
            try:
                self._room = AHEAD * len(self.client.nthreads())
            except Exception as error:
                raise self.lost() from error
            self._counted = time.monotonic()
        return self._room

    def check(self) -> None:
        """Raise OSError if the scheduler is gone."""
        if self.client.status != "running":
            raise self.lost()

    def lost(self) -> OSError:
        """Return what to say of a scheduler that is gone."""
        where = "of the local cluster" if self._scheduler is None else f"at {self._scheduler}"
        return ConnectionError(
            f"Got no answer from the scheduler {where} any more, expected one until all tiles are done: see to it and "
            "resume, what is done is kept."
        )

    def close(self) -> None:
        """Let go of the scheduler, and end the processes that were started here."""
        client, local, self._client, self._local = self._client, self._local, None, None
        if client is not None:
            client.close(timeout=5)
        if local is not None:
            local.close(timeout=10)

    def _connect(self) -> Any:
        from distributed import Client, LocalCluster

        if self._scheduler is None:
            assert self._workers is not None
            self._local = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=max(1, CPU_COUNT // self._workers),
                processes=True,
                memory_limit=0,  # what takes memory is the network, which distributed cannot move elsewhere
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # else port 8787 is taken
                preload=["napari_cropeq.run.distributed.worker"],
                silence_logs=logging.CRITICAL,
            )
        try:
            client = Client(self._local or self._scheduler, set_as_default=False, timeout=WAIT_SECONDS)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"Got no scheduler at {self._scheduler} ({' '.join(str(error).split())}), expected an address such as "
                "tcp://10.0.0.1:8786: start one (dask scheduler), or correct the address."
            ) from error
        try:
            client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as error:
            client.close(timeout=5)
            raise ConnectionError(
                f"Got a scheduler at {self._scheduler} without workers, expected at least one: start some (dask worker "
                f"{self._scheduler})."
            ) from error
        return client
