"""The command line: cropeq info | train | export | degrade | evaluate | verify | trust | mip | publish."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from napari_cropeq.cli.hints import sentence
from napari_cropeq.cli.progress import interrupted, show_log, warnings_as_sentences
from napari_cropeq.errors import CropeqError, MissingPackageError
from napari_cropeq.torch_check import check_torch

__all__ = ["main"]

# Errors that a user can mend are printed as a sentence; any other one is a defect and keeps its traceback.
EXPECTED = (CropeqError, ValueError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cropeq`` and return its exit code: 0, 1 for an error printed as a sentence, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file or an old console of Windows has no letters such as µ or ≤
            with suppress(OSError):  # some terminals refuse it
                stream.reconfigure(errors="replace")
    try:
        check_torch()
    except MissingPackageError as error:
        print(f"cropeq: {error}", file=sys.stderr)
        return 1
    from napari_cropeq.cli.parser import make_parser  # imports torch

    arguments = make_parser().parse_args(argv)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # errors of a file are printed as a sentence
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces that it lists fonts
    before = _listen()
    try:
        with show_log(arguments.verbose), warnings_as_sentences():
            report = arguments.run(arguments)
    except KeyboardInterrupt as error:
        # zarr leaves coroutines unfinished, and Python would warn about them after the sentence.
        warnings.filterwarnings("ignore", "coroutine", RuntimeWarning)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        print(str(error) or "Interrupted.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if arguments.debug:
            raise
        print(f"cropeq: {sentence(error)}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arguments.json:
        print(json.dumps(report, default=str))
    return 1 if report.get("failed") else 0


def _listen() -> dict[int, Any]:
    """Let a job scheduler's SIGTERM clean up as Ctrl-C does; return the handlers that were set before."""
    interrupted.clear()
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells let background jobs ignore it
        wanted.append(signal.SIGINT)
    return {number: signal.signal(number, _interrupt) for number in wanted}


def _interrupt(*_: Any) -> None:
    # Python swallows what is raised in a destructor or in the callback of a weak reference: the progress bar raises it
    # again at the next step.
    interrupted.set()
    raise KeyboardInterrupt
