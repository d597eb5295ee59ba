"""What the command line shows while it works: progress, log and warnings; and the interruption that it notices."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["interrupted", "progress_bar", "show_log", "warnings_as_sentences"]

PACKAGE = Path(__file__).parents[1]

interrupted = threading.Event()
"""Set by a signal, and looked at by :func:`progress_bar` at every step."""


@cache
def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float, str], None]]:
    """Give a function that shows ``(what, fraction, detail)`` with the time left, on standard error.

    Raises
    ------
    KeyboardInterrupt
        By the function, once ``interrupted`` is set.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    console = _console()
    # Where the terminal is narrow, names and details are cut, times are not.
    cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    whole = Column(no_wrap=True, min_width=7)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=cut),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:3.0f} %", table_column=Column(no_wrap=True, min_width=5)),
        TimeElapsedColumn(table_column=whole),
        TextColumn("left", table_column=Column(no_wrap=True, min_width=4)),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[detail]}", markup=False, table_column=cut),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True) as progress:
        task = progress.add_task("starting", total=1.0, detail="")

        def update(what: str, fraction: float, detail: str) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            progress.update(task, description=what, completed=fraction, detail=detail)

        yield update


@contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """Print warnings of this package as sentences, without the line of code that they come from."""
    before = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> str:
        ours = Path(filename).is_relative_to(PACKAGE)
        return f"cropeq: {message}\n" if ours else before(message, category, filename, *rest)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


@contextmanager
def show_log(verbosity: int) -> Iterator[None]:
    """Write the package's log to standard error, above the progress bar: 1 shows INFO, 2 DEBUG.

    0 shows nothing but that a file has several images, of which the first is read.
    """
    logger = logging.getLogger("napari_cropeq" if verbosity else "napari_cropeq.formats.open")
    if not verbosity:
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
    elif sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=_console(), show_path=False)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
