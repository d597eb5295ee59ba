"""Report the progress of a job to a callback, or else show a progress bar in terminals and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from napari_cropeq.core.training.progress import Progress
from napari_cropeq.evidence.trust.report import TrustProgress
from napari_cropeq.run.export import ExportProgress

__all__ = ["Callback", "reporting"]

P = TypeVar("P", Progress, ExportProgress, TrustProgress)

Callback = Callable[[P], object]
"""Called with the progress after every step; the job stops if it returns False."""


@contextmanager
def reporting(callback: Callback[P] | None, what: str) -> Iterator[Callable[[P], bool]]:
    """Yield a function that takes each progress of a job and returns whether the job continues.

    Parameters
    ----------
    callback : callable, optional
        The user's callback; a progress bar by default.
    what : str
        Name of the job beside the bar.
    """
    if callback is not None:
        yield lambda progress: not _is_false(callback(progress))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, disable=not _is_visible(console)) as bar:
        task = bar.add_task(what, total=1.0, detail="")

        def show(progress: P) -> bool:
            fraction, detail = _fraction_and_detail(progress)
            bar.update(task, completed=fraction, detail=detail)
            return True

        yield show


def _is_false(answer: object) -> bool:
    return isinstance(answer, (bool, np.bool_)) and not answer


def _is_visible(console: Console) -> bool:
    """Return whether a bar can be shown; in a notebook rich draws it with ipywidgets."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal


def _fraction_and_detail(progress: Progress | ExportProgress | TrustProgress) -> tuple[float, str]:
    if isinstance(progress, Progress):
        return progress.fraction, f"{progress.patches:,} patches, loss {progress.loss:.4f}"
    if isinstance(progress, TrustProgress):
        return progress.share, progress.what
    return progress.done / max(progress.total, 1), f"{progress.done} of {progress.total} tiles"
