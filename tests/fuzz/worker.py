"""Batches of cases in processes with limits: time, memory, and a report of what happened."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any

from fuzz.kinds import KINDS
from fuzz.oracle import Kind, WrongError
from processes import forking

SECONDS = 5.0  # processor time of a case
SILENCE = 120.0  # s, of a case: the machine may be busy, but a process that waits for ever hangs
MEMORY = 2**30  # bytes, above what the process maps before its first case


@dataclass(frozen=True)
class Batch:
    """Some cases of a kind.

    Parameters
    ----------
    kind : str
        See :data:`fuzz.kinds.KINDS`.
    cases : int
        How many.
    seed : int or None
        None for the cases that are the same each time.
    folder : path
        For the files; it is removed.
    """

    kind: str
    cases: int
    seed: int | None
    folder: Path

    @property
    def report(self) -> Path:
        """What happened, and the case that is running."""
        return self.folder.with_name(f"{self.folder.name}.json")


class TooSlowError(BaseException):
    """A case takes longer than it may."""


class Cases:
    """Runs cases, and counts how they end.

    Parameters
    ----------
    kind : Kind
        What is damaged.
    said : path
        File for the case that is running.
    """

    def __init__(self, kind: Kind, said: Path) -> None:
        self.kind = kind
        self.ends: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.slowest, self.spent = (0.0, []), 0.0
        self._handle = os.open(said, os.O_RDWR | os.O_CREAT)
        signal.signal(signal.SIGPROF, too_slow)

    def run(self, edits: list[Any]) -> None:
        """Run a case; an error is a finding, and does not end the batch."""
        edits = json.loads(json.dumps(edits))
        self._say(edits)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            self.ends[self.kind.run(edits)] += 1
        except (Exception, TooSlowError) as error:  # noqa: BLE001 (any other error is what is looked for)
            self.findings.append(finding(edits, error))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - start
        self.spent, self.slowest = self.spent + seconds, max(self.slowest, (seconds, edits), key=lambda one: one[0])

    def _say(self, edits: list[Any]) -> None:
        said = json.dumps(edits).encode()
        os.pwrite(self._handle, said, 0)
        os.ftruncate(self._handle, len(said))

    def report(self, before: float) -> dict[str, Any]:
        """Return what happened in JSON values."""
        return {
            "ends": dict(self.ends),
            "findings": self.findings,
            "slowest, s": round(self.slowest[0], 3),
            "slowest": self.slowest[1],
            "processor, s": round(self.spent, 2),
            "memory, MB": round(peak() - before),
        }


def finding(edits: list[Any], error: BaseException) -> dict[str, Any]:
    """Describe an error, with the place in the package from which it came."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "napari_cropeq" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    what = str(error) if isinstance(error, WrongError) else f"{type(error).__name__}: {error}"
    return {"edits": edits, "what": " ".join(what.split())[:400], "where": place}


def peak() -> float:
    """Return the largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def work(batch: Batch) -> None:
    """Run a batch in this process, and write its report."""
    import torch
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from hypothesis.configuration import set_hypothesis_home_dir

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    set_hypothesis_home_dir(batch.folder / ".hypothesis")
    batch.folder.mkdir(parents=True)
    cases = Cases(KINDS[batch.kind](batch.folder), Path(f"{batch.report}.case"))
    limit_memory()
    before = peak()
    options = settings(
        max_examples=batch.cases,
        derandomize=batch.seed is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    drawn = options(given(st.lists(cases.kind.edits(), min_size=1, max_size=2))(cases.run))
    (drawn if batch.seed is None else seed(batch.seed)(drawn))()
    batch.report.write_text(json.dumps(cases.report(before)))
    shutil.rmtree(batch.folder, ignore_errors=True)
    util._exit_function()  # removes the locks of libraries, as at the end of any process
    os._exit(0)  # threads of a case that was too slow may still run


def too_slow(*_: object) -> None:
    """Interrupt a case."""
    raise TooSlowError(f"more than {SECONDS} s")


def limit_memory() -> None:
    """Allow this process some memory in addition to what it has mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def ran(batch: Batch) -> dict[str, Any]:
    """Run a batch in its own process, and return its report; a process that dies or hangs is a finding."""
    case = Path(f"{batch.report}.case")
    process = forking().Process(target=work, args=(batch,))
    process.start()
    while process.exitcode is None:
        process.join(1.0)
        if process.exitcode is None and case.exists() and time.time() - case.stat().st_mtime > SILENCE:
            process.kill()
            process.join()
    if batch.report.exists():
        report = json.loads(batch.report.read_text())
    else:
        edits = json.loads(case.read_text() or "[]") if case.exists() else []
        died = {"edits": edits, "what": f"the process ended with {process.exitcode}", "where": ""}
        report = {"ends": {}, "findings": [died]}
    for path in (case, batch.report):
        path.unlink(missing_ok=True)
    shutil.rmtree(batch.folder, ignore_errors=True)
    return report
