"""The command line: cropeq info | train | export | degrade | evaluate | verify | mip."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from napari_cropeq import __version__
from napari_cropeq.cli.degrade import add_degrade
from napari_cropeq.cli.evaluate import add_evaluate
from napari_cropeq.cli.export import add_export
from napari_cropeq.cli.info import add_info
from napari_cropeq.cli.mip import add_mip
from napari_cropeq.cli.train import add_train
from napari_cropeq.cli.verify import add_verify

__all__ = ["main"]

# What a user can mend, told in a sentence; anything else is a defect and keeps its traceback.
EXPECTED = (ValueError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cropeq`` and return its exit code: 0, 1 for an error told in a sentence, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what is wrong with a file is told in a sentence
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # that it lists fonts for the first time
    before = _listen()
    try:
        report = arguments.run(arguments)
    except KeyboardInterrupt as error:
        # What zarr was about to do is left undone; Python would tell of it after the sentence.
        warnings.filterwarnings("ignore", "coroutine", RuntimeWarning)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        print(str(error) or "Interrupted.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if arguments.debug:
            raise
        print(f"cropeq: {_sentence(error)}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arguments.json:
        print(json.dumps(report, default=str))
    return 1 if report.get("failed") else 0


_interrupted = threading.Event()


def _listen() -> dict[int, Any]:
    """Have a job scheduler's SIGTERM clean up as Ctrl-C does; return the handlers there were."""
    _interrupted.clear()
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell has background jobs ignore it
        wanted.append(signal.SIGINT)
    return {number: signal.signal(number, _interrupt) for number in wanted}


def _interrupt(*_: Any) -> None:
    # Where Python happens to be in a destructor or a weak reference's callback it swallows what is raised: the next
    # step of the work asks again.
    _interrupted.set()
    raise KeyboardInterrupt


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"Got too little memory ({text[:200]}): use smaller tiles (--tile), fewer filters or another device."
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cropeq", description="Self-supervised axial super-resolution of 3D volumes.")
    parser.add_argument("--version", action="version", version=f"cropeq {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    info = add_info(commands, _progress)

    train = add_train(commands, _progress)

    export = add_export(commands, _progress, _sentence)

    degrade = add_degrade(commands)

    evaluate = add_evaluate(commands, _progress)

    verify = add_verify(commands, _progress)

    mip = add_mip(commands, _progress)

    for command in (train, export, mip, verify):
        command.add_argument("--voxel-size", type=float, nargs=3, metavar=("Z", "Y", "X"), help="instead of the file's")
    for command in (info, train, export):
        command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    for command in (info, train, export, degrade, evaluate, verify, mip):
        command.add_argument("--json", action="store_true", help="print one machine-readable object last")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


@contextmanager
def _progress() -> Iterator[Callable[[str, float, str], None]]:
    """Give a function that shows ``(what, fraction, detail)`` with the time left, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    # Where the terminal is narrow, names and details are cut, times are not.
    cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    whole = Column(no_wrap=True, min_width=7)
    columns = (
        TextColumn("{task.description}", table_column=cut),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:3.0f} %", table_column=Column(no_wrap=True, min_width=5)),
        TimeElapsedColumn(table_column=whole),
        TextColumn("left", table_column=Column(no_wrap=True, min_width=4)),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[detail]}", table_column=cut),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True) as progress:
        task = progress.add_task("starting", total=1.0, detail="")

        def update(what: str, fraction: float, detail: str) -> None:
            if _interrupted.is_set():
                raise KeyboardInterrupt
            progress.update(task, description=what, completed=fraction, detail=detail)

        yield update
